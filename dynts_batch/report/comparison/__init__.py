"""Several runs beside each other: their figures, what sets them apart, and whether that is more than chance."""
