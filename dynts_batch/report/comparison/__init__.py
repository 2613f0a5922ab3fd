"""Several runs side by side: their figures, how they differ, and whether that is more than
chance."""
