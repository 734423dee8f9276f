"""A GPU's share of a machine's processors: near it, whole cores, equal parts, no processor in two shares."""

from itertools import combinations

import pytest

from bench.host import topology
from bench.host.slots import label_of, slots
from bench.host.topology import as_list, cores, cpu_list, share
from bench.host.visible_gpus import Gpu
from tests.simulated_nvml import Board, Instance, Nvml


def machine(tmp_path, near, threads=2, cpus=16):
    """A simulated `/sys`: processors with their siblings half the machine away, and what is near each address."""
    for cpu in range(cpus):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        half = cpus // threads
        siblings = ",".join(str(cpu % half + half * i) for i in range(threads))
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    for address, listed in near.items():
        folder = tmp_path / "sys/bus/pci/devices" / address
        folder.mkdir(parents=True)
        (folder / "local_cpulist").write_text(listed + "\n")
    return tmp_path


def shares(lib, root, allowed=range(16)):
    return {topology.identity(lib, gpu): share(lib, gpu, allowed, root) for gpu in topology.devices(lib)}


def test_boards_of_two_sockets_share_the_cores_of_their_own_side_and_no_processor_twice(tmp_path):
    sides = {
        "0000:3b:00.0": "0-3,8-11",
        "0000:5e:00.0": "0-3,8-11",
        "0000:af:00.0": "4-7,12-15",
        "0000:d8:00.0": "4-7,12-15",
    }
    root = machine(tmp_path, sides)
    buses = [f"0000{address.upper()}" for address in sides]  # NVML's own spelling
    lib = Nvml(*(Board(f"GPU-{i}", bus=bus) for i, bus in enumerate(buses)))
    found = shares(lib, root)
    assert {name: as_list(one.cpus) for name, one in found.items()} == {
        "GPU-0": "0-1,8-9", "GPU-1": "2-3,10-11", "GPU-2": "4-5,12-13", "GPU-3": "6-7,14-15",
    }  # fmt: skip
    assert all(one.of == 4 and not one.reason for one in found.values())
    assert all(not set(a.cpus) & set(b.cpus) for a, b in combinations(found.values(), 2))


def test_shares_are_equal_all_over_the_machine_so_that_its_slots_are_one_kind(tmp_path):
    root = machine(tmp_path, {"0000:01:00.0": "0-3,8-11", "0000:02:00.0": "0-3,8-11", "0000:03:00.0": "4-7,12-15"})
    lib = Nvml(*(Board(f"GPU-{i}", bus=f"00000000:0{i + 1}:00.0") for i in range(3)))
    assert {len(one.cpus) for one in shares(lib, root).values()} == {4}  # the lone board gets two cores as well


def test_instances_of_a_divided_board_count_as_gpus_beside_whole_boards(tmp_path):
    root = machine(tmp_path, {"0000:01:00.0": "0-15", "0000:02:00.0": "0-15"})
    board = Board("GPU-a", divided=True, instances=[Instance("MIG-1"), Instance("MIG-2")], bus="00000000:01:00.0")
    lib = Nvml(board, Board("GPU-b", bus="00000000:02:00.0"))
    found = shares(lib, root)
    assert {name: as_list(one.cpus) for name, one in found.items()} == {
        "MIG-1": "0-1,8-9", "MIG-2": "2-3,10-11", "GPU-b": "4-5,12-13",
    }  # fmt: skip


@pytest.mark.parametrize("near", [{}, {"0000:01:00.0": "0-7"}, {"0000:01:00.0": "0-7", "0000:02:00.0": "4-15"}])
def test_where_the_kernel_does_not_part_the_machine_all_its_cores_are_shared_out_and_that_is_said(tmp_path, near):
    root = machine(tmp_path, near, threads=1)
    lib = Nvml(Board("GPU-a", bus="00000000:01:00.0"), Board("GPU-b", bus="00000000:02:00.0"))
    found = shares(lib, root)
    assert [as_list(one.cpus) for one in found.values()] == ["0-7", "8-15"]
    assert all("does not say" in one.reason for one in found.values())


def test_processors_that_a_container_took_away_are_nobodys(tmp_path):
    root = machine(tmp_path, {"0000:01:00.0": "0-7", "0000:02:00.0": "8-15"}, threads=1)
    lib = Nvml(Board("GPU-a", bus="00000000:01:00.0"), Board("GPU-b", bus="00000000:02:00.0"))
    found = shares(lib, root, allowed=[2, 3, 9])
    assert {name: one.cpus for name, one in found.items()} == {"GPU-a": (2,), "GPU-b": (9,)}
    few = shares(lib, root, allowed=[2])
    assert all(one.cpus == () and "1 cores cannot be shared out among 2 GPUs" in one.reason for one in few.values())
    strange = share(lib, Gpu(Board("GPU-z")), [0], root)
    assert strange.cpus == () and "does not list" in strange.reason


def test_one_gpu_has_all_that_is_near_it_and_a_board_of_another_tenant_is_left_out(tmp_path):
    root = machine(tmp_path, {"0000:01:00.0": "0-7", "0000:02:00.0": "8-15"}, threads=1)
    lib = Nvml(Board("GPU-a", bus="00000000:01:00.0"), Board("GPU-b", bus="00000000:02:00.0", locked=True))
    assert {name: as_list(one.cpus) for name, one in shares(lib, root).items()} == {"GPU-a": "0-7"}


@pytest.mark.parametrize(
    ("text", "numbers"), [("0-3,8", [0, 1, 2, 3, 8]), ("5", [5]), ("", []), ("a-b", []), ("1,", [])]
)
def test_lists_of_the_kernel_are_read_and_written(text, numbers):
    assert cpu_list(text) == numbers
    assert cpu_list(as_list(numbers)) == numbers


def test_without_siblings_every_processor_is_a_core(tmp_path):
    assert cores([3, 1], tmp_path) == [(1,), (3,)]


def test_slots_have_labels_that_a_pool_takes(tmp_path):
    lib = Nvml(
        Board("GPU-a", name="NVIDIA A100-SXM4-40GB"), Board("GPU-b", divided=True, instances=[Instance("MIG-1")])
    )
    found = slots(lib, range(4), tmp_path)
    assert [(one.label, one.uuid, one.share.cpus) for one in found] == [
        ("a100_sxm4_40gb", "GPU-a", (0, 1)), ("h100_1g_10gb", "MIG-1", (2, 3)),
    ]  # fmt: skip
    assert label_of("Tesla V100-SXM2-16GB") == "v100_sxm2_16gb" and label_of("NVIDIA 3090") == "gpu_3090"
