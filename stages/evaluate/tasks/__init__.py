"""What is asked: lm-eval's tasks and ours, their definitions, their documents, and metrics beside lm-eval's."""
