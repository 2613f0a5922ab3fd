"""The bounded KV cache: an arena stores keys and values, and policies say which of them stay.

Axes. A letter means the same wherever this package states a shape, in Python, C and Triton:

    R  rows: the sequences of one operation, often those in the first R lanes
    L  layers of the model
    H  key/value heads
    G  query heads that share one key/value head
    Q  query heads, H x G
    T  tokens of one pass: new ones, or those whose queries are meant
    C  slots of a lane: its capacity
    S  slots that are read: the first ones of a lane, or the tokens that are attended to
    K  slots that stay in an eviction, the most of any row
    D  numbers of a head: head_dim
    E  numbers of a hidden state: hidden_size
    N  number of whatever the sentence names

`L or 1` and `H or 1` are 1 if all layers, or all heads, share a value. Other sizes are written out.
"""
