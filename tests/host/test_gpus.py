"""The board that is asked is the one that CUDA uses; its clocks are kept round by round; nothing is set."""

import os
import re
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.host import gpu_clocks, gpus, visible_gpus
from bench.host.gpu_clocks import ClockSamples, reason_names, summary, throttled
from bench.host.identity import machine_key
from bench.host.visible_gpus import locate, others_on, visible
from bench.meters.energy import nvml as energy_nvml
from bench.meters.energy.backend import Unavailable
from bench.plan import plan
from tests.simulated_nvml import Board, Instance, Nvml
from tests.sweeping import HEALTHY, configuration

STRANGER, ANOTHER = 4_000_001, 4_000_002  # above the largest process number of Linux


def two() -> Nvml:
    return Nvml(Board("GPU-aaaa-1"), Board("GPU-bbbb-2"))


def divided() -> Nvml:
    slices = [Instance("MIG-one", pids=(STRANGER,)), Instance("MIG-two")]
    return Nvml(Board("GPU-aaaa-1", divided=True, instances=slices), Board("GPU-bbbb-2"))


@pytest.fixture
def machine(monkeypatch):
    """Puts a simulated NVML in the place of the driver's."""

    def put(lib: Nvml) -> Nvml:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        for module in (gpus, gpu_clocks):
            monkeypatch.setattr(module, "nvml", lib.session)
        return lib

    return put


# --- which board -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "boards"), [
    (None, [0, 1]), ("1,0", [1, 0]), ("1", [1]), ("", []), ("0,7,1", [0]), ("-1,0", []), ("0,0", []),
    ("GPU-bbbb-2", [1]), ("GPU-bb", [1]), ("GPU-cc", []), ("GPU-bb, 0", [1, 0]),
])  # fmt: skip
def test_visible_devices_are_numbered_as_cuda_numbers_them(asked, boards):
    lib = two()
    variables = {} if asked is None else {"CUDA_VISIBLE_DEVICES": asked}
    assert [lib.boards.index(gpu.board) for gpu in visible(lib, variables)] == boards


@pytest.mark.parametrize(
    ("asked", "instance"), [(None, "MIG-one"), ("0", "MIG-one"), ("MIG-two", "MIG-two"), ("1,0", "MIG-one")]
)
def test_of_mig_instances_cuda_sees_one_and_nothing_beside_it(asked, instance):
    found = visible(divided(), {} if asked is None else {"CUDA_VISIBLE_DEVICES": asked})
    assert [gpu.instance.uuid for gpu in found] == [instance]
    assert found[0].board.uuid == "GPU-aaaa-1" and found[0].divided


def test_a_divided_board_without_instances_is_no_device():
    assert [gpu.board.uuid for gpu in visible(Nvml(Board("GPU-a", divided=True), Board("GPU-b")), {})] == ["GPU-b"]


def test_the_uuid_that_cuda_gives_wins_over_the_order_of_boards(monkeypatch):
    monkeypatch.setattr(visible_gpus, "cuda_uuid", lambda index: "bbbb-2")  # CUDA puts the fastest board first
    assert locate(two(), "cuda:0", {}).board.uuid == "GPU-bbbb-2"


@pytest.mark.parametrize("uuid", ["two", "aaaa-1"])  # newer CUDA tells the instance's UUID, older the board's
def test_an_instance_is_found_by_either_uuid(monkeypatch, uuid):
    monkeypatch.setattr(visible_gpus, "cuda_uuid", lambda index: uuid)
    found = locate(divided(), "cuda", {"CUDA_VISIBLE_DEVICES": "MIG-two"})
    assert (found.instance.uuid, found.board.uuid) == ("MIG-two", "GPU-aaaa-1")


def test_boards_that_may_not_be_looked_at_do_not_matter_where_cuda_names_its_own(monkeypatch):
    lib = two()
    monkeypatch.setattr(visible_gpus, "cuda_uuid", lambda index: "bbbb-2")

    def forbidden(index):
        raise lib.NVMLError("Insufficient Permissions")

    assert len(visible(lib, {})) == 2

    lib.nvmlDeviceGetHandleByIndex = forbidden
    assert locate(lib, "cuda", {}).board.uuid == "GPU-bbbb-2"
    monkeypatch.setattr(visible_gpus, "cuda_uuid", lambda index: None)
    monkeypatch.setattr(gpu_clocks, "nvml", lib.session)
    with gpu_clocks.sampling("cuda") as samples:
        samples.take()
    assert samples.as_dict() is None and visible(lib, {}) == []


def test_a_device_that_is_hidden_is_not_there():
    with pytest.raises(LookupError, match=r"cuda:1 is not there: 1 GPU.*CUDA_VISIBLE_DEVICES"):
        locate(two(), "cuda:1", {"CUDA_VISIBLE_DEVICES": "1"})


def test_asking_for_the_uuid_starts_no_cuda():
    import torch

    assert visible_gpus.cuda_uuid(0) is None
    assert not torch.cuda.is_initialized()


def test_a_device_that_cuda_will_not_see_is_refused_before_torch(machine, monkeypatch):
    monkeypatch.setattr(plan, "version", lambda name: "2.13.0+cu130")
    machine(two())
    plan.check_device("cuda:1")
    with pytest.raises(UsageError, match="CUDA sees cuda:0 to cuda:1"):
        plan.check_device("cuda:2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(UsageError, match=r"CUDA sees cuda:0$"):
        plan.check_device("cuda:1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UsageError, match="hides every GPU"):
        plan.check_device("cuda")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(plan, "version", lambda name: "2.13.0+cpu")
    with pytest.raises(UsageError, match=r"clashes with torch 2\.13\.0\+cpu, which is built without CUDA"):
        plan.check_device("cuda")


# --- who else is on it -----------------------------------------------------------------------------------------------


def test_processes_of_other_boards_and_our_own_family_are_not_foreign(machine):
    lib = machine(two())
    lib.boards[0].pids = (os.getpid(), os.getppid())
    lib.boards[1].pids = (STRANGER, ANOTHER, os.getpid())
    assert gpus.gpu_state("cuda:0")["foreign_processes"] == 0
    assert gpus.gpu_state("cuda:1")["foreign_processes"] == 2


def test_a_single_stranger_is_ourselves_only_where_we_run_cuda(monkeypatch):
    gpu = visible(Nvml(Board("GPU-a", pids=(STRANGER,))), {})[0]
    lib = Nvml(gpu.board)
    assert others_on(lib, gpu) == 1
    monkeypatch.setattr(visible_gpus, "runs_cuda", lambda: True)
    assert others_on(lib, gpu) == 0  # a container: NVML gives our number on the host


def test_a_desktop_is_told_and_nobody_waits_for_it(machine, monkeypatch):
    lib = machine(Nvml(Board("GPU-a", drawing=(STRANGER, os.getpid()))))
    (gpu,) = visible(lib, {})
    assert gpus.gpu_state("cuda")["foreign_processes"] == 0 and gpus.is_drawn_on("cuda")
    assert others_on(lib, gpu) == 1  # what draws takes power: energy counts it
    lib.boards[0].pids = (STRANGER, ANOTHER)  # the first one does both and is one process
    assert gpus.gpu_state("cuda")["foreign_processes"] == 2 and others_on(lib, gpu) == 2
    assert not gpus.is_drawn_on("cuda") and not gpus.is_drawn_on("cpu")
    lib.boards[0].pids, lib.boards[0].drawing = (ANOTHER,), (STRANGER,)
    monkeypatch.setattr(visible_gpus, "runs_cuda", lambda: True)
    assert gpus.gpu_state("cuda")["foreign_processes"] == 0 and gpus.is_drawn_on("cuda")


def test_only_processes_of_our_own_instance_count():
    lib = divided()
    first, second = (visible(lib, {"CUDA_VISIBLE_DEVICES": uuid})[0] for uuid in ("MIG-one", "MIG-two"))
    assert (others_on(lib, first), others_on(lib, second)) == (1, 0)


def test_energy_of_an_instance_is_unavailable_because_the_counter_is_the_boards(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-two")
    found = energy_nvml.find("cuda", divided())
    assert isinstance(found, Unavailable) and "MIG" in found.reason and "counter is the board's" in found.reason


def test_energy_is_that_of_the_board_in_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    lib = two()
    lib.boards[0].pids = (STRANGER,)
    found = energy_nvml.find("cuda:0", lib)
    assert isinstance(found, energy_nvml.NvmlCounter) and found.board.handle is lib.boards[1]
    assert found.conditions()["reasons"] == 0 and found.conditions()["power_w"] == 312.5


# --- clocks ----------------------------------------------------------------------------------------------------------


def test_idling_and_chosen_clocks_are_no_throttling_and_every_other_reason_is():
    harmless = {0x1, 0x2}
    for place in range(9):
        bit = 1 << place
        assert throttled({"reasons": [0, bit, None]}) == (bit not in harmless), reason_names(bit)
    assert throttled({"reasons": [1 << 12]}) and reason_names(1 << 12) == ["reason 0x1000"]
    assert reason_names(0x1 | 0x4 | 0x20) == ["idle", "software power cap", "software thermal slowdown"]


def test_every_round_has_its_clocks_and_the_summary_its_label():
    lib = Nvml(Board("GPU-a", sm_mhz=[1980, 1755, 1200], reasons=[0x1, 0x0, 0x4]))
    samples = ClockSamples(lib, lib.boards[0])
    for _ in range(3):
        samples.take()
    raw = samples.as_dict()
    assert (raw["round"], raw["sm_mhz"], raw["memory_mhz"]) == ([0, 1, 2], [1980, 1755, 1200], [2619] * 3)
    assert (raw["power_w"], raw["temperature_c"], raw["reasons"]) == ([312.5] * 3, [None] * 3, [1, 0, 4])
    found = summary(raw)
    assert found["sm_mhz"] == {"median": 1755, "low": 1200, "high": 1980}
    assert found["temperature_c"] is None and found["n"] == 3
    assert found["reasons"] == {"idle": pytest.approx(1 / 3), "software power cap": pytest.approx(1 / 3)}
    assert found["throttled"] and not summary({**raw, "reasons": [1, 0, 2]})["throttled"]


def test_older_drivers_are_asked_by_the_older_name():
    lib = Nvml(Board("GPU-a", reasons=[0x8]), old=True)
    assert gpu_clocks.event_reasons(lib, lib.boards[0]) == 0x8


def test_slow_sensors_cost_no_more_than_their_share():
    now = [0.0]

    def slow():
        now[0] += 0.002  # a board that takes 2 ms per question

    lib = Nvml(Board("GPU-a"), cost=slow)
    samples = ClockSamples(lib, lib.boards[0], clock=lambda: now[0])
    rounds = 1000
    for _ in range(rounds):
        now[0] += 0.005
        samples.take()
    raw = samples.as_dict()
    assert raw["rounds"] == rounds and 60 < len(raw["round"]) < rounds
    allowed = gpu_clocks.COST_S + gpu_clocks.COST_SHARE * now[0]
    assert raw["cost_s"] <= allowed + 0.010  # one sample more than that at most
    assert raw["round"] == sorted(raw["round"]) and raw["round"][-1] > 0.9 * rounds


def test_cpu_and_missing_driver_leave_no_samples(monkeypatch):
    def absent():
        raise RuntimeError("no driver")

    monkeypatch.setattr(gpu_clocks, "nvml", absent)
    for device in ("cpu", "cuda"):
        with gpu_clocks.sampling(device) as samples:
            samples.take()
        assert samples.as_dict() is None and summary(None) is None


def test_throttling_between_rounds_labels_the_invocation():
    from bench.worker.invocation import disturbances

    calm = {"host": {"labels": ["host busy"]}, "gpu": {"reasons": [0, 1]}}
    assert disturbances(calm) == ["host busy"]
    assert disturbances({**calm, "gpu": {"reasons": [0, 0x40]}}) == ["host busy", "GPU throttled"]
    assert disturbances({"host": {"labels": ["GPU throttled"]}, "gpu": {"reasons": [0x40]}}) == ["GPU throttled"]
    assert disturbances({"host": {"labels": []}, "gpu": None}) == []
    assert disturbances(calm, drawn_on=True) == ["host busy", "GPU with a display"]


def test_the_snapshot_keeps_reasons_other_than_idling(machine):
    lib = machine(Nvml(Board("GPU-a", reasons=[0x1 | 0x40])))
    assert gpus.gpu_state("cuda")["throttle_reasons"] == 0x40
    assert lib.asked


# --- the environment and the memory ----------------------------------------------------------------------------------


def test_the_environment_says_what_cuda_calls_each_board(machine, monkeypatch):
    machine(two())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found, driver, why = gpus.read_gpus()
    assert why is None and driver["nvidia"] == "580.95.05"
    assert [gpu["visible_as"] for gpu in found] == [None, "cuda:0"]
    assert [gpu["visible_instance"] for gpu in found] == [None, None]


def test_a_board_that_may_not_be_opened_hides_no_other_board(machine, monkeypatch):
    lib = machine(Nvml(Board("GPU-aaaa-1", locked=True), Board("GPU-bbbb-2"), Board("GPU-bccc-3")))
    found, driver, why = gpus.read_gpus(private=True)
    assert why is None and driver["nvidia"] and [gpu["index"] for gpu in found] == [0, 1, 2]
    assert [gpu["name"] for gpu in found] == [None, "NVIDIA H100", "NVIDIA H100"]
    assert [gpu["uuid"] for gpu in found] == [None, "GPU-bbbb-2", "GPU-bccc-3"]
    assert [gpu["visible_as"] for gpu in found] == [None, "cuda:0", "cuda:1"]
    assert found[0]["unreadable"] == {"board": "Insufficient Permissions"} and found[0].keys() == found[1].keys()
    assert machine_key({"gpus": found}) != machine_key({"gpus": []})
    named = [visible(lib, {"CUDA_VISIBLE_DEVICES": entry}) for entry in ("GPU-bb", "GPU-bc", "GPU-b")]
    assert [[gpu.board.uuid for gpu in each] for each in named] == [["GPU-bbbb-2"], ["GPU-bccc-3"], []]


def test_the_environment_names_the_mig_instance_in_use(machine):
    machine(divided())
    board = gpus.read_gpus()[0][0]
    assert board["mig"] and len(board["mig_devices"]) == 2
    assert (board["visible_as"], board["visible_instance"]) == ("cuda:0", "NVIDIA H100 MIG 1g.10gb")


def test_machines_are_told_apart_by_what_cuda_sees_and_not_by_which_of_equal_boards_it_is():
    def key(*gpus):
        return machine_key(
            {"gpus": [{"name": name, "visible_as": seen, "visible_instance": part} for name, seen, part in gpus]}
        )

    first, second = ("H100", "cuda:0", None), ("H100", None, None)
    assert key(first, second) == key(second, first)
    assert key(first, ("A100", None, None)) != key(second, ("A100", "cuda:0", None))
    assert key(("H100", "cuda:0", "1g.10gb")) != key(("H100", "cuda:0", "3g.40gb"))
    old = machine_key({"gpus": [{"name": "H100"}]})  # a record from before that was known
    assert old == key(first)


def test_a_group_is_split_by_what_is_free_on_the_device(machine, monkeypatch, tmp_path):
    from bench.config import catalogue
    from bench.sweep.memory import cases_that_fit, expected_bytes, room

    lib = machine(Nvml(Board("GPU-a", free=10_000)))
    config = configuration(tmp_path, [HEALTHY], ["none", "tests.faults.methods:same", "tests.faults.methods:narrow"])
    made = plan.make(config, catalogue.load())
    on_gpu = config.model_copy(update={"device": config.device.model_copy(update={"name": "cuda"})})
    probe = {"readings": [{"metric": "peak_memory_bytes", "value": 1000.0}]}
    sizes = dict.fromkeys((case.key for case in made.cases), expected_bytes(probe))

    def parts():
        return [len(part) for part in cases_that_fit(made.cases, sizes, made.groups[0].baseline.key, room(on_gpu))]

    assert parts() == [3]  # 80 % of 10 kB hold the twin, its baseline and three of 1.5 kB
    lib.boards[0].free = 6_000
    assert parts() == [1, 1, 1]


def test_no_line_of_the_instrument_sets_anything_on_a_card():
    sources = [path for room in ("bench", "suites", "reports", "perf") for path in Path(room).rglob("*.py")]
    found = [str(path) for path in sources if re.search(r"nvml\w*(Set|Reset|Clear)[A-Z]|nvidia-smi", path.read_text())]
    assert sources and found == []
