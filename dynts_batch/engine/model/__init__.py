"""The model: what it is, whether it can run here, and how it is loaded."""
