"""Which cheaper policy and budget loses less than a given accuracy: tests, ladder and
certificate."""
