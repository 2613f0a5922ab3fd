"""A decode step beside its floors: products and attention timed alone, bytes, operations.

The floors by bytes and operations use what this machine really reaches: the bandwidth of a large
copy and the speed of a large matrix product.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from dynts_batch.benchmarks.contenders.contenders import load_requests, make_engine, weight_kind
from dynts_batch.benchmarks.measure import Row
from dynts_batch.benchmarks.stopwatch import now
from dynts_batch.benchmarks.workload import Workload
from dynts_batch.engine.attention.steps import DecodeStep
from dynts_batch.engine.engine import Engine
from dynts_batch.engine.model.int8.weight import Int8Weight
from dynts_batch.engine.model.packing import PackedLinear, PackedWeight, pack_linears
from dynts_batch.kvcache.layer_states import AttentionRule, LayerStates

#: Whole steps are averaged over so many eviction cycles.
NUM_CYCLES = 3
#: Repetitions of the copy and the product that measure the machine. The median counts.
NUM_REPEATS = 10
#: Larger than every cache of a processor.
COPY_BYTES = 2**27
#: Rows and columns of the matrix product that measures the machine.
PRODUCT_SIZE = 1024


@dataclass(frozen=True)
class Setup:
    """One engine, and the mean sizes of one of its steps."""

    workload: Workload
    weight_kind: type[PackedWeight]
    engine: Engine

    @property
    def device(self) -> torch.device:
        return self.engine.arena.positions.device

    @property
    def linears(self) -> list[nn.Linear | PackedLinear]:
        """The model's, in running order, so that weights come from memory as in a step."""
        model = self.engine._runner.model
        return [
            module
            for part in (model.decoder, model.head)
            for module in part.modules()
            if isinstance(module, nn.Linear | PackedLinear)
        ]

    @property
    def num_weights(self) -> int:
        return sum(linear.in_features * linear.out_features for linear in self.linears)

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight."""
        return 1 if self.weight_kind is Int8Weight else self.engine.arena.shape.dtype.itemsize

    @property
    def cache_len(self) -> int:
        """The mean cache length over an eviction cycle."""
        return (self.workload.retained_len + self.workload.budget) // 2

    @property
    def num_bytes(self) -> int:
        """Weights and stored tokens, each read once. Quantised tokens count as if all packed."""
        shape = self.engine.arena.shape
        stored = self.workload.batch_size * self.cache_len * shape.stored_bytes_per_token
        return self.num_weights * self.weight_bytes + stored

    @property
    def num_operations(self) -> int:
        shape = self.engine.arena.shape
        query_numbers = shape.num_query_heads * shape.head_dim
        attention = 4 * self.cache_len * query_numbers * shape.num_layers
        return self.workload.batch_size * (2 * self.num_weights + attention)


def roofline(policy_name: str, workload: Workload) -> list[Row]:
    """Rows of seconds per step: the step itself, its floors, and the ratio of step to floor."""
    load = workload.load()
    num_prompts = len(load.prompts)
    workload = replace(workload, prompt_tokens=sum(map(len, load.prompts)) // num_prompts)
    cycle = workload.budget - workload.retained_len
    num_new_tokens = workload.budget - workload.prompt_tokens + (NUM_CYCLES + 1) * cycle
    load = replace(load, num_new_tokens=[num_new_tokens] * num_prompts)
    engine = make_engine(workload, policy_name, load)
    setup = Setup(workload, weight_kind(policy_name), engine)
    for request in load_requests(load):
        setup.engine.add_request(request)
    assert setup.engine.num_waiting == num_prompts, "the budget must hold every prompt"
    for _ in range(num_new_tokens - NUM_CYCLES * cycle - 1):
        setup.engine.step()
    # Means, because steps that evict, or run the importance predictor for many tokens, count too.
    step_s, products_s, attention_s = _means_s(
        [setup.engine.step, _products(setup), _attention(setup)], NUM_CYCLES * cycle
    )
    seconds = {
        "step": step_s,
        "own matrix products alone": products_s,
        "own attention alone": attention_s,
        "products and attention": products_s + attention_s,
        "bytes, at copy bandwidth": setup.num_bytes / _bytes_per_s(setup.device),
        "operations, at product speed": setup.num_operations / _operations_per_s(setup),
    }
    return [
        {"contender": policy_name, "what": what, "step_s": value, "step_over_it": step_s / value}
        for what, value in seconds.items()
    ]


def _products(setup: Setup) -> Callable[[], None]:
    rows = {
        linear.in_features: torch.randn(
            setup.workload.batch_size, linear.in_features, device=setup.device
        ).to(setup.engine.arena.shape.dtype)
        for linear in setup.linears
    }
    linears = [(linear, rows[linear.in_features]) for linear in setup.linears]

    def run() -> None:
        for linear, inputs in linears:
            linear(inputs)

    return run


def _attention(setup: Setup) -> Callable[[], None]:
    arena, size = setup.engine.arena, setup.workload
    shape = arena.shape
    slots = torch.full((size.batch_size,), setup.cache_len - 1, device=setup.device)
    query_shape = (size.batch_size, shape.num_query_heads, 1, shape.head_dim)
    stored_shape = (size.batch_size, shape.num_kv_heads, 1, shape.head_dim)
    query, key = (
        torch.randn(each, dtype=shape.dtype, device=setup.device)
        for each in (query_shape, stored_shape)
    )
    rule = AttentionRule(shape.head_dim**-0.5, None, None)

    def run() -> None:
        step = DecodeStep(arena, slots, slots, max_len=setup.cache_len, is_ragged=False)
        for layer in range(shape.num_layers):
            step.attend(LayerStates(layer, query, key, key, rule))

    return run


def _bytes_per_s(device: torch.device) -> float:
    source = torch.zeros(COPY_BYTES // 4, device=device)
    target = torch.zeros_like(source)
    return 2 * COPY_BYTES / _median_s(lambda: target.copy_(source))


def _operations_per_s(setup: Setup) -> float:
    dtype = setup.engine.arena.shape.dtype
    product = nn.Sequential(nn.Linear(PRODUCT_SIZE, PRODUCT_SIZE, bias=False))
    product.requires_grad_(False).to(setup.device, dtype)
    product = pack_linears(product, setup.weight_kind)
    inputs = torch.ones(PRODUCT_SIZE, PRODUCT_SIZE, device=setup.device, dtype=dtype)
    return 2 * PRODUCT_SIZE**3 / _median_s(lambda: product(inputs))


def _median_s(run: Callable[[], object]) -> float:
    return statistics.median(time for (time,) in _times_s([run], NUM_REPEATS))


def _means_s(runs: Sequence[Callable[[], object]], num_repeats: int) -> list[float]:
    return [statistics.fmean(own) for own in zip(*_times_s(runs, num_repeats), strict=True)]


@torch.inference_mode()
def _times_s(runs: Sequence[Callable[[], object]], num_repeats: int) -> list[list[float]]:
    """Times of each, run in turns, so that other work of the machine hits all of them."""
    times: list[list[float]] = []
    for _ in range(num_repeats):
        times.append([])
        for run in runs:
            started = now()
            run()
            times[-1].append(now() - started)
    return times


def print_roofline(rows: list[Row], console: Console) -> None:
    table = Table(title="a decode step and its floors")
    for title in ("contender", "what", "ms", "step / it"):
        table.add_column(title, justify="right" if title in ("ms", "step / it") else "left")
    for row in rows:
        cells = (f"{row['step_s'] * 1e3:.3f}", f"{row['step_over_it']:.2f}")
        table.add_row(row["contender"], row["what"], *cells)
    console.print(table)
