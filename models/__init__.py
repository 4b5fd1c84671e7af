"""Everything that touches a forward pass: loading, soft prompts, prompt caches, routing, training, scoring."""
