"""Laws of the trace view: its pieces are the text, each token in one of them,
with its part and its fate."""

from hypothesis import given
from hypothesis import strategies as st

from dynts_batch.report.charts.run_charts import stored_tokens
from dynts_batch.report.page.trace_view import view_trace

TOKENS = st.lists(
    st.tuples(st.text(max_size=3), st.none() | st.integers(1, 60), st.sampled_from([0.25, 1.0])),
    min_size=1,
    max_size=60,
)


def _trace(tokens):
    return {
        "token_texts": [text for text, _, _ in tokens],
        "evicted_at": [
            None if at is None else min(max(at, i + 1), len(tokens))
            for i, (_, at, _) in enumerate(tokens)
        ],
        "kept_share": [share if at is None else 0.0 for _, at, share in tokens],
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
            assert piece.kept_share == round(100 * trace["kept_share"][position])
            part = "prompt" if position < prompt_tokens else "thinking"
            part = "answer" if position >= prompt_tokens + reasoning_tokens else part
            assert piece.part == part
    assert view.num_kept == trace["evicted_at"].count(None)


@given(TOKENS)
def test_the_timeline_is_what_counting_token_by_token_gives(tokens):
    trace = _trace(tokens)
    lengths, stored = stored_tokens(trace)
    for length, count in dict(zip(lengths.tolist(), stored.tolist(), strict=True)).items():
        held = [at is None or at > length for at in trace["evicted_at"][:length]]
        assert sum(held) == count


def test_without_a_trace_there_are_only_the_texts():
    view = view_trace({"token_trace": None}, 5, 7)
    assert view.pieces == ()
    assert view.moments == ()
