"""Export: a compressed model and its repair as files that transformers, peft and vLLM load. No stage: copying needs no key."""
