"""Where models, texts and weights come from, and what pins them: digests for local files, the commit hash for a Hub id."""
