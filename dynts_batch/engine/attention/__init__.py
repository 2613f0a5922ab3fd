"""Attention over the arena: what a step hands to it, and its kernels in torch, C and Triton."""
