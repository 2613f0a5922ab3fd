"""Subcommands about doing runs."""
