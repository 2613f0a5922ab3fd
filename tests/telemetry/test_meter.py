"""What the meter reports, and that no device can make it raise, hang or guess."""

import threading
import time

import pynvml
import pytest

from dynts_batch.telemetry import DeviceMeter, meter

NEVER_S = 1e6


class Clock:
    """Time that only moves when told to."""

    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def paused_meter(nvml, clock, uuids) -> DeviceMeter:
    """A meter that samples only on demand."""
    return DeviceMeter(uuids, interval_s=NEVER_S, nvml=nvml, clock=clock)


def test_the_summary_holds_peaks_means_and_joules_of_the_named_gpus_only(nvml, gpus, clock) -> None:
    gpu = gpus[1]
    with paused_meter(nvml, clock, [gpu.uuid]) as device_meter:
        clock.now_s += 2.0
        gpu.memory_used_bytes *= 3
        gpu.energy_mj += 500_000
        device_meter.sample()
        assert device_meter.energy_j(gpu.uuid) == 500.0
    summary = device_meter.summary()
    assert summary.duration_s == 2.0
    assert abs(summary.started_at_s - time.time()) < 60
    (device,) = summary.devices
    assert device.uuid == gpu.uuid
    assert device.name == "NVIDIA Fake"
    assert device.memory_peak_bytes == gpu.memory_used_bytes
    assert device.memory_mean_bytes == pytest.approx(gpu.memory_used_bytes * 2 / 3)
    assert device.memory_total_bytes == gpu.memory_total_bytes
    assert device.utilisation_mean == 0.5
    assert device.power_mean_w == 200.0
    assert device.energy_j == 500.0
    assert device.num_samples == 3
    assert 0 < summary.process.rss_mean_bytes <= summary.process.rss_peak_bytes


def test_without_a_counter_energy_is_power_times_time(nvml, gpus, clock) -> None:
    gpus[0].errors["nvmlDeviceGetTotalEnergyConsumption"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    with paused_meter(nvml, clock, ["0"]) as device_meter:
        clock.now_s += 10.0
    assert device_meter.energy_j(gpus[0].uuid) == pytest.approx(2_000.0)


def test_a_gpu_lost_on_the_way_is_null_from_there_and_the_other_goes_on(nvml, gpus, clock) -> None:
    with paused_meter(nvml, clock, ["0", "1"]) as device_meter:
        clock.now_s += 1.0
        gpus[0].errors["*"] = pynvml.NVML_ERROR_GPU_IS_LOST
        gpus[1].energy_mj += 1_000
        device_meter.sample()
    lost_summary, alive_summary = device_meter.summary().devices
    assert lost_summary.energy_j is None
    assert lost_summary.num_samples == 1
    assert alive_summary.energy_j == 1.0


def test_the_thread_survives_a_lost_gpu(nvml, gpus) -> None:
    with DeviceMeter(["0"], interval_s=0.005, nvml=nvml) as device_meter:
        gpus[0].errors["*"] = pynvml.NVML_ERROR_GPU_IS_LOST
        deadline_s, times_s = time.monotonic() + 10.0, set()
        while len(times_s) < 3:
            times_s.add(device_meter.summary().duration_s)
            assert time.monotonic() < deadline_s, "the thread stopped sampling"
            time.sleep(0.005)


def test_without_nvml_gpu_figures_are_null_and_the_log_says_so_once(nvml, clock, caplog) -> None:
    nvml.init_error = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    with paused_meter(nvml, clock, ["GPU-x"]) as device_meter:
        device_meter.sample()
    (device,) = device_meter.summary().devices
    assert device.uuid == "GPU-x"
    assert device.name is device.memory_peak_bytes is device.memory_mean_bytes is None
    assert device.utilisation_mean is device.power_mean_w is device.energy_j is None
    assert device.num_samples == 0
    assert device_meter.energy_j("GPU-x") is None
    assert caplog.text.count("no NVML") == 1


def test_a_process_without_gpus_leaves_nvml_alone_and_meters_its_memory(nvml, clock) -> None:
    nvml.init_error = pynvml.NVML_ERROR_UNKNOWN
    with paused_meter(nvml, clock, []) as device_meter:
        clock.now_s += 1.0
    summary = device_meter.summary()
    assert summary.devices == ()
    assert summary.process.rss_peak_bytes > 0
    assert summary.duration_s == 1.0


def test_by_default_the_visible_gpus_are_metered(nvml, gpus, clock, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    with paused_meter(nvml, clock, None) as device_meter:
        pass
    assert [d.uuid for d in device_meter.summary().devices] == [gpus[2].uuid, gpus[0].uuid]


def test_nvml_is_shut_down_once(nvml, clock) -> None:
    device_meter = paused_meter(nvml, clock, ["0"])
    device_meter.close()
    device_meter.start()
    assert nvml.num_inits == 1
    device_meter.close()
    device_meter.close()
    assert nvml.num_inits == 0


def test_a_driver_that_hangs_keeps_nobody_waiting_for_figures(nvml, clock, monkeypatch) -> None:
    """A GPU that falls off the bus can block NVML calls for minutes; close() once waited on it."""
    monkeypatch.setattr(meter, "_JOIN_TIMEOUT_S", 0.1)
    device_meter = DeviceMeter(["0"], interval_s=0.01, nvml=nvml, clock=clock)
    device_meter.start()
    hangs, release = threading.Event(), threading.Event()

    def hang(gpu):
        hangs.set()
        release.wait(10.0)

    monkeypatch.setattr(nvml, "nvmlDeviceGetUtilizationRates", hang)
    assert hangs.wait(5.0)
    started_s = time.monotonic()
    device_meter.summary()
    device_meter.close()
    assert time.monotonic() - started_s < 5.0
    release.set()


def test_an_unknown_uuid_is_a_key_error(nvml, clock) -> None:
    with paused_meter(nvml, clock, ["0"]) as device_meter, pytest.raises(KeyError):
        device_meter.energy_j("GPU-other")
