"""What a chat template makes of turns, and where it says that a turn ends."""
