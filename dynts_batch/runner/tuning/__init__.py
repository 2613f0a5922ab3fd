"""`dynts-batch tune`: runs candidates no further than their certificates need."""
