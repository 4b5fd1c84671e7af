"""What all tuning shares: the same data, objectives and budget make its results comparable."""
