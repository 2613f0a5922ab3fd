"""Arrow types: how a column of any of them is stored, and how it becomes JSON data."""
