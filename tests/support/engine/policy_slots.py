"""Slots for policies to score: a real arena filled with random tokens, queries and columns."""

import torch

from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.kvcache.layer_states import AttentionRule
from dynts_batch.kvcache.policy import Policy
from dynts_batch.kvcache.query_stats import LayerQueries, QueryStats
from dynts_batch.kvcache.recorders import RECORDERS
from dynts_batch.kvcache.stores.formats import KVFormat
from dynts_batch.kvcache.view import Row, Slots

LAYERS, KV_HEADS, GROUP, CAPACITY = 3, 2, 2, 40
SLIDING_WINDOW = 30
WORDS = ("a", ".", " so", ",\n", " ", "1.5")


def make_slots(
    policy: Policy,
    rows: int = 3,
    prompt_tokens: int = 5,
    seed: int = 0,
    head_dim: int = 4,
    dtype: torch.dtype = torch.float32,
    stored_in: KVFormat | None = None,
) -> Slots:
    """Full rows, in lanes that are not the first ones.
    The second layer has sinks and a sliding window, and the others attend alike."""
    torch.manual_seed(seed)
    shape = ArenaShape(
        *(LAYERS, KV_HEADS, head_dim, dtype),
        per_head=policy.per_head,
        columns=tuple(recorder.column for _, recorder in sorted(RECORDERS.items())),
        num_queries=policy.num_queries,
        num_query_heads=KV_HEADS * GROUP,
        stored_in=stored_in,
    )
    arena = KVArena(shape, rows + 2, CAPACITY, torch.device("cpu"))
    lanes, seq_len = torch.arange(rows) + 2, torch.tensor([CAPACITY + 1, 55, 70])[:rows]
    _fill(arena, lanes, seq_len)
    counts = policy.counts(prompt_tokens=prompt_tokens, answer_tokens=0, cache_len=CAPACITY)
    rules = (
        AttentionRule(0.7, None, None),
        AttentionRule(0.5, SLIDING_WINDOW, torch.randn(KV_HEADS * GROUP)),
        AttentionRule(0.7, None, None),
    )
    return Slots(
        arena=arena,
        rows=[
            Row(lane, CAPACITY, length, *counts, rng_key=977 * index)
            for index, (lane, length) in enumerate(
                zip(lanes.tolist(), seq_len.tolist(), strict=True)
            )
        ],
        rules=dict(enumerate(rules)),
        token_text=lambda token_id: WORDS[token_id % len(WORDS)],
        companions=[QueryStats([_query_stats(rule, head_dim) for rule in rules])],
    )


def _query_stats(rule: AttentionRule, head_dim: int) -> LayerQueries:
    """Of queries around a mean that differs by head."""
    means = torch.randn(KV_HEADS * GROUP, 1, head_dim)
    queries = means + 0.5 * torch.randn(KV_HEADS * GROUP, 30, head_dim)
    return LayerQueries.of(queries, torch.logspace(0, -1, head_dim // 2), rule)


def _fill(arena: KVArena, lanes: torch.Tensor, seq_len: torch.Tensor) -> None:
    shape = arena.shape
    stored = (len(lanes), shape.num_kv_heads, arena.capacity, shape.head_dim)
    for layer in range(shape.num_layers):
        keys = torch.randn(stored, dtype=shape.dtype)
        keys[:, :, 20:26] = keys[:, :, 10:16] + 0.05 * torch.randn_like(keys[:, :, :6])  # repeated
        lengths = torch.full((len(lanes),), arena.capacity)
        arena.write_prompt(layer, lanes, lengths, keys, torch.randn_like(keys))
        if shape.num_queries:
            positions = (seq_len - 1)[:, None] - torch.arange(1, shape.num_queries + 1)
            queries = torch.randn(
                len(lanes), shape.num_query_heads, shape.num_queries, shape.head_dim
            )
            arena.write_queries(layer, lanes, positions, queries)
    for row, lane in enumerate(lanes.tolist()):
        for place in arena.positions[lane].flatten(0, 1):
            gaps = torch.randperm(int(seq_len[row]) - 2)[: arena.capacity - 1].sort().values
            place[:] = torch.cat((gaps, seq_len[row : row + 1] - 2))
    for column in arena.columns.values():
        column[:] = torch.rand_like(column)
    arena.columns["token_id"][:] = torch.randint(0, 30, arena.columns["token_id"].shape).float()
