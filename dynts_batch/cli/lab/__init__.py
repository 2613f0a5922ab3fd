"""Subcommands about the embedded model."""
