"""The written protocol says what the code does: every parameter, its values, and where it has its effect."""

import html
import json
import os
from pathlib import Path

import psutil
import pytest
import yaml
from pydantic import ValidationError

from bench import api
from bench.config.protocol import SINCE_2, Latency, Protocol, protocol_key
from bench.config.schema import Device
from bench.errors import UsageError
from bench.host import environment as machine
from bench.host.hostwatch import Limits
from bench.meters import latency
from bench.plan import estimate, plan
from bench.plan.case import Case
from bench.statistics import EQUIVALENCE, MARGIN
from reports.methods import card, summary
from tests import synthetic
from tests.sweeping import HEALTHY, QUICK, configuration

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("standard", "quick", "publish")
OF_VERSION_2 = tuple(f"v2/{name}" for name in NAMES)
#: What every row holds that version 1 measured: these never change.
HASHES_OF_VERSION_1 = {
    "glance": "59a0416a8f71ed1e",
    "quick": "3c47da4fe0de5543",
    "standard": "e14141a7e3f1940b",
    "publish": "c7f79d13a8bdd065",
    "counts": "cd8cadfdeda0112e",
}


def documented(page, names):
    """Values by dotted parameter and protocol, from the tables of a page."""
    found, head = {}, []
    for line in (ROOT / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[1].startswith("`protocol."):
            head = [cells[1].strip("`").removeprefix("protocol.")]
        elif line.startswith("| ") and head and cells[1].startswith("`"):
            values = [cells[2], cells[3] or cells[2], cells[4] or cells[2]]
            found[head[0] + cells[1].strip("`")] = dict(zip(names, map(read, values), strict=True))
    return found


def read(text):
    if text.endswith("%"):
        return pytest.approx(float(text.rstrip("% ")) / 100)
    return {"none": None, "true": True}.get(text, float(text) if text[0].isdigit() else text)


def flat(protocol):
    return {
        f"{part}.{name}": value
        for part, values in protocol.model_dump().items()
        if isinstance(values, dict)
        for name, value in values.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_written_tables_are_the_protocols(name):
    told = {parameter: values[name] for parameter, values in documented("docs/protocol.md", NAMES).items()}
    parameters = api.protocol_named(name).parameters
    known = {f"{part}.{key}": value for part, values in parameters.items() for key, value in values.items()}
    assert told == {**known, "energy.csv": None}


@pytest.mark.parametrize("name", OF_VERSION_2)
def test_the_written_tables_of_version_2_are_its_protocols(name):
    told = {key: values[name] for key, values in documented("docs/protocol_v2.md", OF_VERSION_2).items()}
    assert told == flat(api.protocol_named(name))


@pytest.mark.parametrize("name", HASHES_OF_VERSION_1)
def test_what_version_1_measured_is_still_its_protocols(name):
    protocol = api.protocol_named(name)
    assert (protocol.version, protocol.hash) == (1, HASHES_OF_VERSION_1[name])
    assert Protocol(**{**protocol.as_record()["parameters"], "version": 1, "name": name}).hash == protocol.hash
    assert protocol_key({"protocol": protocol.as_record()}) == protocol.hash


def test_version_1_knows_nothing_of_what_came_later_and_defaults_are_the_standards():
    assert Protocol() == api.protocol_named("standard") and Protocol(version=2) == api.protocol_named("v2/standard")
    with pytest.raises(ValidationError, match=r"version 1 of the protocol knows no latency\.twin_control=True"):
        Protocol(version=1, latency={"twin_control": True})
    with pytest.raises(ValidationError, match="fewest_samples=None clashes with most_samples=400"):
        Protocol(version=2, latency={"fewest_samples": None})
    with pytest.raises(UsageError, match='protocol "v2/quik" does not exist'):
        api.protocol_named("v2/quik")


def test_every_value_of_the_standard_protocol_stands_in_its_file():
    later = {f"{part}.{name}" for part, names in SINCE_2.items() for name in names}
    for file, known in (("standard", set(flat(Protocol())) - later), ("v2/standard", set(flat(Protocol())))):
        written = yaml.safe_load((ROOT / f"conf/protocol/{file}.yaml").read_text())
        assert {f"{part}.{name}" for part in ("latency", "counting", "energy") for name in written[part]} == known


def test_constants_beside_the_protocol_are_its_defaults():
    standard = Latency()
    assert (1 + standard.equivalence, standard.margin) == (pytest.approx(EQUIVALENCE), MARGIN)
    assert {name: getattr(standard, name) for name in Limits.__dataclass_fields__} == vars(Limits())


def test_a_margin_beyond_the_equivalence_is_refused(tmp_path):
    clash = {**QUICK, "latency": {**QUICK["latency"], "margin": 0.06}}
    with pytest.raises(UsageError, match=r"equivalence=0.05 clashes with margin=0.06"):
        configuration(tmp_path, [HEALTHY], protocol=clash)


# ------------------------------------------------------------------------------------------------ warm-up


class World:
    """A clock that only a step moves."""

    def __init__(self, *durations_ms):
        self.now, self.durations = 0, list(durations_ms)

    def step(self):
        self.now += int(1e6 * (self.durations.pop(0) if len(self.durations) > 1 else self.durations[0]))


def warmed(*durations_ms, **rules):
    world = World(*durations_ms)
    rules = {"iterations": 10, "seconds": 1.0, "cap_s": 30.0, "variation": 0.02, **rules}
    return latency.warm_up(latency.Runner("a", world.step), clock=lambda: world.now, **rules)


def test_an_unsteady_warm_up_lasts_twice_its_seconds():
    done = warmed(*[100.0, 150.0] * 200)
    assert not done.steady and 2.0 <= done.seconds <= 2.2 and done.variation == pytest.approx(0.2)


def test_a_warm_up_ends_at_its_cap_however_few_iterations_that_were():
    done = warmed(12_000.0)
    assert (done.iterations, done.seconds, done.steady) == (3, 36.0, False)


def test_ten_iterations_are_taken_of_a_case_slower_than_its_seconds():
    assert (warmed(2000.0).iterations, warmed(2000.0).steady) == (10, True)


# ------------------------------------------------------------------------------------------------ preemption


@pytest.mark.parametrize(
    ("switched", "computed_ms", "loss", "preempted"),
    [
        (1, 99.0, 0.02, False),  # a thread of the kernel took one millisecond of a hundred
        (1, 97.0, 0.02, True),
        (1, 97.0, 0.05, False),
        (0, 50.0, 0.02, False),  # it waited of its own accord
        (1, 100.1, None, True),  # several threads, or a device: every switch counts
        (0, 50.0, None, False),
    ],
)
def test_a_preemption_counts_if_it_cost_its_share_of_the_sample(monkeypatch, switched, computed_ms, loss, preempted):
    usage, spent = iter([(7, 0), (7 + switched, 0)]), iter([0, int(computed_ms * 1e6)])
    monkeypatch.setattr(latency, "resource_usage", lambda: next(usage))
    world, into = World(100.0), latency.Samples(1)
    latency.take_sample(latency.Runner("a", world.step), into, lambda: world.now, loss, processor=lambda: next(spent))
    assert into.preempted == [preempted] and into.cpu_ms == [pytest.approx(computed_ms)]


def test_a_forecast_warms_a_gpu_up_for_as_long_as_the_protocol_does():
    def seconds(device, version=1, **latency):
        case = Case(suite="s", model="m", device=device)
        return estimate.group_seconds(
            plan.Group((case,)),
            {case.key: [1.0]},
            Protocol(version=version, latency={"warmup_s": 1, "warmup_s_gpu": 3, **latency}),
        )

    processes, runners = Protocol().latency.invocations, 2
    assert seconds("cuda", warmup_s_gpu=13) - seconds("cuda") == pytest.approx(10 * processes * runners)
    assert seconds("cpu", warmup_s=11) - seconds("cpu") == pytest.approx(10 * processes * runners)
    assert seconds("cpu", 2, warmup_s=11) - seconds("cpu", 2) == pytest.approx(10 * runners)  # of the first process
    assert seconds("cuda", warmup_s=2) == seconds("cuda")
    assert seconds("cpu", warmup_s_gpu=13) == seconds("cpu") < seconds("cuda")


def test_blocks_share_the_processors_time(monkeypatch):
    usage, spent = iter([(0, 0), (1, 0)]), iter([0, 180_000_000])
    monkeypatch.setattr(latency, "resource_usage", lambda: next(usage))
    world, into = World(10.0), latency.Samples(20)
    latency.take_sample(latency.Runner("a", world.step), into, lambda: world.now, 0.02, processor=lambda: next(spent))
    assert into.preempted == [True] and into.cpu_ms == [pytest.approx(9.0)]


# ------------------------------------------------------------------------------------------------ threads


@pytest.mark.parametrize(
    ("physical", "usable", "quota", "threads"),
    [(2, 4, None, 1), (4, 8, None, 1), (8, 16, None, 8), (64, 128, 2.0, 1), (64, 12, None, 12), (64, 128, 6.5, 6)],
)
def test_threads_follow_the_cores_that_are_ours(monkeypatch, physical, usable, quota, threads, tmp_path):
    """Where the kernel does not tell which processors share a core."""
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: physical)
    monkeypatch.setattr(machine, "usable_cores", lambda: usable)
    monkeypatch.setattr(machine, "cgroup_limits", lambda: {"cpu_cores": quota})
    monkeypatch.setattr(plan, "cores_behind_affinity", lambda: None)
    assert plan.threads(configuration(tmp_path, [HEALTHY])) == threads
    asked = configuration(tmp_path, [HEALTHY], device=Device(threads=3).model_dump())
    assert plan.threads(asked) == 3


@pytest.mark.parametrize(
    ("pinned", "quota", "cores"),
    [(range(16), None, 16), (range(32), None, 16), ([0, 16, 1, 17, 2, 18, 3, 19, 4, 20], None, 5), (range(32), 6.5, 6)],
)
def test_hyper_threads_of_one_core_count_once(monkeypatch, pinned, quota, cores, tmp_path):
    """Processors n and n + 16 are one core of a host of 16."""
    for number in range(32):
        folder = tmp_path / f"cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "core_cpus_list").write_text(f"{number % 16},{number % 16 + 16}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(pinned), raising=False)
    assert plan.cores_behind_affinity(tmp_path) == len({number % 16 for number in pinned})
    assert plan.cores_behind_affinity(tmp_path / "hidden") is None
    told = plan.cores_behind_affinity(tmp_path)
    monkeypatch.setattr(plan, "cores_behind_affinity", lambda: told)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 16)
    monkeypatch.setattr(machine, "cgroup_limits", lambda: {"cpu_cores": quota})
    assert plan.own_cores() == cores


# ------------------------------------------------------------------------------------------------ the report's page


def told(protocol, **changes):
    """The page's prose about a record measured under a protocol."""
    record = synthetic.record(**changes)
    record["protocol"] = protocol.as_record()
    return " ".join([summary(record), *card([record]).paragraphs])


@pytest.mark.parametrize("name", [*NAMES, *OF_VERSION_2])
def test_how_it_was_measured_says_what_the_protocol_says(name):
    protocol = api.protocol_named(name)
    own, words = protocol.latency, told(protocol)
    for said in (
        f"{own.warmup_iterations} warm-up iterations and {own.warmup_s:g} s",
        f"up to {own.samples} samples",
        f"in the first process and in the others as many as its scatter asked for, {own.fewest_samples} to"
        if own.most_samples
        else "per process",
        f"at least {own.invocations} fresh processes",
        f"at most {own.max_invocations}",
        f"{100 * own.ratio_half_width:g} % for ratios",
        f"{100 * own.absolute_half_width:g} % for times" if own.absolute_half_width else "% for ratios, and then",
        f"more than {100 * own.preempted_share:g} %",
        f"up to {own.quiet_wait_s:g} s for a quiet host",
        f"{own.throughput_windows} windows of at least {own.throughput_window_s:g} s",
        "paired by process, to the baseline and its twin together" if own.twin_control else "paired by process. No",
        "medians over rounds of a round's ratio, paired" if own.by_rounds else "ratios of medians paired",
        protocol.hash,
    ):
        assert said in words, said


def test_the_page_shows_every_parameter_and_the_hash(tmp_path):
    from reports.site import build

    protocol, record = Protocol(version=2, latency={"samples": 77}), synthetic.record()
    record["protocol"] = protocol.as_record()
    store = synthetic.store(tmp_path / "results", [record], with_samples=False)
    build([store.root], tmp_path / "site")
    page = html.unescape((tmp_path / "site/methods.html").read_text())
    assert protocol.hash in page
    for name, value in flat(protocol).items():
        if name != "energy.csv":  # where a log lies on a machine is in no record
            assert f'"{name.partition(".")[2]}": {json.dumps(value)}' in page


def test_a_second_count_that_was_not_made_is_not_claimed():
    assert "second time with fvcore" in told(Protocol())
    assert "second time with fvcore" not in told(Protocol(counting={"second_count": False}))


def test_warm_up_on_a_gpu_is_that_of_a_gpu():
    assert "10 warm-up iterations and 3 s" in told(Protocol(), device="cuda")
