"""The Arrow schema of a worker's telemetry: samples over time, in `workers/` of a run directory.

Owns names, types and units. Knows nothing about where the figures come from.
"""

from __future__ import annotations

import pyarrow as pa


def _field(
    name: str, type_: pa.DataType, description: str | None = None, *, nullable: bool = True
) -> pa.Field:
    metadata = None if description is None else {"description": description}
    return pa.field(name, type_, nullable, metadata)


SCHEMA = pa.schema(
    [
        _field("worker_id", pa.string(), nullable=False),
        _field("node", pa.string()),
        _field("device_name", pa.string()),
        _field("device_uuid", pa.string(), "Of several GPUs, joined by commas"),
        _field("num_devices", pa.int64(), "GPUs that the model is spread over"),
        _field("time_s", pa.float64(), "Unix time", nullable=False),
        _field("num_running", pa.int64(), "Sequences decoded now", nullable=False),
        _field("num_waiting", pa.int64(), "Requests in its queue", nullable=False),
        _field("stored_tokens", pa.int64(), "Tokens in the arena now", nullable=False),
        _field("arena_bytes", pa.int64(), "Allocated for the arena", nullable=False),
        _field("max_seqs", pa.int64(), "Sequences the arena holds"),
        _field("busy_s", pa.float64(), "Device seconds since loading", nullable=False),
        _field(
            "cost_usd",
            pa.float64(),
            "Price of the time the device is held, so far, and of the energy",
        ),
        _field("num_steps", pa.int64(), "Engine steps since loading"),
        _field("completion_tokens", pa.int64(), "Of finished rows", nullable=False),
        _field("energy_j", pa.float64(), "Whole device, since loading"),
        _field("rss_peak_bytes", pa.int64(), "Host memory, process"),
        _field("device_peak_bytes", pa.int64(), "NVML, all processes"),
        _field("allocator_peak_bytes", pa.int64(), "torch, process"),
        _field("utilisation_mean", pa.float64(), "0 to 1, so far"),
        _field("power_mean_w", pa.float64(), "So far"),
    ]
)
