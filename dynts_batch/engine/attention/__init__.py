"""Attention over the arena: what a step passes to it, and its kernels in torch, C and Triton."""
