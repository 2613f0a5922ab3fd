"""Weights and inputs in 8 bits, for CPUs."""
