"""Every source is found where it is, refused with a reason where it is not, and no joule is counted twice."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from bench.host import visible_gpus
from bench.meters import energy
from bench.meters.energy import estimate, external, nvml, rapl, zeus
from bench.meters.energy.backend import EnergyError, Unavailable
from bench.meters.energy.counter import CounterBackend
from tests import simulated_nvml
from tests.simulated_nvml import Board, Instance

# --- RAPL ----------------------------------------------------------------------------------------------------------


def powercap(root, zones, span=262_143_328_850):
    for name, (domain, micro) in zones.items():
        folder = root / "sys/class/powercap" / name
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{domain}\n")
        (folder / "energy_uj").write_text(f"{micro}\n")
        (folder / "max_energy_range_uj").write_text(f"{span}\n")
    return root


def grow(root, steps):
    for name, micro in steps.items():
        path = root / "sys/class/powercap" / name / "energy_uj"
        path.write_text(str(int(path.read_text()) + micro))


SERVER = {
    "intel-rapl:0": ("package-0", 10),
    "intel-rapl:0:0": ("core", 5),
    "intel-rapl:0:1": ("dram", 7),
    "intel-rapl:1": ("package-1", 20),
    "intel-rapl:1:0": ("core", 6),
    "intel-rapl:1:1": ("dram", 8),
    "intel-rapl-mmio:0": ("package-0", 10),
}


def test_packages_and_memory_are_added_and_cores_are_not(tmp_path):
    backend = rapl.find(powercap(tmp_path, SERVER))
    assert isinstance(backend, CounterBackend)
    assert backend.scope == "cpu_package+dram"
    begin = backend.mark()
    grow(tmp_path, dict.fromkeys(SERVER, 1_000_000))
    assert backend.joules(begin, backend.mark()) == pytest.approx(4.0)  # two packages and their memory, one joule each


def test_the_platform_domain_stands_alone(tmp_path):
    zones = {"intel-rapl:0": ("package-0", 1), "intel-rapl:0:0": ("dram", 1), "intel-rapl:1": ("psys", 1)}
    backend = rapl.find(powercap(tmp_path, zones))
    assert isinstance(backend, CounterBackend)
    assert (backend.scope, len(backend.counters)) == ("soc", 1)


def test_a_laptop_has_a_package_only(tmp_path):
    backend = rapl.find(powercap(tmp_path, {"intel-rapl:0": ("package-0", 1), "intel-rapl:0:0": ("uncore", 1)}))
    assert isinstance(backend, CounterBackend)
    assert (backend.scope, list(backend.counters)) == ("cpu_package", ["package-0 (intel-rapl:0)"])


def test_rapl_wraps_at_its_own_range(tmp_path):
    backend = rapl.find(powercap(tmp_path, {"intel-rapl:0": ("package-0", 9_000_000)}, span=9_999_999))
    assert isinstance(backend, CounterBackend)
    begin = backend.mark()
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("500000")
    assert backend.joules(begin, backend.mark()) == pytest.approx(1.5)


def test_absent_and_forbidden_counters_say_why(tmp_path, monkeypatch):
    none = rapl.find(tmp_path)
    assert isinstance(none, Unavailable) and "virtual machines" in none.remedy
    powercap(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    original = rapl.Path.read_text

    def forbid(self, *args, **kwargs):
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(rapl.Path, "read_text", forbid)
    closed = rapl.find(tmp_path)
    assert isinstance(closed, Unavailable) and "root" in closed.reason and "chmod" in closed.remedy


def test_domains_that_fit_no_whole_are_not_read(tmp_path):
    found = rapl.find(powercap(tmp_path, {"intel-rapl:0:0": ("core", 1)}))
    assert isinstance(found, Unavailable) and "core" in found.reason


# --- NVML ----------------------------------------------------------------------------------------------------------


class Nvml:
    """As much of NVML as the backend asks."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 0, 2, 0

    class NVMLError(Exception):
        pass

    def __init__(self, *, counter=True, power=True, mig=False, pids=(), driver=True):
        self.counter, self.power, self.mig, self.pids, self.driver = counter, power, mig, pids, driver
        self.millijoules = 5_000

    def nvmlInit(self):
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    nvmlDeviceGetHandleByUUID = nvmlDeviceGetHandleByIndex

    def nvmlDeviceGetCount(self):
        return 1

    def nvmlDeviceGetMaxMigDeviceCount(self, handle):
        return 2

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, place):
        return ("instance", handle, place)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if not self.counter:
            raise self.NVMLError("Not Supported")
        return self.millijoules

    def nvmlDeviceGetPowerUsage(self, handle):
        if not self.power:
            raise self.NVMLError("Not Supported")
        return 70_000

    def nvmlDeviceGetMigMode(self, handle):
        return [int(self.mig), int(self.mig)]

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=pid) for pid in self.pids]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle):
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        return 400_000

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return 1980

    def nvmlDeviceGetTemperature(self, handle, kind):
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return 0


def test_the_counter_comes_first_with_power_as_its_check():
    lib = Nvml()
    backend = nvml.find("cuda", lib)
    assert isinstance(backend, nvml.NvmlCounter)
    assert isinstance(backend.check, nvml.NvmlPower)
    begin = backend.mark()
    lib.millijoules += 2_500
    assert backend.joules(begin, backend.mark()) == pytest.approx(2.5)
    assert backend.conditions()["power_limit_w"] == 400
    assert backend.conditions()["temperature_c"] is None


def test_a_board_without_a_counter_is_sampled():
    backend = nvml.find("cuda", Nvml(counter=False))
    assert isinstance(backend, nvml.NvmlPower)
    assert backend.raw() == 70.0


@pytest.mark.parametrize(
    ("lib", "reason"),
    [
        (Nvml(counter=False, power=False), "neither energy"),
        (Nvml(mig=True), "MIG"),
        (Nvml(pids=(987654, 987655)), "2 other process"),
        (Nvml(driver=False), "Driver Not Loaded"),
    ],
)
def test_boards_that_cannot_be_ours_alone_are_refused(lib, reason):
    found = nvml.find("cuda", lib)
    assert isinstance(found, Unavailable) and reason in found.reason


def test_our_own_process_is_not_foreign_also_under_the_hosts_number(monkeypatch):
    assert isinstance(nvml.find("cuda", Nvml(pids=(os.getpid(),))), nvml.NvmlCounter)
    assert isinstance(nvml.find("cuda", Nvml(pids=(987654,))), Unavailable)  # we run no CUDA, so it is somebody else
    monkeypatch.setattr(visible_gpus, "runs_cuda", lambda: True)
    assert isinstance(nvml.find("cuda", Nvml(pids=(987654,))), nvml.NvmlCounter)
    assert isinstance(nvml.find("cuda", Nvml(pids=(os.getpid(), 987654))), Unavailable)


# --- zeus ----------------------------------------------------------------------------------------------------------


def fake_zeus(**fields):
    class ZeusMonitor:
        def __init__(self, gpu_indices):
            self.open = False

        def begin_window(self, name):
            assert not self.open
            self.open = True

        def end_window(self, name):
            assert self.open
            self.open = False
            return SimpleNamespace(**fields)

    return SimpleNamespace(ZeusMonitor=ZeusMonitor)


def test_zeus_is_read_between_marks():
    backend = zeus.find("cuda", fake_zeus(gpu_energy={0: 3.0}))
    assert isinstance(backend, zeus.ZeusBackend)
    backend.start()
    first = backend.mark()
    assert backend.joules(first, backend.mark()) == 3.0
    backend.stop()


def test_a_chip_is_its_total_or_the_sum_of_parts_that_do_not_overlap():
    jetson = SimpleNamespace(soc_energy=SimpleNamespace(cpu_energy_mj=1e3, gpu_energy_mj=2e3, total_energy_mj=5e3))
    assert zeus.joules_of(jetson, "soc_energy") == pytest.approx(5.0)
    apple = SimpleNamespace(
        cpu_total_mj=3000, performance_cores_mj=[900, 900], gpu_mj=2000, gpu_sram_mj=None, ane_mj=0, dram_mj=500
    )
    assert zeus.joules_of(SimpleNamespace(soc_energy=apple), "soc_energy") == pytest.approx(5.5)


@pytest.mark.parametrize("fields", [{"cpu_energy": None}, {"cpu_energy": {}}, {"cpu_energy": {0: 0.0}}, {}])
def test_the_zero_of_zeus_is_not_a_measurement(fields):
    found = zeus.find("cpu", fake_zeus(**fields))
    assert isinstance(found, Unavailable) and "zeus" in found.reason


# --- a meter at the wall -------------------------------------------------------------------------------------------


def log(tmp_path, text):
    path = tmp_path / "meter.csv"
    path.write_text(text)
    return path


def test_watts_in_a_log_are_integrated(tmp_path):
    rows = "".join(f"{100 + second},{50 if second < 5 else 150}\n" for second in range(11))
    backend = external.find(log(tmp_path, f"time,power_w\n{rows}"))
    assert isinstance(backend, external.ExternalBackend)
    # 50 W for 4 s, the ramp from 50 to 150 within a second, 150 W for 5 s
    assert backend.joules(100.0, 110.0) == pytest.approx(200 + 100 + 750)
    assert backend.joules(101.5, 110.0) == pytest.approx(125 + 100 + 750)


def test_cumulative_joules_and_dates_are_understood(tmp_path):
    rows = "".join(f"2026-01-01T00:00:{second:02d}Z,{7 * second}\n" for second in range(12))
    backend = external.ExternalBackend(log(tmp_path, f"Timestamp,Energy_J\n{rows}"))
    start = external.seconds_of("2026-01-01T00:00:00+00:00")
    assert backend.joules(start + 1, start + 11) == pytest.approx(70.0)


def test_the_meter_is_waited_for(tmp_path):
    path = log(tmp_path, "time,watts\n" + "".join(f"{t},10\n" for t in range(5)) + "5,1")
    now = [10.0]

    def sleep(seconds):
        now[0] += seconds
        path.write_text("time,watts\n" + "".join(f"{t},10\n" for t in range(12)))

    backend = external.ExternalBackend(path, clock=lambda: now[0], sleep=sleep)
    assert backend.joules(0.0, 10.0) == pytest.approx(100.0)


def test_a_log_that_does_not_cover_the_window_or_has_a_hole_is_refused(tmp_path):
    now = [0.0]
    sleep = lambda seconds: now.__setitem__(0, now[0] + seconds)  # noqa: E731
    path = log(tmp_path, "time,watts\n" + "".join(f"{t},10\n" for t in range(20) if not 5 < t < 9))
    backend = external.ExternalBackend(path, clock=lambda: now[0], sleep=sleep)
    with pytest.raises(EnergyError, match="no row for 4 s"):
        backend.joules(0.0, 10.0)
    with pytest.raises(EnergyError, match="does not cover"):
        backend.joules(10.0, 100.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2\n", "needs a column"),
        ("time,watts\n1,2\n2,high\n3,1\n", "no number"),
        ("time,watts\n5,2\n2,2\n3,1\n", "back in time"),
        ("time,joules\n1,5\n2,1\n3,2\n", "reset"),
    ],
)
def test_a_log_that_makes_no_sense_is_refused(tmp_path, text, reason):
    found = external.find(log(tmp_path, text))
    assert isinstance(found, Unavailable) and reason in found.reason


def test_no_log_is_a_reason_that_names_the_setting(tmp_path):
    none = external.find()
    assert isinstance(none, Unavailable) and "protocol.energy.csv" in none.remedy
    assert isinstance(external.find(tmp_path / "absent.csv"), Unavailable)


# --- estimates and the choice --------------------------------------------------------------------------------------


def test_an_estimate_needs_stated_watts_and_says_that_it_is_one():
    none = estimate.find("cpu")
    assert isinstance(none, Unavailable) and "protocol.energy.watts" in none.remedy
    now = [0.0]
    backend = estimate.Estimate(120.0, 4, clock=lambda: now[0])
    begin = backend.mark()
    now[0] = 10.0
    assert backend.joules(begin, backend.mark()) == pytest.approx(300.0)
    assert (backend.provenance, backend.has_idle) == ("estimated", False)


def test_an_estimate_gives_hatched_numbers_and_no_net():
    clock = [0.0]

    def step():
        clock[0] += 0.01

    backend = estimate.Estimate(50.0, None, clock=lambda: clock[0])
    found = energy.measure(step, 1, backend, windows=1, clock=lambda: clock[0], sleep=lambda s: None)
    gross, net = found.readings()
    assert (gross.value, gross.provenance) == (pytest.approx(0.5), "estimated")
    assert "stated" in gross.method_note
    assert net.value is None


def test_nothing_readable_gives_every_reason_and_nothing_is_estimated_unasked(monkeypatch, tmp_path):
    monkeypatch.setattr(zeus, "find", lambda device: Unavailable("zeus is not installed"))
    found = energy.choose("cpu", root=tmp_path)
    assert isinstance(found, Unavailable)
    assert "RAPL" in found.reason and "zeus" in found.reason


@pytest.mark.parametrize("name", ["auto", "zeus"])
@pytest.mark.parametrize(
    ("boards", "words"),
    [
        ([Board("GPU-a", pids=(4_000_001,))], "shared: 1 other process"),
        ([Board("GPU-a", divided=True, instances=[Instance("MIG-1")])], "holds the energy of all instances"),
    ],
)
def test_the_meter_of_a_board_that_others_draw_from_is_not_read_by_another_way(monkeypatch, name, boards, words):
    monkeypatch.setattr(nvml, "_pynvml", lambda: simulated_nvml.Nvml(*boards))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(zeus, "find", lambda device: pytest.fail("it would give the joules of all who draw from it"))
    found = energy.named(name, "cuda")
    assert isinstance(found, Unavailable) and words in found.reason and found.readings()[0].value is None


def test_each_board_of_a_machine_has_a_meter_of_its_own(monkeypatch):
    class Metered(simulated_nvml.Nvml):
        def nvmlDeviceGetTotalEnergyConsumption(self, handle):
            return {"GPU-a": 1_000, "GPU-b": 9_000}[handle.uuid]

    lib = Metered(Board("GPU-a", pids=(4_000_001,)), Board("GPU-b"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b")
    found = nvml.find("cuda", lib)  # a stranger on the other board is none of ours
    assert isinstance(found, nvml.NvmlCounter) and found.board.millijoules() == 9_000
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    assert nvml.find("cuda", lib).shared


def test_the_settings_reach_the_meter_and_the_estimate(tmp_path):
    path = log(tmp_path, "time,watts\n" + "".join(f"{t},10\n" for t in range(5)))
    meter = energy.named("external", "cpu", csv=str(path))
    assert isinstance(meter, external.ExternalBackend) and meter.path == path
    guess = energy.named("estimate", "cuda", watts=300.0)
    assert isinstance(guess, estimate.Estimate) and (guess.watts, guess.scope) == (300.0, "gpu_board")


def test_the_protocol_names_the_source(tmp_path, monkeypatch):
    off = energy.measure_for(lambda: None, 1, "cpu", {"backend": "off"})
    assert isinstance(off, Unavailable) and "switched off" in off.reason
    assert isinstance(energy.named("nvml", "cpu"), Unavailable)
    assert isinstance(energy.named("rapl", "cuda"), Unavailable)
    with pytest.raises(ValueError, match="does not exist"):
        energy.named("crystal", "cpu")


def test_a_failed_measurement_is_unavailable_with_its_reason(monkeypatch):
    from bench.meters.energy import choice

    class Dead(CounterBackend):
        def raw(self):
            return 1.0

    monkeypatch.setattr(choice, "named", lambda name, device, **rest: Dead("dead", "soc", {}))
    monkeypatch.setattr(choice.meter, "find_period", _dead)
    found = energy.measure_for(lambda: None, 1, "cpu", {})
    assert isinstance(found, Unavailable) and "did not move" in found.reason


def _dead(*_):
    raise energy.DeadCounter("the counter did not move")


def test_the_survey_names_every_source(tmp_path):
    assert len(energy.survey(tmp_path)) == 5
    assert all(isinstance(what, str) for what, _ in energy.survey(tmp_path))


@pytest.mark.gpu
def test_a_real_board_gives_joules():
    import torch

    backend = energy.choose("cuda")
    if isinstance(backend, Unavailable):
        pytest.skip(backend.reason)
    x = torch.randn(4096, 4096, device="cuda")
    found = energy.measure(lambda: x @ x, 1, backend, windows=2, synchronise=torch.cuda.synchronize)
    assert min(found.gross_j) > 0
    assert found.cross_check is None or 0.7 < found.cross_check < 1.4
