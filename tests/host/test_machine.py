"""The environment record is complete, private by default and quick; keys and differences say what they promise."""

from __future__ import annotations

import contextlib
import getpass
import json
import mmap
import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.host import gpus
from bench.host.difference import difference
from bench.host.environment import cgroup_limits, environment, torch_build
from bench.host.hostwatch import HostWatch, Limits, Snapshot, compare, snapshot, wait_until_quiet
from bench.host.identity import machine_class, machine_key


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


# --- the record ------------------------------------------------------------------------------------------------------


def test_environment_is_plain_json_and_names_what_numbers_depend_on():
    env = environment()
    assert json.loads(json.dumps(env, allow_nan=False)) == env
    assert env["cpu"]["model"] and env["cpu"]["logical_cores"] >= env["cpu"]["usable_cores"] >= 1
    assert env["memory_bytes"] > 2**28
    assert env["python"] == platform.python_version()
    assert env["packages"]["psutil"]


def test_environment_is_read_without_torch_in_under_two_seconds():
    code = (
        "import sys, time; t = time.perf_counter(); from bench.host.environment import environment; environment();"
        "print(time.perf_counter() - t); assert not {'torch', 'mlflow', 'hydra'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2


def test_missing_sources_are_none_with_a_reason(tmp_path):
    env = environment(root=tmp_path)
    assert env["frequency"] == dict.fromkeys(env["frequency"])
    assert "cpufreq" in env["unreadable"]["frequency"]
    assert env["cpu"]["caches"] == [] and env["unreadable"]["cpu.caches"]


def test_nothing_personal_unless_private(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/home/somebody/lib/libjemalloc.so.2:/opt/x/libother.so")
    monkeypatch.setenv("TORCH_HOME", "/home/somebody/.cache")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f3c1f0a-1234-5678-9abc-def012345678")
    monkeypatch.setenv("TORCH_HUB_TOKEN", "hunter2")
    text = json.dumps(environment())
    assert "somebody" not in text and "8f3c1f0a" not in text and "hunter2" not in text
    assert str(Path.home()) not in text and "private" not in environment()
    variables = environment()["variables"]
    assert variables["LD_PRELOAD"] == "libjemalloc.so.2:libother.so"
    assert variables["CUDA_VISIBLE_DEVICES"] == "GPU"
    for home in ("/home/somebody", "/home/somebody/", "/Users/somebody"):
        monkeypatch.setenv("TORCH_HOME", home)
        assert "somebody" not in environment()["variables"]["TORCH_HOME"]
    monkeypatch.setattr("bench.host.personal.own_names", lambda: ("jdoe",))
    monkeypatch.setenv("TORCH_HOME", "/scratch/jdoe_runs")
    assert environment()["variables"]["TORCH_HOME"] == "(hidden)_runs"
    private = environment(private=True)["private"]
    assert private["host"] == platform.node() and private["user"] == getpass.getuser()
    assert "hunter2" not in json.dumps(environment(private=True))


def test_torch_build_refuses_to_guess_before_torch_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(RuntimeError, match="not imported"):
        torch_build()
    assert "torch" not in environment()


def test_torch_build_says_what_torch_picked():
    torch = pytest.importorskip("torch")
    build = environment()["torch"]
    assert build["version"] == torch.__version__ and build["threads"] == torch.get_num_threads()
    assert json.dumps(build)


def test_cpu_is_read_from_the_kernel(tmp_path):
    cpu = "sys/devices/system/cpu/"
    root = write(
        tmp_path,
        {
            "proc/cpuinfo": (
                "processor\t: 0\nmodel name\t: Test  CPU 9\nflags\t\t: fpu avx2 avx512f amx_bf16 smep "
                "hypervisor\n\nprocessor\t: 1\n"
            ),
            cpu + "cpu0/cache/index0/size": "48K",
            cpu + "cpu0/cache/index0/level": "1",
            cpu + "cpu0/cache/index0/type": "Data",
            cpu + "cpu0/cache/index0/shared_cpu_list": "0,64-66",
            cpu + "smt/active": "1",
            cpu + "cpu0/cpufreq/scaling_governor": "powersave",
            cpu + "cpu0/cpufreq/cpuinfo_max_freq": "3500000",
            cpu + "intel_pstate/no_turbo": "0",
            "sys/hypervisor/type": "xen",
        },
    )
    env = environment(root=root)
    assert env["cpu"]["model"] == "Test CPU 9"
    assert env["cpu"]["flags"] == ["amx_bf16", "avx2", "avx512f"]
    assert env["cpu"]["caches"] == [{"level": 1, "kind": "Data", "bytes": 49152, "shared_by": 4}]
    assert env["cpu"]["smt"] is True
    assert env["frequency"]["governor"] == "powersave" and env["frequency"]["max_mhz"] == 3500
    assert env["frequency"]["turbo"] is True
    assert env["hypervisor"] == "xen"


def test_cgroup_v2_takes_the_strictest_limit_up_the_tree(tmp_path):
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/job\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu memory",
            "sys/fs/cgroup/pod/cpu.max": "150000 100000",
            "sys/fs/cgroup/pod/job/cpu.max": "max 100000",
            "sys/fs/cgroup/pod/memory.max": "8589934592",
            "sys/fs/cgroup/pod/job/memory.max": "4294967296",
        },
    )
    assert cgroup_limits(root) == {"cgroup_version": 2, "cpu_cores": 1.5, "memory_bytes": 4 * 2**30}


def test_cgroup_v1_and_its_way_of_saying_no_limit(tmp_path):
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/a\n1:cpu,cpuacct:/a\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert cgroup_limits(root) == {"cgroup_version": 1, "cpu_cores": 2.0, "memory_bytes": None}


def test_no_cgroups_no_limits(tmp_path):
    assert cgroup_limits(tmp_path) == {"cgroup_version": None, "cpu_cores": None, "memory_bytes": None}


# --- GPUs ------------------------------------------------------------------------------------------------------------


class FakeNvml:
    """Enough of NVML for one board that refuses some questions, as real ones do."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

    class NVMLError(Exception):
        pass

    def __getattr__(self, name: str):
        if name.startswith("nvmlClocksThrottleReason"):
            return 8

        def refuse(*_: object):
            raise self.NVMLError("Not Supported")

        return refuse

    def nvmlSystemGetDriverVersion(self):
        return b"580.1"

    def nvmlSystemGetCudaDriverVersion_v2(self):
        return 13020

    def nvmlDeviceGetCount(self):
        return 1

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetName(self, handle):
        return "Test GPU"

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        return 350_000

    def nvmlDeviceGetUUID(self, handle):
        return "GPU-1"


def fake_nvml(monkeypatch):
    from contextlib import nullcontext

    monkeypatch.setattr(gpus, "nvml", lambda: nullcontext(FakeNvml()))


def test_gpu_questions_that_are_refused_are_none_with_a_reason(monkeypatch):
    fake_nvml(monkeypatch)
    found, driver, reason = gpus.read_gpus()
    assert reason is None and driver == {"nvidia": "580.1", "cuda_supported": "13.2"}
    assert found[0]["name"] == "Test GPU" and found[0]["power_limit_w"] == 350.0 and found[0]["mig_devices"] == []
    assert found[0]["ecc"] is None and found[0]["unreadable"]["ecc"] == "Not Supported"
    assert "uuid" not in found[0] and gpus.read_gpus(private=True)[0][0]["uuid"] == "GPU-1"


def test_no_gpu_says_why(monkeypatch):
    def absent():
        raise RuntimeError("NVML is not available: no driver")

    monkeypatch.setattr(gpus, "nvml", absent)
    assert gpus.read_gpus() == ([], {}, "NVML is not available: no driver")
    assert gpus.gpu_state() == {}


# --- keys and differences --------------------------------------------------------------------------------------------

BASE = {
    "cpu": {"model": "CPU A", "architecture": "x86_64", "physical_cores": 8, "logical_cores": 16, "usable_cores": 16,
            "flags": ["avx2", "avx512f"], "microcode": "0x1"},
    "memory_bytes": 31 * 2**30, "limits": {"cpu_cores": None, "memory_bytes": None}, "os": "Linux 6.1",
    "libc": "glibc 2.36", "python": "3.11.7", "kernel": "6.1.0", "packages": {"torch": "2.13.0+cpu", "numpy": "2.0"},
    "gpus": [{"name": "G", "memory_bytes": 80 * 2**30, "power_limit_w": 350.0, "unreadable": {}}], "variables": {},
}  # fmt: skip


def changed(**parts: object) -> dict:
    copy = json.loads(json.dumps(BASE))
    for name, value in parts.items():
        copy[name] = {**copy[name], **value} if isinstance(value, dict) else value
    return copy


@pytest.mark.parametrize(
    "other",
    [
        changed(cpu={"model": "CPU B"}),
        changed(cpu={"usable_cores": 4}),
        changed(limits={"cpu_cores": 2.0}),
        changed(memory_bytes=64 * 2**30),
        changed(gpus=[]),
        changed(packages={"torch": "2.14.0+cpu"}),
        changed(python="3.12.1"),
        changed(os="Darwin 24.1"),
        changed(libc="musl 1.2"),
        changed(gpus=[{"name": "G", "memory_bytes": 80 * 2**30, "power_limit_w": 300.0}]),
    ],
)
def test_key_changes_with_what_makes_numbers_incomparable(other):
    assert machine_key(other) != machine_key(BASE)


@pytest.mark.parametrize(
    "other",
    [
        changed(kernel="6.2.0"),
        changed(os="Linux 6.2"),
        changed(libc="glibc 2.41"),
        changed(python="3.11.9"),
        changed(packages={"numpy": "2.1"}),
        changed(memory_bytes=30 * 2**30),
        changed(variables={"OMP_NUM_THREADS": "1"}),
        changed(cpu={"microcode": "0x2"}),
        {**BASE, "private": {"host": "x"}},
    ],
)
def test_key_survives_ordinary_upkeep(other):
    assert machine_key(other) == machine_key(BASE)


def test_key_is_the_same_from_process_to_process_and_with_torch_imported():
    code = (
        "from bench.host.environment import environment; from bench.host.identity import machine_key; "
        "{}print(machine_key(environment()))"
    )
    keys = {
        subprocess.run([sys.executable, "-c", code.format(extra)], capture_output=True, text=True, check=True).stdout
        for extra in ("", "import torch; ")
    }
    assert keys == {machine_key(environment()) + "\n"}


def test_class_is_readable_hardware_without_software():
    assert machine_class(BASE) == "CPU A · 8 cores (16 threads) · about 32 GiB · G 80 GiB 350 W"
    assert machine_class(changed(packages={"torch": "9"}, python="3.14.0")) == machine_class(BASE)
    assert "limited to 2" in machine_class(changed(limits={"cpu_cores": 2.0}))


def test_key_and_class_accept_a_record_that_knows_little():
    assert machine_key({}) == machine_key({}) and machine_class({}).startswith("unknown CPU")


def test_difference_is_readable_and_hardware_comes_first():
    other = changed(packages={"torch": "2.14.0", "timm": "1.0"}, cpu={"model": "CPU B", "flags": ["avx2", "amx_bf16"]})
    assert difference(BASE, other) == [
        ("cpu.flags", "avx512f", "amx_bf16"),
        ("cpu.model", "CPU A", "CPU B"),
        ("packages.timm", "not recorded", "1.0"),
        ("packages.torch", "2.13.0+cpu", "2.14.0"),
    ]


def test_difference_names_a_missing_gpu_and_nothing_private():
    rows = difference({**BASE, "private": {"host": "a"}}, {**changed(gpus=[]), "private": {"host": "b"}})
    assert ("gpus[0].name", "G", "not recorded") in rows
    assert not any("private" in name for name, *_ in rows)


def test_how_torch_is_built_is_compared_where_both_sides_know_it():
    with_mkl, without = ({**BASE, "torch": {"mkl": mkl, "cpu_capability": "AVX2"}} for mkl in (True, False))
    assert difference(with_mkl, without) == [("torch.mkl", "True", "False")]
    assert difference(BASE, with_mkl) == difference(with_mkl, BASE) == []


def test_no_difference_between_two_readings_of_this_machine():
    assert difference(environment(), environment()) == []


# --- the host while measuring ----------------------------------------------------------------------------------------


def moment(**changes: object) -> Snapshot:
    values = {
        "clock_s": 100.0,
        "host_busy_s": 1000.0,
        "host_steal_s": 5.0,
        "own_cpu_s": 10.0,
        "pressure_s": 3.0,
        "involuntary_switches": 7,
        "minor_faults": 50,
        "major_faults": 0,
        "throttle_events": 0,
        "load_1min": 0.1,
        "cores": 4,
    }
    return Snapshot(**{**values, **changes})  # type: ignore[arg-type]


def test_own_work_is_no_contamination():
    report = compare(moment(), moment(clock_s=110.0, host_busy_s=1010.1, own_cpu_s=20.0, minor_faults=60))
    assert report.labels == () and report.minor_faults == 10
    assert report.other_cores == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"host_busy_s": 1020.0, "own_cpu_s": 15.0}, "host busy"),
        ({"pressure_s": 4.0}, "pressure stall"),
        ({"host_steal_s": 6.0}, "stolen time"),
        ({"involuntary_switches": 1007}, "involuntary switches"),
        ({"major_faults": 1}, "paging"),
        ({"throttle_events": 2}, "throttled"),
        ({"gpu": {"foreign_processes": 1, "throttle_reasons": 0}}, "foreign GPU process"),
        ({"gpu": {"foreign_processes": 0, "throttle_reasons": 4}}, "GPU throttled"),
    ],
)
def test_each_disturbance_has_its_label(changes, label):
    assert compare(moment(), moment(clock_s=110.0, **changes)).labels == (label,)


def test_the_limits_of_labels_can_be_set():
    busy = moment(clock_s=110.0, host_busy_s=1020.0, own_cpu_s=15.0)
    assert compare(moment(), busy, Limits(busy_cores=2.0)).labels == ()
    assert compare(moment(), moment(clock_s=110.0, pressure_s=3.2), Limits(pressure_share=0.01)).labels == (
        "pressure stall",
    )
    clock = Clockwork(until_s=1e9)
    assert wait_until_quiet(9, read=clock.read, sleep=clock.sleep, limits=Limits(busy_cores=2.0)).quiet


def test_shares_are_of_the_window_and_of_all_cores():
    report = compare(moment(), moment(clock_s=110.0, host_steal_s=7.0, pressure_s=4.0))
    assert report.steal_share == pytest.approx(2 / 40) and report.pressure_share == pytest.approx(0.1)


def test_unreadable_counters_are_none_and_do_not_label():
    blind = {"host_steal_s": None, "pressure_s": None, "throttle_events": None}
    report = compare(moment(**blind), moment(clock_s=101.0, **blind))
    assert report.steal_share is None and report.pressure_share is None and report.labels == ()
    assert json.dumps(report.as_dict())


def test_two_ticks_in_a_short_window_are_not_a_busy_host():
    assert compare(moment(), moment(clock_s=100.05, host_busy_s=1000.02, host_steal_s=5.02)).labels == ()


def test_watch_reports_real_counters_of_this_process():
    with HostWatch() as watch, mmap.mmap(-1, 4096 * 4000) as pages:  # fresh pages, whatever the heap has kept
        pages.madvise(mmap.MADV_NOHUGEPAGE)
        for place in range(0, 4096 * 4000, 4096):
            pages[place] = 1
    assert watch.report is not None and watch.report.seconds > 0
    assert watch.report.minor_faults > 1000


SPIN = "import time\nwhile time.process_time() < {seconds}: pass"


@contextlib.contextmanager
def stranger(seconds):
    """A process that computes and is no descendant: the one that started it has ended."""
    code = (
        "import subprocess as s, sys\n"
        "print(s.Popen([sys.executable, '-c', sys.argv[1]], stdout=s.DEVNULL, stderr=s.DEVNULL).pid)"
    )
    made = subprocess.run([sys.executable, "-c", code, SPIN.format(seconds=seconds)], capture_output=True, check=True)
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(made.stdout)).kill()


def test_watch_sees_another_process_computing():
    with stranger(20), HostWatch() as watch:
        time.sleep(0.7)
    assert watch.report is not None and "host busy" in watch.report.labels


@pytest.mark.parametrize("end", ["running", "ended", "waited for"])
def test_what_the_process_started_is_its_own_work(end):
    """The time of a child counts once, whether it still runs, has ended unnoticed (a zombie), or was waited for."""
    spin = subprocess.Popen([sys.executable, "-c", SPIN.format(seconds=30 if end == "running" else 0.5)])
    child = psutil.Process(spin.pid)
    try:
        before = snapshot()
        while end != "running" and child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.02)
        while end == "running" and child.cpu_times().user < 0.4:
            time.sleep(0.02)
        if end == "waited for":
            spin.wait()
        used = snapshot().own_cpu_s - before.own_cpu_s
    finally:
        spin.kill()
        spin.wait()
    after = snapshot().own_cpu_s - before.own_cpu_s
    assert used >= 0.4 and after == pytest.approx(used, abs=0.1 if end != "running" else 0.5)


class Clockwork:
    """Snapshots on a clock that only sleeping moves, with others computing until `until_s`."""

    def __init__(self, until_s: float):
        self.now, self.until_s = 0.0, until_s

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def read(self, device: str) -> Snapshot:
        return moment(clock_s=self.now, host_busy_s=min(self.now, self.until_s))


def test_waiting_ends_with_the_first_quiet_window():
    clock = Clockwork(until_s=3.5)
    quiet = wait_until_quiet(60, read=clock.read, sleep=clock.sleep)
    assert quiet.quiet and quiet.waited_s == pytest.approx(5.1)  # a short look, then windows of a second


def test_a_quiet_host_is_looked_at_for_a_tenth_of_a_second():
    clock = Clockwork(until_s=0.0)
    quiet = wait_until_quiet(60, read=clock.read, sleep=clock.sleep)
    assert quiet.quiet and quiet.waited_s == pytest.approx(0.1)


def test_waiting_never_outlasts_its_cap_and_says_why():
    clock = Clockwork(until_s=1e9)
    quiet = wait_until_quiet(7.3, read=clock.read, sleep=clock.sleep)
    assert not quiet.quiet and quiet.labels == ("host busy",) and quiet.waited_s == pytest.approx(7.3, abs=0.11)


def test_snapshot_counts_upwards():
    first, second = snapshot(), snapshot()
    assert second.clock_s >= first.clock_s and second.minor_faults >= first.minor_faults
