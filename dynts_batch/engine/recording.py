"""All that a policy requires to be recorded while the model runs: its columns, and the newest
queries.

Owns no memory: the arena does. Knows no column: each has its recorder.
"""

from collections.abc import Callable, Iterable, Sequence

import torch

from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.layer_states import AttentionRule, LayerStates
from dynts_batch.kvcache.recorders import RECORDERS
from dynts_batch.kvcache.recorders.recorder import LaneState, Recorder, Tokens

#: Called by each layer after it has stored its keys and values.
Observe = Callable[[LayerStates], None]


class QueryRecorder(Recorder):
    """Remembers the newest queries. `rules`: how each layer attends, known once it has run."""

    def __init__(self, arena: KVArena, lanes: LaneState, companions: Iterable[object]) -> None:
        super().__init__(arena, lanes, companions)
        self.rules: dict[int, AttentionRule] = {}

    def begin(self, tokens: Tokens) -> None:
        """Find the positions of the queries to remember, [R, T]."""
        self._newest = tokens.positions
        if tokens.is_prompt:
            ages = torch.arange(self.arena.shape.num_queries, device=tokens.lanes.device)
            newest, start = (tokens.cache_len - 1)[:, None] - ages, tokens.positions[:, :1]
            # Queries before this chunk are already remembered. Before the first chunk there were
            # none.
            self._newest = newest.where((newest >= start) | (start == 0), start)

    def observe(self, tokens: Tokens, states: LayerStates) -> None:
        self.rules[states.layer] = states.rule
        query = states.query
        if tokens.is_prompt:
            # In a prompt shorter than num_queries, the first query fills the places before it.
            index = (self._newest - tokens.positions[:, :1]).clamp(min=0)[:, None, :, None]
            query = query.gather(2, index.expand(-1, query.shape[1], -1, query.shape[-1]))
        self.arena.write_queries(states.layer, tokens.lanes, self._newest, query)


class Recording:
    """The recorders of an arena's columns, and of the queries if it remembers any."""

    def __init__(self, arena: KVArena, lanes: LaneState, companions: Sequence[object]) -> None:
        kinds = [RECORDERS[column.name] for column in arena.shape.columns]
        self._queries = QueryRecorder(arena, lanes, companions)
        self._recorders = [kind(arena, lanes, companions) for kind in kinds]
        if arena.shape.num_queries:
            self._recorders.append(self._queries)
        #: Recorders that look at every layer.
        self._observing = [r for r in self._recorders if type(r).observe is not Recorder.observe]

    @property
    def rules(self) -> dict[int, AttentionRule]:
        """How each layer attends, if its queries were remembered."""
        return self._queries.rules

    @property
    def is_repeatable(self) -> bool:
        """Whether recording a step twice changes nothing."""
        return all(recorder.is_repeatable for recorder in self._recorders)

    def begin(self, tokens: Tokens) -> Observe | None:
        """Called before the model runs. Returns what its layers are to call; None: nothing."""
        for recorder in self._recorders:
            recorder.begin(tokens)
        observing = self._observing

        def observe(states: LayerStates) -> None:
            for recorder in observing:
                recorder.observe(tokens, states)

        return observe if observing else None

    def end(self, tokens: Tokens, hidden_states: torch.Tensor) -> None:
        """Called after the model has run, with final-norm hidden states [R, T, E]."""
        for recorder in self._recorders:
            recorder.end(tokens, hidden_states)

    def step_done(self, num_lanes: int) -> None:
        """Called after a decode step of the first `num_lanes` lanes."""
        for recorder in self._recorders:
            recorder.step_done(num_lanes)

    def settle(self) -> None:
        """Write what is recorded late."""
        for recorder in self._recorders:
            recorder.settle()
