"""The bounded KV cache: the arena that stores keys and values, and the policies that say which of them stay."""
