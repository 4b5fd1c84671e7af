"""What a person types: one module per command, options and printing only."""
