"""Checkpoints as files: what they hold, and how transformers is to read them. Loads nothing."""
