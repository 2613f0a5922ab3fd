"""Arrow types: how a column of any of them is stored, and what it is as JSON data."""
