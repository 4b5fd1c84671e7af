"""Finished evaluations side by side: which there are, and what they found, as a table of JSON values."""
