"""Which GPUs a process has, under every name CUDA accepts for them."""

import pynvml
import pytest

from dynts_batch.telemetry.nvml import Device, open_devices, visible_devices


@pytest.mark.parametrize(
    ("value", "entries"),
    [
        ("0,2", ["0", "2"]),
        ("GPU-abc, MIG-def", ["GPU-abc", "MIG-def"]),
        ("", []),
        ("-1", []),
        ("1,-1,0", ["1"]),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_ends_at_the_first_entry_that_is_no_device(
    value: str, entries: list[str]
) -> None:
    assert visible_devices({"CUDA_VISIBLE_DEVICES": value}) == entries


def test_without_the_variable_every_gpu_is_meant(nvml, gpus) -> None:
    assert visible_devices({}) is None
    assert list(open_devices(nvml, None)) == [gpu.uuid for gpu in gpus]


@pytest.mark.parametrize(
    "identifier",
    ["1", "GPU-bbbbbbbb-0000-0000-0000-000000000000", "bbbbbbbb-0000-0000-0000-000000000000",
     "GPU-bbb", "b"],
)  # fmt: skip
def test_a_gpu_is_found_by_index_uuid_or_start_of_it(nvml, gpus, identifier: str) -> None:
    assert list(open_devices(nvml, [identifier])) == [gpus[1].uuid]


@pytest.mark.parametrize("identifier", ["7", "GPU-dead", "GPU-", "MIG-none"])
def test_a_gpu_that_is_not_there_is_named_in_the_log_and_null(nvml, identifier, caplog) -> None:
    assert open_devices(nvml, [identifier]) == {identifier: None}
    assert identifier in caplog.text


def test_two_names_of_one_gpu_are_one_gpu(nvml, gpus) -> None:
    assert list(open_devices(nvml, ["0", gpus[0].uuid])) == [gpus[0].uuid]


def test_a_mig_slice_has_its_own_memory_and_its_gpus_power_and_name(nvml, gpus, mig_slice) -> None:
    devices = open_devices(nvml, [mig_slice.uuid])
    assert list(devices) == [gpus[1].uuid]
    device = devices[gpus[1].uuid]
    assert device is not None
    reading = device.read()
    assert reading.memory_used_bytes == mig_slice.memory_used_bytes
    assert reading.power_w == 200.0
    assert reading.energy_counter_j == 7_000.0


def test_readings_have_si_units(nvml, gpus) -> None:
    reading = Device(nvml, gpus[0]).read()
    assert reading.memory_used_bytes == gpus[0].memory_used_bytes
    assert reading.utilisation == 0.5
    assert reading.power_w == 200.0
    assert reading.energy_counter_j == 7_000.0


def test_one_unsupported_field_leaves_the_others(nvml, gpus) -> None:
    gpus[0].errors["nvmlDeviceGetUtilizationRates"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    reading = Device(nvml, gpus[0]).read()
    assert reading.utilisation is None
    assert reading.power_w == 200.0


def test_a_lost_gpu_stays_lost_and_is_reported_once(nvml, gpus, caplog) -> None:
    device = Device(nvml, gpus[0])
    gpus[0].errors["*"] = pynvml.NVML_ERROR_GPU_IS_LOST
    device.read()
    gpus[0].errors.clear()
    assert device.read().memory_used_bytes is None
    assert caplog.text.count("telemetry ends here") == 1


def test_the_fake_has_no_function_that_the_real_library_lacks(nvml) -> None:
    names = {name for name in dir(nvml) if name.startswith(("nvml", "NVML"))}
    assert len(names) > 10
    assert names <= set(dir(pynvml))


@pytest.mark.gpu
def test_the_fake_answers_like_the_real_library() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        pytest.skip(f"no NVML: {error}")
    for uuid, device in open_devices(pynvml, None).items():
        assert uuid.startswith("GPU-")
        assert device is not None
        reading = device.read()
        assert reading.memory_used_bytes is not None
        assert device.memory_total_bytes is not None
        assert 0 < reading.memory_used_bytes <= device.memory_total_bytes
        assert reading.energy_counter_j is not None
        assert list(open_devices(pynvml, [uuid.removeprefix("GPU-")])) == [uuid]
    pynvml.nvmlShutdown()
