"""Report: what every finished evaluation of a model found, side by side."""
