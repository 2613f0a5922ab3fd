"""Laws of the lanes: one sequence each, decoding ones first, prompts in order,
none waits for nothing."""

from hypothesis import given
from hypothesis import strategies as st

from dynts_batch.engine.scheduler import MAX_PREFILL_TOKENS, Scheduler
from dynts_batch.engine.sequence import PREFILL_CHUNK, Sequence
from dynts_batch.records import Request

prompts_and_steps = st.lists(
    st.tuples(st.integers(1, 4 * PREFILL_CHUNK), st.integers(1, 12)), max_size=20
)

#: Longer prompts go on token by token.
PREFILL_LIMIT = 3 * PREFILL_CHUNK


def sequence(name: int, prompt_tokens: int, max_new_tokens: int) -> Sequence:
    request = Request(str(name), prompt_token_ids=[0] * prompt_tokens)
    prompt = [0] * prompt_tokens
    return Sequence(request, None, prompt, 0, lambda _: None, 0.0, max_new_tokens, PREFILL_LIMIT)


@given(work=prompts_and_steps, max_seqs=st.integers(1, 5), shares=st.booleans())
def test_every_sequence_runs_to_its_end_in_a_lane_of_its_own(
    work: list[tuple[int, int]], max_seqs: int, shares: bool
) -> None:
    """Where prompts are shared, those of one length are the same,
    and the newest one that may come again is kept."""
    where: dict[int, str] = {}  # what a memory that is told of every move holds in each lane

    def move(source: int, target: int, cache_len: int) -> None:
        assert target not in where, "a move overwrites no sequence"
        assert cache_len > 0
        where[target] = where.pop(source)

    scheduler = Scheduler(max_seqs, move, shares_prompts=shares)
    kept: list[int] | None = None
    for name, (prompt_tokens, max_new_tokens) in enumerate(work):
        scheduler.add(sequence(name, prompt_tokens, max_new_tokens))
    begun: list[str] = []
    finished: list[Sequence] = []

    def retire() -> None:
        for done in scheduler.retire():
            finished.append(done)
            where.pop(next(lane for lane, name in where.items() if name == done.request.request_id))

    while scheduler.num_waiting or scheduler.num_running:
        copying = scheduler.copying(kept)
        for lane, s in copying.items():
            assert shares
            assert lane not in where
            where[lane] = s.request.request_id
            begun.append(s.request.request_id)
            s.store(s.prefill_tokens)
            s.append(7, frozenset())
        retire()
        prefilling, some_run = scheduler.prefilling(), bool(scheduler.decoding())
        assert len({s.cache_len for s in prefilling.values()}) <= 1
        new = [s for s in prefilling.values() if not s.cache_len]
        chunks = [len(s.prompt_chunk) for s in prefilling.values()]
        padded = max(chunks, default=0) * len(chunks)
        assert padded <= (PREFILL_CHUNK if some_run and new else MAX_PREFILL_TOKENS)
        for lane, s in prefilling.items():
            assert where.setdefault(lane, s.request.request_id) == s.request.request_id
            begun += [s.request.request_id] * (not s.cache_len)
            s.store(len(s.prompt_chunk))
            if s.cache_len == s.prefill_tokens:
                s.append(7, frozenset())
                if shares and scheduler.is_next(s.prompt_token_ids):
                    kept = s.prompt_token_ids
        if shares:
            prompts = [tuple(s.prompt_token_ids) for s in prefilling.values()]
            assert len(set(prompts)) == len(prompts), "who has the same prompt waits for it"
        retire()
        decoding = scheduler.decoding()
        assert list(decoding) == list(range(len(decoding)))
        assert all(where[lane] == s.request.request_id for lane, s in decoding.items())
        assert copying or prefilling or decoding, "there is work, and nobody does any"
        assert scheduler.num_running == len(where) <= max_seqs
        for s in decoding.values():
            s.store(1)
            s.append(7, frozenset())
        retire()
    assert len(finished) == len(work)
    assert all(len(s.completion_token_ids) == s.max_new_tokens for s in finished)
    assert sorted(begun, key=int) == [str(name) for name in range(len(work))]
