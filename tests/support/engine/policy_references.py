"""Slow references of the policies: one slot at a time, in plain Python on lists,
from the papers' formulas."""

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass

from dynts_batch.kvcache.policies.cur import CUR
from dynts_batch.kvcache.policy import Policy
from dynts_batch.kvcache.query_stats import QueryStats
from dynts_batch.kvcache.view import Slots

Vector = list[float]


@dataclass
class HeadStats:
    """What the queries of a group are like before RoPE: by member, one number a frequency."""

    means: list[list[complex]]
    magnitudes: list[Vector]
    variances: list[Vector]
    frequencies: Vector


@dataclass
class Head:
    """One row, layer and KV head: what is stored, and the last queries of the group,
    oldest first."""

    keys: list[Vector]
    values: list[Vector]
    positions: list[int]
    queries: list[list[Vector]]
    query_positions: list[int]
    query_positions_end: int
    scale: float
    window: int | None
    sinks: list[float] | None
    candidates: list[int]
    num_kept: int
    draws: list[float]
    projection: list[Vector]
    stats: "HeadStats"

    def logit(self, query: int, member: int, slot: int) -> float:
        distance = self.query_positions[query] - self.positions[slot]
        if distance < 0 or (self.window is not None and distance >= self.window):
            return -math.inf
        return self.scale * dot(self.queries[member][query], self.keys[slot])

    def attention(self, query: int, member: int) -> Vector:
        """Over all stored tokens, sinks counted."""
        logits = [self.logit(query, member, slot) for slot in range(len(self.keys))]
        extra = [] if self.sinks is None else [self.sinks[member]]
        return softmax(logits + extra)[: len(logits)]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def norm(a: Vector) -> float:
    return math.sqrt(dot(a, a))


def cosine(a: Vector, b: Vector) -> float:
    return dot(a, b) / (norm(a) * norm(b))


def softmax(x: Vector) -> Vector:
    top = max(x)
    if top == -math.inf:
        return [0.0] * len(x)
    exps = [math.exp(value - top) for value in x]
    return [e / sum(exps) for e in exps]


def window_attention(head: Head) -> Vector:
    """Summed over the last queries and the group."""
    rows = [
        head.attention(query, member)
        for member in range(len(head.queries))
        for query in range(len(head.query_positions))
    ]
    return [sum(column) for column in zip(*rows, strict=True)]


def snapkv(head: Head, policy: Policy) -> Vector:
    half = policy.kernel_size // 2  # type: ignore[attr-defined]
    total = window_attention(head)
    alive = [total[s] if s in head.candidates else 0.0 for s in range(len(total))]
    padded = [0.0] * half + alive + [0.0] * half
    return [sum(padded[s : s + 2 * half + 1]) for s in range(len(total))]


def rkv(head: Head, policy: Policy) -> Vector:
    importance = dict.fromkeys(head.candidates, 0.0)
    for query in range(len(head.query_positions)):
        logits = [
            max(head.logit(query, member, slot) for member in range(len(head.queries)))
            for slot in head.candidates
        ]
        for slot, prob in zip(head.candidates, softmax(logits), strict=True):
            importance[slot] += prob / len(head.query_positions)
    half = policy.kernel_size // 2  # type: ignore[attr-defined]
    pooled = {
        s: max(importance.get(n, 0.0) for n in range(s - half, s + half + 1))
        for s in head.candidates
    }
    similar = {
        (i, j): 0.0 if i == j else cosine(head.keys[i], head.keys[j])
        for i in head.candidates
        for j in head.candidates
    }
    for i in head.candidates:
        near = [j for j in head.candidates if similar[i, j] > 0.5]
        if near:
            similar[i, max(near)] = 0.0
    means = [
        sum(similar[i, j] for i in head.candidates) / len(head.candidates) for j in head.candidates
    ]
    redundancy = dict(zip(head.candidates, softmax(means), strict=True))
    return [
        0.1 * pooled[s] - 0.9 * redundancy[s] if s in pooled else 0.0 for s in range(len(head.keys))
    ]


def keydiff(head: Head, policy: Policy) -> Vector:
    unit = [[x / norm(head.keys[s]) for x in head.keys[s]] for s in head.candidates]
    anchor = [sum(column) / len(unit) for column in zip(*unit, strict=True)]
    return [-cosine(key, anchor) for key in head.keys]


def value_aware(head: Head, policy: Policy) -> Vector:
    """Ranks of the draws, and 1 more for the widest values."""
    ranges = {s: max(head.values[s]) - min(head.values[s]) for s in head.candidates}
    wide = sorted(head.candidates, key=lambda s: (-ranges[s], s))[
        : min(head.num_kept, int(policy.budget * 0.25))
    ]  # type: ignore[operator]
    weights, slots = window_attention(head), range(len(head.keys))
    drawn = [math.log(head.draws[s]) / max(weights[s], 1e-300) for s in slots]
    ranks = {s: rank for rank, s in enumerate(sorted(slots, key=lambda s: drawn[s]))}
    return [ranks[s] / len(slots) + (s in wide) for s in slots]


def cur(head: Head, policy: Policy) -> Vector:
    """The squared lengths of what each column of the projection makes of key and value."""
    columns = [list(column) for column in zip(*head.projection, strict=True)]
    return [
        sum(dot(key, c) ** 2 for c in columns) * sum(dot(value, c) ** 2 for c in columns)
        for key, value in zip(head.keys, head.values, strict=True)
    ]


def pairs(key: Vector) -> list[complex]:
    half = len(key) // 2
    return [complex(key[f], key[f + half]) for f in range(half)]


def shares(head: Head, scores: Vector) -> Vector:
    total = sum(scores[slot] for slot in head.candidates)
    return [score / total if slot in head.candidates else 0.0 for slot, score in enumerate(scores)]


def expected(head: Head, policy: Policy) -> Vector:
    """Expected attention, and half as much of how unlike the others a candidate is."""
    number = len(head.candidates)
    columns = zip(*(head.keys[slot] for slot in head.candidates), strict=True)
    mean = [sum(column) / number for column in columns]
    unlike = [
        sum((a - b) ** 2 for a, b in zip(key, mean, strict=True)) * norm(value) ** 2
        for key, value in zip(head.keys, head.values, strict=True)
    ]
    attention, unlike = shares(head, expected_attention(head)), shares(head, unlike)
    return [x + 0.5 * y for x, y in zip(attention, unlike, strict=True)]


def expected_attention(head: Head) -> Vector:
    """The share of each candidate in what every foretold query pays,
    times the length of its value."""
    newest, total = head.query_positions_end, [0.0] * len(head.keys)
    for member, mean in enumerate(head.stats.means):
        for ahead in (1, 4, 16, 64, 256, 1024):
            logits = []
            for slot in head.candidates:
                key, logit = pairs(head.keys[slot]), 0.0
                for f, w in enumerate(head.stats.frequencies):
                    query = mean[f] * cmath.exp(1j * w * (newest + ahead))
                    logit += head.scale * (query * key[f].conjugate()).real
                    square = abs(key[f]) ** 2 * head.stats.variances[member][f]
                    logit += head.scale**2 * square / 2
                distance = newest + ahead - head.positions[slot]
                is_hidden = head.window is not None and distance >= head.window
                logits.append(-math.inf if is_hidden else logit)
            for slot, share in zip(head.candidates, softmax(logits), strict=True):
                total[slot] += share
    return [share * norm(value) for share, value in zip(total, head.values, strict=True)]


def triattention(head: Head, policy: Policy) -> Vector:
    """The paper's sum over distances, from keys whose RoPE is taken back."""
    now, best = head.query_positions_end + 1, [-math.inf] * len(head.keys)
    for member, mean in enumerate(head.stats.means):
        scores = dict.fromkeys(head.candidates, 0.0)
        for slot in head.candidates:
            for f, w in enumerate(head.stats.frequencies):
                key = pairs(head.keys[slot])[f] * cmath.exp(-1j * w * head.positions[slot])
                size, c = abs(mean[f]) * abs(key), cmath.phase(mean[f]) - cmath.phase(key)
                for ahead in (2**power for power in range(17)):
                    angle = w * (now - head.positions[slot] + ahead)
                    scores[slot] += size * math.cos(angle + c) / 17
                scattered = head.stats.magnitudes[member][f] - abs(mean[f])
                scores[slot] += scattered * abs(key)
        mean_score = sum(scores.values()) / len(scores)
        variance = sum((x - mean_score) ** 2 for x in scores.values()) / len(scores)
        for slot, score in scores.items():
            best[slot] = max(best[slot], (score - mean_score) / math.sqrt(variance))
    return best


#: By policy: the scores of one head.
HEADWISE: dict[str, Callable[[Head, Policy], Vector]] = {
    "snapkv": snapkv,
    "rkv": rkv,
    "keydiff": keydiff,
    "value_aware": value_aware,
    "cur": cur,
    "expected": expected,
    "triattention": triattention,
    "tova": lambda head, policy: window_attention(head),
    "h2o-last": lambda head, policy: window_attention(head),
    "knorm": lambda head, policy: [-norm(key) for key in head.keys],
    "random": lambda head, policy: head.draws,
}


def sepllm(slots: Slots, row: int) -> Vector:
    lane = int(slots.lanes[row])
    token_ids = slots.arena.columns["token_id"][lane, 0, 0].int().tolist()
    positions = slots.arena.positions[lane, 0, 0].tolist()
    separators = [
        set(slots.token_text(t)) <= set(" .,\n") and slots.token_text(t) != " " for t in token_ids
    ]
    return [
        p + 1000.0 * is_separator for p, is_separator in zip(positions, separators, strict=True)
    ]


#: By policy: the scores of one row, the same for all layers and heads.
SHARED: dict[str, Callable[[Slots, int], Vector]] = {
    "dynts": lambda slots, row: slots.arena.columns["importance"][
        int(slots.lanes[row]), 0, 0
    ].tolist(),
    "window": lambda slots, row: list(range(slots.arena.capacity)),
    "streaming": lambda slots, row: list(range(slots.arena.capacity)),
    "sepllm": sepllm,
}


def reference_scores(name: str, slots: Slots, policy: Policy, row: int) -> list[list[Vector]]:
    """By layer and head; one of each where they share."""
    if name in SHARED:
        return [[SHARED[name](slots, row)]]
    layers = [
        [HEADWISE[name](head, policy) for head in heads_of(slots, policy, row, layer)]
        for layer in range(slots.arena.shape.num_layers)
    ]
    if name == "tova":
        layers = [[mean(heads)] * len(heads) for heads in layers]
    return layers if policy.per_head else [[mean([mean(heads) for heads in layers])]]


def mean(vectors: list[Vector]) -> Vector:
    return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]


def kept(slots: Slots, row: int, scores: Vector) -> list[int]:
    """What an eviction keeps by these scores, ascending."""
    first, last, num_kept = (int(x[row]) for x in (slots.num_first, slots.num_last, slots.num_kept))
    end = int(slots.cache_len[row]) - last
    best = sorted(range(first, end), key=lambda slot: (-scores[slot], slot))[:num_kept]
    return sorted([*range(first), *best, *range(end, int(slots.cache_len[row]))])


def heads_of(slots: Slots, policy: Policy, row: int, layer: int) -> list[Head]:
    """Every KV head of a row and layer, read from the arena's own state."""
    arena, lane = slots.arena, int(slots.lanes[row])
    keys, values = arena.stored(layer, arena.max_seqs, arena.capacity)
    first, last = int(slots.num_first[row]), int(slots.num_last[row])
    newest = int(slots.seq_len[row]) - 2
    query_positions = list(range(newest - policy.num_queries + 1, newest + 1))
    rule, group = slots.rules[layer], arena.shape.num_query_heads // arena.shape.num_kv_heads
    view = slots.layer(layer)
    draws = view.draws()
    measured = slots.companion(QueryStats)
    assert measured is not None
    stats = measured.layers[layer]
    is_projected = isinstance(policy, CUR)
    projection = policy.projection(view)[row, 0].tolist() if is_projected else []
    made = []
    for head in range(arena.shape.num_kv_heads):
        members = range(head * group, head * group + group)
        place = (layer, head) if policy.per_head else (0, 0)
        ring = arena._queries[layer][lane] if policy.num_queries else None
        made.append(
            Head(
                keys=keys[lane, head].tolist(),
                values=values[lane, head].tolist(),
                positions=arena.positions[lane][place].tolist(),
                queries=[
                    []
                    if ring is None
                    else [ring[m, p % policy.num_queries].tolist() for p in query_positions]
                    for m in members
                ],
                query_positions=query_positions,
                query_positions_end=newest,
                scale=rule.scale,
                window=rule.sliding_window,
                sinks=None if rule.sinks is None else [rule.sinks[m].item() for m in members],
                candidates=list(range(first, int(slots.cache_len[row]) - last)),
                num_kept=int(slots.num_kept[row]),
                draws=draws[row, head].tolist(),
                projection=projection,
                stats=HeadStats(
                    [stats.mean[m].tolist() for m in members],
                    [stats.magnitude[m].tolist() for m in members],
                    [stats.variance[m].tolist() for m in members],
                    stats.frequency.tolist(),
                ),
            )
        )
    return made
