"""What a short answer is, as it is written: its spelling, numerals, units, times, brackets and signs. No mathematics."""
