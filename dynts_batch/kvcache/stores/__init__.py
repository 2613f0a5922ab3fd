"""Where keys and values lie: plain or packed, in torch, C and Triton."""
