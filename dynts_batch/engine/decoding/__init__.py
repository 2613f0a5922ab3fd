"""One decode step of all running sequences: its inputs, and its repetition without Python."""
