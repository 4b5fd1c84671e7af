"""The embedded default: a synthetic world of facts, two tiny models that learned it, and the code that made both."""
