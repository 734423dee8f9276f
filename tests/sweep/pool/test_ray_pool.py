"""A real Ray cluster on this host: groups on several nodes, one at a time on each, a node that dies."""

import os
import threading
import time

import pytest

from bench.errors import UsageError
from bench.store.journal import Journal
from bench.store.records import Store
from bench.sweep.pool import Ended
from bench.sweep.pool.ray_pool import RayPool
from bench.sweep.pool.work import work_for
from tests.sweeping import configuration, sweep

ray = pytest.importorskip("ray")
MODELS = [f"tests.faults.models:healthy(width={width})" for width in (4, 5, 6, 7)]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A head that measures nothing, and nodes with a slot each."""
    monkeypatch.setenv("RAY_DEDUP_LOGS", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.nodes_with_slots = []

    def add(name, **more):
        variables = {"WATERLINE_NODE": name, "TMPDIR": str(tmp_path)}
        made.nodes_with_slots.append(made.add_node(num_cpus=1, resources={"bench_slot": 1, **more}, env_vars=variables))

    made.add = add
    yield made
    ray.shutdown()
    made.shutdown()


def pooled(folder, cluster, models=MODELS, **more):
    executor = {"name": "ray", "address": cluster.address, "inner": "tests.workers", **more}
    return configuration(folder, models, executor=executor)


def overlaps(results):
    """Pairs of pieces that were measured at one moment on one node."""
    spans = [
        (item["node"], item["began"], item["ended"]) for item in journal(results).events("measured_on") if item["began"]
    ]
    pairs = [(a, b) for i, a in enumerate(spans) for b in spans[i + 1 :] if a[0] == b[0]]
    return [pair for pair in pairs if pair[0][1] < pair[1][2] and pair[1][1] < pair[0][2]]


def journal(results):
    return Journal(Store(results).journal).read()


@pytest.mark.slow
def test_groups_run_on_all_nodes_never_two_on_one_and_a_second_run_has_nothing_to_do(cluster, tmp_path):
    cluster.add("one")
    cluster.add("two")
    config = pooled(tmp_path / "pool", cluster, MODELS[:2])
    done = sweep(config)
    assert not done.problems and len(done.records) == done.measured == 2
    assert {record["status"] for record in done.records} <= {"ok", "contaminated"}
    results = config.paths.results
    assert len({item["node"] for item in journal(results).events("measured_on")}) == 2
    assert overlaps(results) == []
    again = sweep(config)
    assert again.measured == 0 and len(again.records) == 2


@pytest.mark.slow
def test_a_node_that_dies_costs_nothing_but_time_and_the_records_are_those_of_a_local_sweep(cluster, tmp_path):
    cluster.add("one")
    cluster.add("two")
    config = pooled(tmp_path / "pool", cluster)

    def kill():
        while not list(Store(config.paths.results).records.glob("*.json")):
            time.sleep(0.1)
        cluster.remove_node(cluster.nodes_with_slots[0], allow_graceful=False)
        cluster.add("three")

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    done = sweep(config)
    killer.join(10)
    assert not done.problems and len(done.records) == 4 and overlaps(config.paths.results) == []
    local = sweep(configuration(tmp_path / "local", MODELS))
    counted = lambda record: {  # noqa: E731
        item["metric"]: item["value"] for item in record["readings"] if item["provenance"] == "counted"
    }
    ours, theirs = ({item["case_key"]: counted(item) for item in each.records} for each in (done, local))
    assert ours == theirs


@pytest.mark.slow
def test_machines_of_another_label_are_left_alone_and_their_rows_are_no_rows_of_ours(cluster, tmp_path):
    cluster.add("one", large=1)
    cluster.add("two", small=1)
    config = pooled(tmp_path / "pool", cluster, label="large")
    assert len(sweep(config).records) == 4
    assert {item["node"] for item in journal(config.paths.results).events("measured_on")} == {"one"}
    other = pooled(tmp_path / "pool", cluster, label="small")
    from bench.sweep.pool.arrivals import Arrivals

    store = Store(other.paths.results)
    assert Arrivals(store, Journal(store.journal), "small", print).machines() == ()


def told_by_a_task(text):
    """What the task of a piece of work sees of GPUs, in the place of its errand; slow, so that both run at once."""
    began = time.time()
    time.sleep(2.0)
    seen = {"message": os.environ.get("CUDA_VISIBLE_DEVICES", "unset"), "began": began, "ended": time.time()}
    yield {}, {"status": "done", "node": text[:0], **seen}


@pytest.mark.slow
def test_each_slot_of_a_machine_has_a_gpu_or_instance_of_its_own_and_both_run_at_once(cluster, tmp_path):
    visible = {"CUDA_VISIBLE_DEVICES": "GPU-aaaa,MIG-bbbb"}
    cluster.add_node(num_cpus=1, num_gpus=2, resources={"bench_slot": 2, "h100": 2}, env_vars=visible)
    config = pooled(tmp_path, cluster, gpus=1, label="h100")
    with RayPool(config.executor) as pool:
        pool._task = ray.remote(told_by_a_task)
        while pool.slots() < 2:
            time.sleep(0.1)
        for label in ("one", "two", "three"):
            pool.submit(work_for(config, label, [], 1.0, [label]))
        ended = []
        while len(ended) < 3:
            news = pool.news()
            ended += [news] if isinstance(news, Ended) else []
    assert [one.status for one in ended] == ["done"] * 3
    assert {one.message for one in ended} == {"GPU-aaaa", "MIG-bbbb"}
    first, second, third = sorted(ended, key=lambda one: one.began)
    assert second.began < first.ended and third.began >= min(first.ended, second.ended) - 0.1


def test_an_address_where_no_cluster_answers_is_an_error_with_the_remedy(tmp_path):
    config = configuration(
        tmp_path, MODELS[:1], executor={"name": "ray", "address": "127.0.0.1:1", "inner": "tests.workers"}
    )
    with pytest.raises(UsageError, match="no Ray cluster answers there"):
        sweep(config)
