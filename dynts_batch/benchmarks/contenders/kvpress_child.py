"""kvpress, run by an interpreter that has it and the older transformers that it needs."""

from typing import Any

from kvpress import DecodingPress, KnormPress

from dynts_batch.benchmarks.contenders.answers import Generate, answer
from dynts_batch.benchmarks.contenders.static_batches import generate_static_batches
from dynts_batch.benchmarks.workload import Load, Workload


def make(settings: dict[str, Any]) -> Generate:
    workload = Workload(**settings)
    model = workload.make_model()
    # The cheapest scores there are, and the cache swings between the same sizes as ours.
    press = DecodingPress(
        KnormPress(),
        compression_interval=workload.budget - workload.retained_len,
        target_size=workload.retained_len,
        hidden_states_buffer_size=0,
    )

    def generate(load: dict[str, Any]) -> list[list[int]]:
        with press(model):
            return generate_static_batches(model, Load(**load))

    return generate


if __name__ == "__main__":
    answer(make)
