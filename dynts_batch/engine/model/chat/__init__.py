"""How a chat template writes turns, and how it marks the end of one."""
