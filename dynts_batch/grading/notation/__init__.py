"""How a short answer is written: spelling, numerals, units, times, brackets, signs.

Knows no mathematics.
"""
