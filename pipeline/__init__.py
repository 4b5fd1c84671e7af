"""What any experiment pipeline needs: keys, artifacts, the store, the runner, progress. Knows nothing of language models."""
