"""Our engine beside what a user would run instead, on the same model, prompts, lengths and batch."""
