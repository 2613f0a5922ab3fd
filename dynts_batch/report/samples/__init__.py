"""What several samples of a question are worth together."""
