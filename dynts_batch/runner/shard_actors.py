"""Work on the shards of a finished run, spread over a Ray cluster.

Each of the run's workers is an actor with a model. Ray restarts an actor that dies, and its shard
is done again. Knows nothing about what is done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dynts_batch.config import Config
from dynts_batch.data.shard_table import Unit
from dynts_batch.errors import DyntsError

_MAX_RESTARTS = 3


def with_own_weights(config: Config) -> Config:
    """`config` with weights as the model has them. A run's traces are text, whatever its weights
    were; labels and calibrations are about the model's own numbers."""
    return replace(config, model=replace(config.model, weights=None))


def over_shards(
    actor_class: type, args: tuple[Any, ...], config: Config, todo: Mapping[int, list[Unit]]
) -> Iterator[Any]:
    """What `actor_class(model, *args).run_shard(shard, units)` returns for each shard in `todo`.

    Results come as shards finish, from as many actors as `config.workers` allows.

    Raises: DyntsError: what an actor raised, or that it died again and again.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util import ActorPool

    from dynts_batch.runner.cluster import open_cluster, plan_resources

    if not todo:
        return
    address = os.environ.get("RAY_ADDRESS") or None
    with open_cluster(address):
        resources = plan_resources(config, is_local=address is None)
        actor = ray.remote(
            num_cpus=resources.num_cpus,
            num_gpus=resources.num_gpus,
            max_restarts=_MAX_RESTARTS,
            max_task_retries=_MAX_RESTARTS,
        )(actor_class)
        model = config.model if resources.num_gpus else replace(config.model, device="cpu")
        num_actors = min(resources.num_workers, len(todo))
        pool = ActorPool([actor.remote(model, *args) for _ in range(num_actors)])
        say(resources.told(num_actors))
        try:
            yield from pool.map_unordered(_run_shard, sorted(todo.items()))
        except RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, DyntsError) else DyntsError(str(cause)) from None
        except RayError as error:
            raise DyntsError(f"a worker died {_MAX_RESTARTS + 1} times: {error}") from None


def absolute(path: str) -> str:
    """Workers may stand in another folder."""
    return path if "://" in path else os.path.abspath(path)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run_shard(actor: Any, work: tuple[int, list[Unit]]) -> Any:
    return actor.run_shard.remote(*work)
