"""Our engine and its rivals on the same model, prompts, lengths and batch."""
