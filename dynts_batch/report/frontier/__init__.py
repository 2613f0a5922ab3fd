"""Accuracy against memory: the points, the table and the picture."""
