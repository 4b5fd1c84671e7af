"""One package per stage: its config, its inputs, its `run()`."""
