"""What is stored comes back, a file is complete or absent, and other settings are refused."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labels import learnable_trace, write_labels

from dynts_batch.errors import FingerprintError, RunDirError
from dynts_batch.training.label_dir import LabelDir


def test_traces_come_back_as_they_were_written(tmp_path: Path) -> None:
    label_dir = write_labels(tmp_path, 17)
    assert label_dir.finished_shards() == [0, 1, 2]
    found = [trace for shard in label_dir.finished_shards() for trace in label_dir.read(shard)]
    assert [trace.request_id for trace in found] == [f"q{index}" for index in range(17)]
    for trace in found:
        expected = learnable_trace(trace.request_id)
        assert trace.token_ids == expected.token_ids
        assert trace.prompt_tokens == expected.prompt_tokens
        for name in ("labels", "hidden_positions", "hidden_states"):
            np.testing.assert_array_equal(getattr(trace, name), getattr(expected, name))
    assert label_dir.read_manifest() == {"num_traces": 17, "dropped": {"too odd": 3}}


def test_a_shard_without_traces_is_a_file_without_rows(tmp_path: Path) -> None:
    label_dir = write_labels(tmp_path, 3)
    label_dir.commit_shard(9, [], Counter(), 16)
    assert list(label_dir.read(9)) == []


def test_labels_without_the_lengths_of_prompts_are_refused(tmp_path: Path) -> None:
    """Versions before `prompt_tokens` wrote such files."""
    label_dir = write_labels(tmp_path, 3)
    path = tmp_path / "shard-00000.parquet"
    pq.write_table(pq.read_table(path).drop_columns("prompt_tokens"), path)
    with pytest.raises(RunDirError, match="of an earlier version, without prompt_tokens"):
        next(label_dir.read(0))


def test_every_column_says_what_it_is(tmp_path: Path) -> None:
    write_labels(tmp_path, 3)
    schema = pq.read_schema(tmp_path / "shard-00000.parquet")
    assert all(field.metadata[b"description"] for field in schema)


def test_other_settings_and_what_is_no_label_directory_are_refused(tmp_path: Path) -> None:
    label_dir = write_labels(tmp_path / "labels", 3)
    settings = label_dir.settings()
    label_dir.create_or_resume(settings)
    with pytest.raises(FingerprintError, match=r"other settings \(seed: 0 there, 1 now\)"):
        label_dir.create_or_resume({**settings, "seed": 1})
    newer = {**settings, "heads": "all"}  # a key of a later version
    label_dir.create_or_resume(newer, defaults={"heads": "all"})
    with pytest.raises(FingerprintError, match=r"heads: absent \('all'\) there, 'one' now"):
        label_dir.create_or_resume({**newer, "heads": "one"}, defaults={"heads": "all"})
    with pytest.raises(
        RunDirError, match=r"is not a label directory: make it with `dynts-batch label RUN_DIR`"
    ):
        LabelDir(str(tmp_path / "nowhere")).settings()
    (tmp_path / "labels" / "manifest.json").unlink()
    with pytest.raises(RunDirError, match="is not finished"):
        label_dir.read_manifest()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    label_dir = write_labels(tmp_path, 17)
    shard = tmp_path / "shard-00001.parquet"
    whole, foreign = shard.read_bytes(), pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1]}), foreign)
    for content in (b"", whole[: len(whole) // 2], foreign.getvalue().to_pybytes()):
        shard.write_bytes(content)
        with pytest.raises(
            RunDirError, match=r"shard-00001\.parquet is damaged: .* Delete it, and"
        ):
            label_dir.write_manifest()
        with pytest.raises(RunDirError, match=r"shard-00001\.parquet is damaged: "):
            list(label_dir.read(1))
    for text in ("{", "[1]", ""):
        (tmp_path / "settings.json").write_text(text)
        with pytest.raises(RunDirError, match=r"settings\.json is damaged"):
            label_dir.settings()
