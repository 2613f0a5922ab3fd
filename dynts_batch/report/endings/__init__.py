"""What it cost and saved to end rows early, or to run them again."""
