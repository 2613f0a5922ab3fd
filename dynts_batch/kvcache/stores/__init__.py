"""The stores of keys and values: plain or packed, in torch, C and Triton."""
