"""What one pass of the model over a text tells a policy, before the first row."""
