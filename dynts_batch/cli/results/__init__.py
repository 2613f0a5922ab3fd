"""Subcommands about what is read from finished runs."""
