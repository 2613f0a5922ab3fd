"""From files in any accepted format to requests."""
