"""Laws of the trace view: its pieces are the text, each token in one of them,
with its part and its fate."""

from hypothesis import given
from hypothesis import strategies as st

from dynts_batch.report.page.trace_view import view_trace

#: Text, when the last holder dropped it, how long before that half of them had, and the share.
TOKENS = st.lists(
    st.tuples(
        st.text(max_size=3),
        st.none() | st.integers(1, 60),
        st.none() | st.integers(0, 20),
        st.sampled_from([0.25, 1.0]),
    ),
    min_size=1,
    max_size=60,
)


def _trace(tokens):
    num_tokens = len(tokens)
    evicted_at = [
        None if at is None else min(max(at, i + 1), num_tokens)
        for i, (_, at, _, _) in enumerate(tokens)
    ]
    halves = [
        at if before is None else max((at or num_tokens) - before, i + 1)
        for i, ((_, _, before, _), at) in enumerate(zip(tokens, evicted_at, strict=True))
    ]
    return {
        "token_texts": [text for text, *_ in tokens],
        "evicted_at": evicted_at,
        "half_evicted_at": halves,
        "kept_share": [
            share if at is None else 0.0 for (*_, share), at in zip(tokens, evicted_at, strict=True)
        ],
        "stored_len": list(range(num_tokens)),
    }


@given(TOKENS, st.integers(0, 20), st.integers(0, 20))
def test_the_pieces_are_the_tokens_in_order(tokens, prompt_tokens, reasoning_tokens):
    trace = _trace(tokens)
    view = view_trace({"token_trace": trace}, prompt_tokens, reasoning_tokens)
    assert "".join(piece.text for piece in view.pieces) == "".join(trace["token_texts"])
    ends = [*(piece.start for piece in view.pieces[1:]), len(tokens)]
    for piece, end in zip(view.pieces, ends, strict=True):
        for position in range(piece.start, end):
            assert piece.evicted_at == trace["evicted_at"][position]
            assert piece.half_evicted_at == trace["half_evicted_at"][position]
            assert piece.kept_share == round(100 * trace["kept_share"][position])
            part = "prompt" if position < prompt_tokens else "thinking"
            part = "answer" if position >= prompt_tokens + reasoning_tokens else part
            assert piece.part == part


@given(TOKENS)
def test_every_moment_of_the_replay_takes_a_token_from_the_last_holder_or_from_half(tokens):
    """Policies that choose for each head lose no token from all heads at once for long: the
    replay of a real model showed no eviction, and all tokens as kept."""
    trace = _trace(tokens)
    view = view_trace({"token_trace": trace}, 0, 0)
    times = {at for piece in view.pieces for at in (piece.evicted_at, piece.half_evicted_at)}
    assert set(view.moments) == times - {None}
    assert view.moments == tuple(sorted(view.moments))
    assert view.num_stored == len(tokens) - 1


def test_an_eviction_that_left_each_token_with_half_of_the_heads_is_a_moment_too():
    tokens = [("a", None, None, 1.0)] * 9
    trace = _trace(tokens) | {"stored_len": [1, 2, 3, 4, 3, 4, 4, 5, 5]}
    assert view_trace({"token_trace": trace}, 0, 0).moments == (5, 7)


@given(TOKENS)
def test_a_trace_of_an_older_version_is_shown_as_if_all_heads_agreed(tokens):
    old = _trace(tokens) | {"half_evicted_at": None, "stored_len": None}
    view = view_trace({"token_trace": old}, 0, 0)
    assert all(piece.half_evicted_at == piece.evicted_at for piece in view.pieces)
    assert view.num_stored == old["evicted_at"].count(None)


def test_without_a_trace_there_are_only_the_texts():
    view = view_trace({"token_trace": None}, 5, 7)
    assert view.pieces == ()
    assert view.moments == ()
