"""One decode step of all running sequences: its inputs, and repeating it without its Python."""
