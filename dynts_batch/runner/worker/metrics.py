"""A worker's figures as Ray metrics, which every node exports to Prometheus.

Owns the names; cluster/grafana.json shows them. The figures are those of the worker's reports.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from dynts_batch.runner.messages import Report

#: Metric and the sum of a report's tally that it adds up.
TALLIES = {
    "dynts_rows": ("rows", "Rows done, failed and skipped ones included"),
    "dynts_error_rows": ("errors", "Failed rows"),
    "dynts_completion_tokens": ("completion_tokens", "Generated tokens of done rows"),
    "dynts_evictions": ("evictions", "Evictions in done rows"),
}
#: Metric and the gauge of a report whose growth it adds up.
GROWTHS = {
    "dynts_device_seconds": ("busy_s", "Seconds the device worked"),
    "dynts_steps": ("num_steps", "Engine steps"),
    "dynts_energy_joules": ("energy_j", "Energy of the whole device; absent if unmeasured"),
    "dynts_cost_usd": ("cost_usd", "Price of device time and energy; absent without prices"),
}
#: Metric and the gauge of a report that it shows.
GAUGES = {
    "dynts_running_sequences": ("num_running", "Sequences decoded now"),
    "dynts_waiting_requests": ("num_waiting", "Requests in the worker's queue"),
    "dynts_stored_tokens": ("stored_tokens", "Tokens in the KV arena now"),
    "dynts_max_sequences": ("max_seqs", "Sequences that the KV arena holds"),
    "dynts_arena_bytes": ("arena_bytes", "Size of the KV arena"),
    "dynts_host_peak_bytes": ("rss_peak_bytes", "Most host memory of the process"),
    "dynts_device_peak_bytes": ("device_peak_bytes", "Most memory of the device; absent on CPUs"),
}
STEP_SECONDS = "dynts_step_seconds"
_TAGS = ("worker_id", "node")


class WorkerMetrics:
    """One worker's."""

    def __init__(self, worker_id: str, node: str) -> None:
        tags = {"worker_id": worker_id, "node": node}
        growing = TALLIES | GROWTHS
        self._counters = {n: Counter(n, text, _TAGS) for n, (_, text) in growing.items()}
        self._gauges = {n: Gauge(n, text, _TAGS) for n, (_, text) in GAUGES.items()}
        self._gauges[STEP_SECONDS] = Gauge(STEP_SECONDS, "Mean of the steps since a report", _TAGS)
        for metric in (*self._counters.values(), *self._gauges.values()):
            metric.set_default_tags(tags)
        self._former: dict[str, float] = dict.fromkeys(GROWTHS, 0.0)

    def record(self, report: Report) -> None:
        """Take in what a worker did since its last report."""
        for name, (field, _) in TALLIES.items():
            self._increase(name, getattr(report.finished.tally, field))
        grown = {name: self._growth(name, field, report) for name, (field, _) in GROWTHS.items()}
        for name, (field, _) in GAUGES.items():
            value = report.gauges.get(field)
            if value is not None:
                self._gauges[name].set(value)
        if grown["dynts_steps"]:
            self._gauges[STEP_SECONDS].set(grown["dynts_device_seconds"] / grown["dynts_steps"])

    def _growth(self, name: str, field: str, report: Report) -> float:
        value = report.gauges.get(field)
        if value is None:
            return 0.0
        growth = value - self._former[name]
        self._former[name] = value
        self._increase(name, growth)
        return growth

    def _increase(self, name: str, amount: float) -> None:
        if amount > 0:  # Ray refuses to add nothing
            self._counters[name].inc(amount)
