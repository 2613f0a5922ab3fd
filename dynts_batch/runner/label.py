"""Labels of a finished run on a Ray cluster: what jobs/label.py does.

A shard of the run is the unit of work and the output file, so the same command resumes. An actor that dies is
restarted by Ray and its shard is labelled again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from dynts_batch.config import Config
from dynts_batch.config_file import load_settings
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.shard_table import Unit
from dynts_batch.errors import DyntsError, InputError
from dynts_batch.exit_status import EXIT_OK

if TYPE_CHECKING:
    from dynts_batch.training.labeller import LabelSettings

_MAX_RESTARTS = 3


def label(run_path: str, out: str | None, overrides: Sequence[str]) -> int:
    """Label the correct traces of the run at `run_path` into `out` (default: its folder `labels`); the exit status.

    Raises: DyntsError.
    """
    from dynts_batch.training.label_dir import LabelDir
    from dynts_batch.training.labeller import LabelSettings
    from dynts_batch.training.traces import choose_units

    settings = load_settings(LabelSettings, overrides)
    run_path = _absolute(run_path)
    run_dir, label_dir = RunDir(run_path), LabelDir(_absolute(out or f"{run_path}/labels"))
    config, chosen = run_dir.config(), choose_units(run_dir, settings.traces_per_question)
    if not chosen:
        raise InputError(f"{run_path} must hold at least one correct trace, got none")
    fingerprint = run_dir.fingerprint()
    label_dir.create_or_resume(
        {
            **asdict(settings),
            "model": config.model.name,
            "model_fingerprint": fingerprint["model"],
            "run": {key: fingerprint[key] for key in ("num_units", "shard_rows", "sampling")},
        }
    )
    todo = {shard: chosen[shard] for shard in chosen.keys() - set(label_dir.finished_shards())}
    if todo:
        _say(f"labelling {run_path}: {len(todo)} of {len(chosen)} shards to do")
        _distribute(config, run_path, label_dir.path, settings, todo)
    else:
        _say(f"nothing to do: all {len(chosen)} shards are in {label_dir.path}")
    manifest = label_dir.write_manifest()
    print(f"{manifest['num_traces']:,} traces in {label_dir.path}")
    for reason, count in manifest["dropped"].items():
        print(f"{count:,} dropped: {reason}")
    return EXIT_OK


def _distribute(
    config: Config,
    run_path: str,
    label_path: str,
    settings: LabelSettings,
    todo: dict[int, list[Unit]],
) -> None:
    """Label the shards `todo` on as many actors as the run's `workers` settings allow."""
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util import ActorPool

    from dynts_batch.runner.cluster import open_cluster, plan_resources
    from dynts_batch.training.labeller import Labeller

    address = os.environ.get("RAY_ADDRESS") or None
    with open_cluster(address):
        resources = plan_resources(config, is_local=address is None)
        actor = ray.remote(
            num_cpus=resources.num_cpus,
            num_gpus=resources.num_gpus,
            max_restarts=_MAX_RESTARTS,
            max_task_retries=_MAX_RESTARTS,
        )(Labeller)
        model = config.model if resources.num_gpus else replace(config.model, device="cpu")
        num_actors = min(resources.num_workers, len(todo))
        pool = ActorPool(
            [actor.remote(model, run_path, label_path, settings) for _ in range(num_actors)]
        )
        _say(f"{num_actors} workers of {resources.num_cpus:g} CPU and {resources.num_gpus:g} GPU")
        try:
            done = pool.map_unordered(_label_shard, sorted(todo.items()))
            for number, num_traces in enumerate(done, start=1):
                _say(f"{number}/{len(todo)} shards, {num_traces} traces in the last one")
        except RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, DyntsError) else DyntsError(str(cause)) from None
        except RayError as error:
            raise DyntsError(f"a worker died {_MAX_RESTARTS + 1} times: {error}") from None


def _absolute(path: str) -> str:
    """Workers may stand in another folder."""
    return path if "://" in path else os.path.abspath(path)


def _label_shard(labeller: Any, work: tuple[int, list[Unit]]) -> Any:
    return labeller.label_shard.remote(*work)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
