"""What an eviction policy is: it scores slots and protects some, which decides what stays. It moves
nothing.

To add a method, write `policies/NAME.py` with a frozen dataclass that derives from `Policy`. Derive
from `HeadwisePolicy` if it scores each layer and KV head apart. Give it a docstring with the paper,
and its parameters as fields. Declare what it `requires`, return scores, and `@register` it under
its name. The laws in tests/kvcache/test_policies.py then hold it to its contract. A policy outside
this package is named `policy.name=module:Class`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from dynts_batch.config import PolicyParameters
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.kvcache.recorders import RECORDERS
from dynts_batch.kvcache.select import all_but, select, share_of_candidates
from dynts_batch.kvcache.stores.formats import KV_FORMATS, KVFormat
from dynts_batch.kvcache.view import LayerSlots, Slots

#: Bytes to rank one slot of one layer and head: its score, the sort's results and the masks.
RANKED_BYTES = 48


class Counts(NamedTuple):
    """What stays of a row: how many oldest tokens, newest tokens, and candidates between them."""

    first: int
    last: int
    kept: int


@dataclass(frozen=True)
class Policy(PolicyParameters):
    """Base of all policies: the contract, and the parameters that all policies share.

    `keep_ratio` or `interval` says what an eviction leaves. If both are null, `default_interval`
    does.

    Raises: ConfigError if the parameters break a rule.
    """

    #: The name in `policy.name`.
    name: ClassVar[str]
    #: What `protect_prompt=null` means for this policy.
    protects_prompt: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protect_prompt is None:
            object.__setattr__(self, "protect_prompt", self.protects_prompt)
        if self.budget is None:
            raise ConfigError(f"policy.budget is required by policy {self.name!r}, got nothing")
        if self.budget < 2:
            raise ConfigError(f"policy.budget must be at least 2, got {self.budget}")
        if self.window_size < 0:
            raise ConfigError(f"policy.window_size must be at least 0, got {self.window_size}")
        self._check_schedule()
        if self.retry_budget is not None and self.retry_budget <= self.budget:
            raise ConfigError(
                f"policy.retry_budget must be above policy.budget ({self.budget}), or null, got"
                f" {self.retry_budget}"
            )
        if not 0 <= self.num_queries <= self.budget:
            raise ConfigError(
                f"policy.{self.name} can look at no more queries than policy.budget"
                f" ({self.budget}), and no fewer than none, got {self.num_queries}"
            )
        if self.budget <= self.window_size + self.num_sinks:
            raise ConfigError(
                f"policy.window_size must be smaller than policy.budget ({self.budget}) by more"
                f" than the {self.num_sinks} sink tokens, got {self.window_size}"
            )

    def _check_schedule(self) -> None:
        if self.keep_ratio is not None and self.interval is not None:
            raise ConfigError(
                "policy.keep_ratio and policy.interval exclude each other, since each says what an"
                f" eviction leaves: set one of them to null, got {self.keep_ratio} and"
                f" {self.interval}"
            )
        if self.keep_ratio is not None and not 0 < self.keep_ratio <= 1:
            raise ConfigError(f"policy.keep_ratio must be in (0, 1], got {self.keep_ratio}")
        if self.interval is not None and self.interval < 1:
            raise ConfigError(f"policy.interval must be at least 1, got {self.interval}")

    @property
    def default_interval(self) -> int:
        """The policy's own schedule: a sixteenth of the budget.

        That is 128 tokens of 2,048, as in the field's harnesses.
        """
        assert self.budget is not None, "config.validate() requires a budget"
        return max(1, self.budget // 16)

    def num_kept(self, num_candidates: int) -> int:
        """How many of the candidates an eviction keeps, by the schedule; never all of them."""
        if self.keep_ratio is not None:
            return share_of_candidates(num_candidates, self.keep_ratio)
        return all_but(num_candidates, self.interval or self.default_interval)

    @property
    def stored_in(self) -> KVFormat | None:
        """The number formats of stored keys and values; None: the model's own.

        Raises: ConfigError for an unknown format.
        """
        if self.quantize is False:
            return None
        if self.quantize not in KV_FORMATS:
            raise ConfigError(
                f"policy.quantize must be false, true or one of {', '.join(KV_FORMATS)} (true is"
                f" nvfp4), got {self.quantize!r}"
            )
        return KV_FORMATS[self.quantize]

    def eviction_bytes(self, shape: ArenaShape, capacity: int) -> int:
        """Most bytes that evicting from one row takes beside the arena, to score, rank and move
        slots."""
        layers, heads = shape.granularity
        return capacity * (RANKED_BYTES * layers * heads + 2 * shape.state_bytes)

    # What a policy needs of the forward pass. It pays for nothing else. A class attribute may
    # override each property.

    @property
    def requires(self) -> tuple[str, ...]:
        """Columns that are recorded for this policy, one value per stored token: see
        kvcache/recorders."""
        return ()

    @property
    def companions(self) -> frozenset[type]:
        """Types of what was made for the model and the policy needs, such as a predictor."""
        needed = (RECORDERS[name].companion for name in self.requires)
        return frozenset(kind for kind in needed if kind is not None)

    @property
    def num_queries(self) -> int:
        """How many of each row's newest queries the engine remembers for this policy; at most
        `budget`."""
        return 0

    @property
    def per_head(self) -> bool:
        """Whether each layer and KV head keeps its own tokens."""
        return False

    @property
    def num_sinks(self) -> int:
        """First tokens of the sequence that are never evicted, whatever `protect_prompt` says."""
        return 0

    def num_protected_first(self, prompt_tokens: int) -> int:
        """How many of the oldest stored tokens may not be evicted."""
        return max(prompt_tokens if self.protect_prompt else 0, self.num_sinks)

    def num_protected_last(self, answer_tokens: int, num_free: int) -> int:
        """How many of the newest stored tokens may not be evicted, of `num_free` behind the first
        ones.

        They are the window, and the whole answer as long as that leaves a candidate. The memory
        promise comes first.
        """
        return answer_tokens if self.window_size < answer_tokens < num_free else self.window_size

    def counts(self, *, prompt_tokens: int, answer_tokens: int, cache_len: int) -> Counts:
        """What stays of a row of `cache_len` stored tokens; at least one token goes.

        A prompt that is not protected may be longer than that, and not yet read to its end.
        """
        num_first = self.num_protected_first(prompt_tokens)
        num_last = self.num_protected_last(answer_tokens, cache_len - num_first)
        num_candidates = cache_len - num_first - num_last
        return Counts(num_first, num_last, self.num_kept(num_candidates))

    def capacity(self, max_prompt_tokens: int, max_new_tokens: int) -> int:
        """Slots that a sequence needs: the budget, however long its prompt and completion
        become."""
        assert self.budget is not None, "config.validate() requires a budget"
        return self.budget

    def longest_prompt(self, max_prompt_tokens: int) -> int:
        """The longest prompt that leaves a candidate to evict once the budget is reached.

        One that is not protected loses tokens while it is read, so it may also have
        `max_prompt_tokens`.
        """
        assert self.budget is not None, "config.validate() requires a budget"
        if self.protect_prompt:
            return self.budget - 1 - self.window_size
        return max(self.budget - 1, max_prompt_tokens)

    def next_look(self, *, prompt_tokens: int, num_processed: int) -> int | None:
        """The number of processed tokens at which the engine looks at the row again, even below its
        budget.

        The row has processed `num_processed` so far. None: the engine looks only when the budget is
        reached, as it does for every row.
        """
        return None

    def relabel(self, slots: Slots) -> Mapping[str, torch.Tensor]:
        """New contents of columns, by name, in the shape of `slots.column`.

        Columns that do not change are left out. Called before `stays`. Pure.
        """
        return {}

    def score(self, slots: Slots) -> torch.Tensor:
        """Scores of all slots, higher = keep, broadcastable to [R, L or 1, H or 1, C].

        Only candidates' scores are read. Pure: the same slots give the same scores.
        """
        raise NotImplementedError

    def stays(self, slots: Slots) -> torch.Tensor:
        """Which slots stay, bool [R, L or 1, H or 1, C], equally many in all layers and heads.

        Of the candidates those with the highest scores stay, as many as `counts` says.
        """
        counts = (slots.cache_len, slots.num_first, slots.num_last, slots.num_kept)
        return select(self.score(slots).expand_as(slots.positions), *counts)


@dataclass(frozen=True)
class HeadwisePolicy(Policy):
    """Base of the policies that score every layer and KV head apart, from keys, values or queries.

    `shared_index`: all layers and heads keep the same tokens, those with the highest mean score.
    DynTS and the baselines of its paper do that.
    """

    shared_index: bool = False
    """Policies normally choose tokens per layer and head; true: one set for all of them."""

    @property
    def per_head(self) -> bool:
        return not self.shared_index

    def eviction_bytes(self, shape: ArenaShape, capacity: int) -> int:
        """Adds what one layer takes in float32: some copies of its keys or values, and of its
        attention. More layers are joined only where they take little."""
        numbers = shape.num_kv_heads * shape.head_dim + shape.num_query_heads * self.num_queries
        return super().eviction_bytes(shape, capacity) + 16 * capacity * numbers

    def score(self, slots: Slots) -> torch.Tensor:
        num_heads, num_rows = slots.arena.shape.num_kv_heads, len(slots.rows)
        by_layer: dict[int, torch.Tensor] = {}
        for group in slots.layers():
            scores = self.score_layer(group).expand(-1, num_heads, slots.arena.capacity)
            by_layer |= zip(group.layers, scores.unflatten(0, (-1, num_rows)), strict=True)
        if not self.shared_index:
            return torch.stack([by_layer[layer] for layer in sorted(by_layer)], dim=1)
        # One after the other: torch sums a whole axis in an order that depends on the rows.
        total = sum(by_layer[layer].mean(dim=1, keepdim=True) for layer in sorted(by_layer))
        assert isinstance(total, torch.Tensor), "a model has layers"
        return total[:, None]

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        """Scores of all slots of one or more layers, higher = keep, [N, H or 1, C].

        Each of N is a row in a layer. Pure, as `score` is.
        """
        raise NotImplementedError
