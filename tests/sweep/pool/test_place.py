"""What a piece of work has to itself: a GPU each, the CPU alone, instances beside each other, never two at once."""

import os
import threading
import time

import pytest

from bench.app.jobs import slots as job
from bench.errors import ResultsError, UsageError
from bench.host import hostwatch
from bench.sweep.pool import place as places
from bench.sweep.pool.place import Place, held, place_for, settle
from bench.sweep.pool.ray_pool import RayPool, open_pool
from bench.sweep.pool.slurm_pool import SlurmPool
from bench.sweep.pool.slurm_pool import open_pool as open_slurm
from bench.sweep.pool.work import work_for
from tests.simulated_nvml import Board, Instance, Nvml
from tests.sweeping import QUICK, configuration


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Locks of the test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv(places.NODE, "test")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.fixture
def gpus(monkeypatch):
    """Puts simulated boards in the place of the machine's; the process may use processors 0 to 7."""

    def put(*boards):
        monkeypatch.setattr(places, "nvml", Nvml(*boards).session)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))

    return put


def on(device, folder, **more):
    return configuration(folder, ["tests.faults.models:healthy"], device={"name": device}, **more)


def seen(monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


def at_once(*wanted):
    """The most places that were held at one moment when each was wanted at the same time."""
    inside, most, guard = [], [0], threading.Lock()

    def hold(place):
        with held(place):
            with guard:
                inside.append(place)
                most[0] = max(most[0], len(inside))
            time.sleep(0.05)
            with guard:
                inside.remove(place)

    threads = [threading.Thread(target=hold, args=(place,)) for place in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return most[0]


def test_each_gpu_is_a_place_and_the_cpu_is_the_whole_machine(folder, gpus, monkeypatch):
    gpus(Board("GPU-a"), Board("GPU-b", name="NVIDIA L4"))
    seen(monkeypatch, "0")
    first = place_for(on("cuda", folder))
    seen(monkeypatch, "GPU-b")
    second, cpu = place_for(on("cuda", folder)), place_for(on("cpu", folder))
    assert at_once(first, second) == 2
    assert at_once(first, first) == at_once(first, cpu) == at_once(cpu, cpu) == 1
    assert not set(first.cpus) & set(second.cpus) and len(first.cpus) == len(second.cpus) == 4
    assert second.title.startswith("GPU 1 (NVIDIA L4), processors 4-7")


def test_a_board_is_one_place_however_it_is_named(folder, gpus, monkeypatch):
    gpus(Board("GPU-aaaa"), Board("GPU-bbbb"))
    found = set()
    for visible in ("1", "GPU-bbbb", "GPU-bb", "1,0"):
        seen(monkeypatch, visible)
        found.add(place_for(on("cuda", folder)).locks)
    assert len(found) == 1


def test_instances_of_a_board_measure_beside_each_other_but_never_beside_the_whole_board(folder, gpus, monkeypatch):
    gpus(Board("GPU-a", divided=True, instances=[Instance("MIG-1"), Instance("MIG-2")]))
    made = []
    for visible in ("MIG-1", "MIG-2"):
        seen(monkeypatch, visible)
        made.append(place_for(on("cuda", folder)))
    whole = Place((("machine", False), ("gpu GPU-a", True)))
    assert at_once(*made) == 2 and at_once(made[0], made[0]) == at_once(made[0], whole) == 1


def test_who_reads_a_wall_meter_has_the_machine_to_himself(folder, gpus, monkeypatch):
    gpus(Board("GPU-a"), Board("GPU-b"))
    (folder / "meter.csv").write_text("time,power_w\n0,1\n1,1\n")
    meter = {**QUICK, "energy": {"backend": "external", "csv": str(folder / "meter.csv")}}
    seen(monkeypatch, "0")
    metered = place_for(on("cuda", folder, protocol=meter))
    seen(monkeypatch, "1")
    assert at_once(metered, place_for(on("cuda", folder))) == 1


def test_without_nvml_the_visible_devices_are_the_place(folder, monkeypatch):
    def missing():
        raise RuntimeError("NVML is not available: no driver")

    monkeypatch.setattr(places, "nvml", missing)
    seen(monkeypatch, "3")
    found = place_for(on("cuda", folder))
    assert ("gpu 3", True) in found.locks and found.cpus == () and "no driver" in found.title


def test_cores_can_be_left_alone_and_slurms_own_share_is_not_shared_again(folder, gpus, monkeypatch):
    gpus(Board("GPU-a"), Board("GPU-b"))
    seen(monkeypatch, "0")
    for executor in ({"affinity": "none"}, {"exclusive": False}):
        assert place_for(on("cuda", folder, executor=executor)).cpus == ()


def test_a_settled_process_and_its_watch_see_their_own_processors_alone(monkeypatch):
    own = sorted(os.sched_getaffinity(0))[:1]
    chosen = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: chosen.append(tuple(cpus)))
    monkeypatch.delenv(places.ORDER, raising=False)
    monkeypatch.setenv(hostwatch.CORES, "")
    settle(Place((), tuple(own)))
    assert chosen == [tuple(own)] and os.environ[places.ORDER] == "PCI_BUS_ID"
    busy = [1000.0 if cpu in own else 5.0 for cpu in range(max(own) + 3)]

    def times(percpu=False):
        each = [type(real)(*(value if name == "user" else 0.0 for name in real._fields)) for value in busy]
        return each if percpu else pytest.fail("the whole machine's times are others' as well")

    real = hostwatch.psutil.cpu_times()
    monkeypatch.setattr(hostwatch.psutil, "cpu_times", times)
    found = hostwatch.snapshot()
    assert (found.host_busy_s, found.cores, found.pressure_s) == (1000.0, 1, None)
    monkeypatch.delenv(places.ORDER)


def test_a_lock_that_is_a_link_is_not_followed(folder):
    (folder / "target").write_text("")
    with held(Place((("machine", True),))):
        pass
    lock = folder / "waterline-locks-test" / "machine.lock"
    lock.unlink()
    lock.symlink_to(folder / "target")
    with pytest.raises(ResultsError, match="is a link"), held(Place((("machine", True),))):
        pass


def test_ray_offers_no_more_slots_than_it_has_gpus_of_the_label(folder):
    class Cluster:
        @staticmethod
        def cluster_resources():
            return {"bench_slot": 8.0, "h100": 6.0, "GPU": 7.0}

    for gpus, label, slots in ((1, "h100", 6), (2, None, 3), (0, None, 8), (1, "l4", 0)):
        pool = RayPool(on("cuda", folder, executor={"gpus": gpus, "label": label}).executor)
        pool._ray = Cluster
        assert pool.slots() == slots


def test_gpus_that_nobody_asked_for_and_shared_nodes_for_cpus_are_errors_with_the_remedy(folder):
    with pytest.raises(UsageError, match=r"clashes with executor.gpus=0.*say executor.gpus=1"):
        open_pool(on("cuda", folder))
    with pytest.raises(UsageError, match="is for jobs with a GPU of their own"):
        open_slurm(on("cpu", folder, executor={"exclusive": False, "cluster": "local"}))


def test_jobs_that_share_a_node_get_cores_near_their_gpu_by_slurm(folder):
    config = on("cuda", folder, executor={"exclusive": False, "cluster": "local", "gpus": 1})
    found = SlurmPool(config.executor, folder).parameters([work_for(config, "x", [], 1.0, [])])
    assert found["slurm_additional_parameters"] == {"gres_flags": "enforce-binding"}
    assert "slurm_exclusive" not in found and found["gpus_per_node"] == 1


def test_the_threads_of_a_sweep_are_the_drivers_everywhere(folder):
    config = configuration(folder, ["tests.faults.models:healthy"])
    assert isinstance(work_for(config, "x", [], 1.0, []).config["device"]["threads"], int)


def test_job_slots_prints_a_node_for_each_class_of_boards(folder, monkeypatch, capsys):
    boards = [Board("GPU-a"), Board("GPU-b"), Board("GPU-c", name="NVIDIA L4")]
    monkeypatch.setattr(job, "nvml", Nvml(*boards).session)
    assert job.run(on("cpu", folder, executor={"address": "lab1:6379"})) == 0
    told = capsys.readouterr().out
    assert (
        "CUDA_VISIBLE_DEVICES=GPU-a,GPU-b ray start --address=lab1:6379 --num-gpus=2 "
        """--resources='{"bench_slot": 2, "h100": 2}'""" in told
    )
    assert "CUDA_VISIBLE_DEVICES=GPU-c ray start" in told and "executor.gpus=1 executor.label=l4" in told


def test_job_slots_on_a_machine_without_gpus_says_why_and_offers_the_cpu(folder, monkeypatch, capsys):
    def missing():
        raise RuntimeError("NVML is not available: no driver")

    monkeypatch.setattr(job, "nvml", missing)
    job.run(on("cpu", folder, executor={"label": "small"}))
    told = capsys.readouterr().out
    assert "no GPU: NVML is not available" in told and """--resources='{"bench_slot": 1, "small": 1}'""" in told
