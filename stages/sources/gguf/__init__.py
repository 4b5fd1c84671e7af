"""A GGUF file as a model folder: its weights as plain numbers, its tokenizer and its chat template."""
