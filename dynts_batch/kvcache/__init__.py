"""The bounded KV cache: the arena that stores keys and values, and the policies that say which of them stay.

Axes, the same letters wherever this package states the shape of a tensor, in Python, C and Triton:

    R  rows: the sequences that one operation is about; often they are in the first R lanes
    L  layers of the model
    H  key/value heads
    G  query heads that share one key/value head
    Q  query heads, H x G
    T  tokens of one pass: new ones, or those whose queries are meant
    C  slots of a lane, all that it has: its capacity
    S  slots that are looked at, the first ones of a lane, or the tokens that are attended to
    K  slots that stay in an eviction, the most of any row
    D  numbers of a head: head_dim
    E  numbers of a hidden state: hidden_size
    N  how many there are of what the sentence names

`L or 1` and `H or 1` are 1 where all layers, or heads, have the same. What has no letter is written out.
"""
