"""Checkpoints as files: what they hold, and how transformers must read them. Loads nothing."""
