"""The file formats. Each file here reads one, or a part of one, into a Table."""
