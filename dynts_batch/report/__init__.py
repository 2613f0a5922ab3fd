"""What a run directory says, for people. Reads run directories only."""
