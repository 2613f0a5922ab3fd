"""Subcommands that make what a model needs for dynts and thinkv."""
