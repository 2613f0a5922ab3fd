"""Laws of a claim: a run has one driver, whichever store it is on,
and a dead one is in nobody's way."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from dynts_batch.data import claim as claim_module
from dynts_batch.data.claim import Claim
from dynts_batch.data.files.storage import Storage
from dynts_batch.errors import RunDirError

FILE = "driver.json"


@pytest.fixture
def store(root) -> Storage:
    store = Storage(root)
    store.create()
    return store


@pytest.fixture
def fast(monkeypatch) -> None:
    for name, seconds in (("BEAT_S", 0.1), ("GONE_S", 1.0), ("_POLL_S", 0.02)):
        monkeypatch.setattr(claim_module, name, seconds)


def _from(host: str, store: Storage, monkeypatch) -> Claim:
    """The claim of a process on another machine."""
    with monkeypatch.context() as patch:
        patch.setattr(claim_module.platform, "node", lambda: host)
        return Claim("run", store)


def _wait_for(condition) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come"
        time.sleep(0.02)


@pytest.mark.parametrize("host", [None, "elsewhere"])
def test_a_driver_at_work_is_not_joined_and_its_end_frees_the_run(store, fast, monkeypatch, host):
    monkeypatch.setattr(claim_module, "GONE_S", 20.0)  # a busy disk holds a beat up for seconds
    mine = Claim("run", store)
    with mine if host is None else _from(host, store, monkeypatch):
        with pytest.raises(RunDirError, match=r"one driver at a time, .* while process \d+ on "):
            Claim("run", store).wait_until_free()
        assert store.read(FILE) is not None
    assert store.read(FILE) is None
    with Claim("run", store) as claim:
        claim.check()


def test_a_heart_that_stands_still_is_waited_for_once_and_not_for_long(store, fast, monkeypatch):
    with _from("elsewhere", store, monkeypatch):
        left = store.read(FILE)
    store.write(FILE, left)  # as after a kill
    claim = Claim("run", store)
    began_s = time.monotonic()
    claim.wait_until_free()
    assert time.monotonic() - began_s >= claim_module.GONE_S
    began_s = time.monotonic()
    with claim:
        assert time.monotonic() - began_s < claim_module.GONE_S
        assert json.loads(store.read(FILE))["host"] != "elsewhere"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"{}", b'{"machine": 3, "pid": {}}', b"\xff"]
)
def test_a_damaged_claim_is_one_that_stands_still(store, fast, monkeypatch, content):
    monkeypatch.setattr(claim_module, "GONE_S", 0.05)  # whoever damaged it, nobody's heart beats
    store.write(FILE, content)
    with Claim("run", store) as claim:
        assert not claim.is_lost


@pytest.mark.parametrize("is_reaped", [True, False])
def test_a_killed_process_of_this_machine_is_gone_at_once(tmp_path, is_reaped):
    code = f"""
import time
from contextlib import ExitStack
from dynts_batch.data.run_dir import RunDir
with RunDir({str(tmp_path)!r}).claim():
    print("claimed", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "claimed\n"
    process.send_signal(signal.SIGKILL)
    if is_reaped:
        process.wait()
    else:  # its parent may never look: it stays a zombie
        _wait_for(lambda: _state(process.pid) == "Z")
    began_s = time.monotonic()
    with Claim("run", Storage(str(tmp_path))):
        assert time.monotonic() - began_s < 1
    process.communicate()


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_a_process_id_that_was_given_again_is_another_process(store, monkeypatch):
    with Claim("run", store):
        left = json.loads(store.read(FILE))
    assert left["pid"] == os.getpid()
    store.write_json(FILE, left | {"process_began": "1"})
    began_s = time.monotonic()
    Claim("run", store).wait_until_free()
    assert time.monotonic() - began_s < 1


def test_of_two_that_claim_at_once_one_stays_and_the_other_knows(store, fast, monkeypatch):
    """The last to write stays. That may be the first if its beat fell into the second's start."""
    first, second = _from("a", store, monkeypatch), _from("b", store, monkeypatch)
    hosts = {first: "a", second: "b"}
    with first, ExitStack() as stack:
        with monkeypatch.context() as patch:  # the second looked before the first wrote
            patch.setattr(Claim, "wait_until_free", lambda claim: None)
            stack.enter_context(second)
        _wait_for(lambda: first.is_lost or second.is_lost)
        stays, lost = (second, first) if first.is_lost else (first, second)
        with pytest.raises(RunDirError, match=rf"taken over by process \d+ on {hosts[stays]}"):
            lost.check()
        time.sleep(3 * claim_module.BEAT_S)
        assert not stays.is_lost
        assert json.loads(store.read(FILE))["host"] == hosts[stays]
    assert store.read(FILE) is None


def test_half_a_claim_is_looked_at_again_before_it_counts(store, fast, monkeypatch):
    """A file of fsspec is empty while it is written."""
    read, halves = store.read, [b"", b'{"driver": "']

    def beats() -> int:
        return json.loads(read(FILE) or b'{"heartbeats": 0}')["heartbeats"]

    with Claim("run", store) as claim:
        with monkeypatch.context() as patch:
            patch.setattr(store, "read", lambda name: halves.pop() if halves else read(name))
            _wait_for(lambda: not halves)
            before = beats()
            _wait_for(lambda: beats() > before)
        claim.check()
        monkeypatch.setattr(store, "read", lambda name: b"no claim at all")
        _wait_for(lambda: claim.is_lost)


def test_a_store_that_is_away_for_a_while_costs_a_beat_and_not_the_claim(tmp_path, fast, caplog):
    (tmp_path / "run").mkdir()
    with Claim("run", Storage(str(tmp_path / "run"))) as claim:
        (tmp_path / "run").rename(tmp_path / "away")
        _wait_for(lambda: "no heartbeat" in caplog.text)
        (tmp_path / "away").rename(tmp_path / "run")
        beats = json.loads((tmp_path / "run" / FILE).read_bytes())["heartbeats"]
        _wait_for(lambda: json.loads((tmp_path / "run" / FILE).read_bytes())["heartbeats"] > beats)
        claim.check()
