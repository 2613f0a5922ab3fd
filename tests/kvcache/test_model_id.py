"""Which model is which: by weights, else by the hub's commit,
and by name only where neither is known of both."""

import pytest

from dynts_batch.kvcache.model_id import ModelId

COMMIT, OTHER_COMMIT = "a1" * 20, "b2" * 20


@pytest.mark.parametrize(
    ("made_for", "used_with", "is_same"),
    [
        (ModelId("/m1/model", None, "d1"), ModelId("/m2/model", None, "d2"), False),
        (ModelId("/m1/model", None, "d1"), ModelId(f"/snap/{COMMIT}", None, "d1"), True),
        (ModelId("org/model", COMMIT), ModelId("org/model", OTHER_COMMIT), False),
        (ModelId("org/model", COMMIT), ModelId(f"/snap/{COMMIT}", COMMIT, "d1"), True),
        # Weights say more than a commit, which may have changed another file.
        (ModelId("a", COMMIT, "d1"), ModelId("b", OTHER_COMMIT, "d1"), True),
        (ModelId("a", COMMIT, "d1"), ModelId("a", COMMIT, "d2"), False),
        # A branch is no commit, and what only one side knows tells nothing.
        (ModelId("org/model", "main"), ModelId("org/other", "main"), False),
        (ModelId("org/model", "main"), ModelId("/copy/model/", "main", "d1"), True),
        (ModelId("org/model", COMMIT), ModelId("/copy/model/", None, "d1"), True),
        (ModelId("org/model", COMMIT), ModelId("/copy/other", None, "d1"), False),
    ],
)
def test_what_both_know_decides(made_for: ModelId, used_with: ModelId, is_same: bool) -> None:
    assert made_for.is_same(used_with) == used_with.is_same(made_for) == is_same


@pytest.mark.parametrize(
    ("used_with", "is_told"),
    [
        (ModelId("org/model", OTHER_COMMIT), True),
        (ModelId("org/model", COMMIT), False),  # refused for something else
        (ModelId("org/model", "main"), False),
        (ModelId("org/other", OTHER_COMMIT), False),
        (ModelId("/copy/model", OTHER_COMMIT, "d1"), False),  # a folder has no revisions
    ],
)
def test_at_another_commit_the_one_to_set_is_told(used_with: ModelId, is_told: bool) -> None:
    remedy = ModelId("org/model", COMMIT).remedy(used_with)
    assert (f"set model.revision={COMMIT}" in remedy) == is_told == bool(remedy)


@pytest.mark.parametrize(
    ("used_with", "is_told"),
    [
        (ModelId("/copy/model", None, "d1"), True),
        (ModelId("org/model", "main"), True),
        (ModelId("org/model", COMMIT), False),
        (ModelId("org/model", OTHER_COMMIT), False),
        (ModelId("/copy/other", None, "d1"), False),
    ],
)
def test_that_a_name_alone_decided_is_a_warning(
    used_with: ModelId, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A fine-tune in a folder of the model's name ran with the model's predictor,
    and nothing said so."""
    ModelId("org/model", COMMIT).is_same(used_with)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [str(used_with) in text and COMMIT in text for text in told] == [True] * is_told


@pytest.mark.parametrize("model", [ModelId("m", COMMIT, "d1"), ModelId("m"), ModelId("m", COMMIT)])
def test_a_header_says_which_model_it_was(model: ModelId) -> None:
    header = model.header()
    assert ModelId.of(header["model"], header).is_same(model)
    assert ModelId.of(header["model"], header).commit == model.commit
