"""What runs against our engine."""
