"""Laws of the metrics: they add up to the run, and the dashboard shows what there is."""

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import ClassVar

import pytest
import ray
from fake_run import write_config, write_problems

from dynts_batch.data.readers.samples import SCHEMA
from dynts_batch.runner.messages import Finished, Report, Tally
from dynts_batch.runner.reason import reason
from dynts_batch.runner.worker import metrics as metrics_module
from dynts_batch.runner.worker.metrics import GAUGES, GROWTHS, STEP_SECONDS, TALLIES, WorkerMetrics

DASHBOARD = json.loads((Path(__file__).parents[3] / "cluster" / "grafana.json").read_text())


class _Fake:
    """Stands in for a metric of Ray, which can be written and not read."""

    made: ClassVar[dict] = {}

    def __init__(self, name, description, tag_keys):
        self.value = 0.0
        self.made[name] = self

    def set_default_tags(self, tags):
        assert tags == {"worker_id": "w", "node": "n"}

    def inc(self, amount):
        assert amount > 0
        self.value += amount

    def set(self, value):
        self.value = value


def _report(rows, tokens, **gauges):
    tally = Tally(rows=rows, completion_tokens=tokens)
    return Report(Finished(tally=tally), 0, False, 0, 0, 4, None, gauges=gauges)


def test_counters_add_up_and_gauges_show_the_latest(monkeypatch):
    monkeypatch.setattr(metrics_module, "Counter", _Fake)
    monkeypatch.setattr(metrics_module, "Gauge", _Fake)
    metrics = WorkerMetrics("w", "n")
    metrics.record(_report(0, 0, busy_s=0.0, num_steps=0, energy_j=None, stored_tokens=3))
    metrics.record(_report(2, 30, busy_s=2.0, num_steps=10, energy_j=None, stored_tokens=9))
    metrics.record(_report(3, 20, busy_s=3.0, num_steps=14, energy_j=None, stored_tokens=5))
    values = {name: metric.value for name, metric in _Fake.made.items()}
    assert (values["dynts_rows"], values["dynts_completion_tokens"]) == (5, 50)
    assert (values["dynts_device_seconds"], values["dynts_steps"]) == (3.0, 14)
    assert values["dynts_energy_joules"] == 0.0
    assert values["dynts_stored_tokens"] == 5
    assert values[STEP_SECONDS] == 0.25


def test_every_metric_comes_from_a_figure_that_workers_report():
    fields = {field for field, _ in (GROWTHS | GAUGES).values()}
    assert fields <= set(SCHEMA.names)
    assert {field for field, _ in TALLIES.values()} <= set(Tally.__slots__)


def test_the_dashboard_shows_every_metric_and_no_other():
    shown = set()
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            shown |= set(re.findall(r"ray_(dynts_\w+)", target["expr"]))
    counters = {f"{name}_total" for name in TALLIES | GROWTHS}
    assert shown == (counters | GAUGES.keys() | {STEP_SECONDS}) - {"dynts_steps_total"}


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_node_exports_them_under_the_dashboards_names(cluster, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    problems = write_problems(tmp_path / "problems.jsonl", 60)
    config = write_config(tmp_path, problems, model={"name": "fake:step_s=0.1"})
    assert reason(str(config), []) == 0
    port = ray.nodes()[0]["MetricsExportPort"]
    text = ""
    for _ in range(60):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        if "dynts" in text:
            break
        time.sleep(1)
    exported = set(re.findall(r"^ray_(dynts_\w+)\{", text, re.MULTILINE))
    assert {"dynts_rows_total", "dynts_completion_tokens_total", "dynts_stored_tokens"} <= exported
