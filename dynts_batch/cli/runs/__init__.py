"""Subcommands that start runs, or watch them."""
