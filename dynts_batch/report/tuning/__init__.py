"""Which cheaper policy and budget loses less than so much accuracy: the tests, the ladder, and the certificate."""
