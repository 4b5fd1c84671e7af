"""A model as one GGUF file, which llama.cpp and its kin run: weights, settings, tokenizer and chat template."""
