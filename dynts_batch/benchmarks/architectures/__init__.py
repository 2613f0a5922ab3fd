"""Every decoder that the installed transformers knows, in a tiny random checkpoint: it runs, token
for token as by `generate`, or it is refused in one line."""
