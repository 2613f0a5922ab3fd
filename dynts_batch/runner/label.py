"""Labels of a finished run on a Ray cluster: what `dynts-batch label` does.

A shard of the run is the unit of work and the output file, so the same command resumes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

from dynts_batch.config_file import load_settings
from dynts_batch.data.files.filesystem import extended
from dynts_batch.data.run_dir import RunDir
from dynts_batch.exit_status import EXIT_OK
from dynts_batch.runner.shard_actors import absolute, over_shards, say, with_own_weights


def label(run_path: str, out: str | None, overrides: Sequence[str]) -> int:
    """Label the correct traces of the run at `run_path` into `out` (default: its folder `labels`);
    the exit status.

    Raises: DyntsError.
    """
    from dynts_batch.training.label_dir import LabelDir
    from dynts_batch.training.labeller import Labeller, LabelSettings
    from dynts_batch.training.traces import choose_units

    settings = load_settings(LabelSettings, overrides)
    run_path = absolute(run_path)
    run_dir, label_dir = RunDir(run_path), LabelDir(absolute(out or extended(run_path, "/labels")))
    config = with_own_weights(run_dir.config())
    chosen = choose_units(run_dir, settings.traces_per_question)
    fingerprint = run_dir.fingerprint("model", "sampling", "grading", "input", "policy")
    # Which rows are right may change after the labels: by `grade`, and by second attempts.
    judged_by = {
        "grading": fingerprint["grading"],
        "reference_column": fingerprint["input"]["reference_column"],
        "retry_budget": fingerprint["policy"].get("retry_budget"),
    }
    # And by a repetition of those that failed.
    units = hashlib.blake2b(json.dumps(sorted(chosen.items())).encode(), digest_size=8).hexdigest()
    label_dir.create_or_resume(
        {
            **asdict(settings),
            "model": config.model.name,
            "model_fingerprint": fingerprint["model"],
            "run": {key: fingerprint[key] for key in ("num_units", "shard_rows", "sampling")},
            "judged_by": judged_by,
            "rows": units,
        },
        defaults={**asdict(LabelSettings()), "judged_by": judged_by, "rows": units},
    )
    todo = {shard: chosen[shard] for shard in chosen.keys() - set(label_dir.finished_shards())}
    if todo:
        say(f"labelling {run_path}: {len(todo)} of {len(chosen)} shards to do")
        args = run_path, label_dir.path, settings
        for number, num_traces in enumerate(over_shards(Labeller, args, config, todo), start=1):
            say(f"{number}/{len(todo)} shards, {num_traces} traces in the last one")
    else:
        say(f"nothing to do: all {len(chosen)} shards are in {label_dir.path}")
    manifest = label_dir.write_manifest()
    print(f"{manifest['num_traces']:,} traces in {label_dir.path}")
    for reason, count in manifest["dropped"].items():
        print(f"{count:,} dropped: {reason}")
    return EXIT_OK
