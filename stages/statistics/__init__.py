"""Scores, intervals, paired tests, and what became of items. Arrays in, numbers out."""
