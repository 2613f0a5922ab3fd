"""Subcommands that read finished runs."""
