"""The file formats: each file here reads one, or a part of it, into a Table."""
