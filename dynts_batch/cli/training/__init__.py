"""Subcommands about what a model needs for dynts and thinkv."""
