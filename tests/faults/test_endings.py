"""However a process ends and whatever it says, its case is a row, others are measured, the report is written."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.app.sources import measured_here
from bench.plan.case import Case
from bench.store.journal import Journal
from bench.store.records import Store, read_json, seal, write_json
from reports.site import build
from tests.faults.driver import ROOT, statuses, until
from tests.sweeping import HEALTHY, configuration, sweep
from tests.synthetic import record

MODELS = ("healthy", "ends_by_a_signal_without_a_name", "half_a_pair", "interrupts_itself", "without_words")
METHODS = ("stops_the_clock", "writes_other_json", "nan_every_fifth", "nan_later", "hooks_every_module")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """One sweep of models that end in odd ways, and one of methods that lie, into one results folder."""
    folder = tmp_path_factory.mktemp("endings")
    ends = sweep(configuration(folder, [f"tests.faults.models:{name}" for name in MODELS]))
    lies = sweep(configuration(folder, [HEALTHY], ["none", *(f"tests.faults.methods:{name}" for name in METHODS)]))
    return folder, ends, lies


def error_of(result, name):
    (found,) = [r["error"] for r in result.records if name in (r["case"]["model"] + r["case"]["method"])]
    return found


def test_every_way_of_ending_is_a_row_and_the_sweep_goes_on(swept):
    _, ends, _ = swept
    assert statuses(ends.records) == {name: "ok" if name == "healthy" else "crashed" for name in MODELS}
    nameless = error_of(ends, "signal_without_a_name")
    assert nameless["type"] == f"SIG{signal.SIGRTMIN + 3}" and "signal 37" in nameless["message"]
    assert error_of(ends, "interrupts_itself")["type"] == "KeyboardInterrupt"
    wordless = error_of(ends, "without_words")["message"]
    assert wordless.startswith("(the message of this Wordless cannot be made: ValueError)")


def test_half_a_surrogate_pair_is_spelt_out_and_takes_the_report_from_nobody(swept, tmp_path):
    folder, ends, _ = swept
    assert r"half a pair \udc80" in error_of(ends, "half_a_pair")["message"]
    site = build(folder / "results", tmp_path / "site")
    assert not site.problems
    assert "healthy" in site.index.read_text(encoding="utf-8")


def test_a_foreign_record_with_half_a_pair_is_shown_with_it_spelt_out(tmp_path):
    """Its hash is of what it holds; what is shown is what every output can take."""
    error = {"phase": "load", "type": "E", "message": "half \udc80", "log_tail": ""}
    store = Store(tmp_path / "results")
    for made in (seal(record()), seal(record(model="other\ud800", status="crashed", error=error))):
        write_json(store.record_path(made["case_key"], made["machine_key"]), made)
    assert {r["case"]["model"] for r in store.iterate()} == {"deit_tiny", r"other\ud800"}
    assert not build(tmp_path / "results", tmp_path / "site").problems


def test_a_clock_that_a_method_stops_and_other_json_are_not_ours(swept):
    _, _, lies = swept
    found = {r["case"]["method"].partition(":")[2]: r["status"] for r in lies.records}
    assert found["stops_the_clock"] == "ok"
    assert found["writes_other_json"] == "ok"
    plain, other = (
        next(r for r in lies.records if r["case"]["method"].endswith(name)) for name in ("none", "writes_other_json")
    )
    assert len({r["case_key"] for r in lies.records}) == len(lies.records)
    for metric in ("macs", "params", "checkpoint_bytes"):
        values = [row["value"] for r in (plain, other) for row in r["readings"] if row["metric"] == metric]
        assert len(values) >= 2 and len(set(values)) == 1
    timed = next(r for r in lies.records if "stops_the_clock" in r["case"]["method"])
    assert all(line["load_ms"] > 0 for line in timed["timing"]["invocations"])


def test_an_output_that_is_no_number_only_later_is_an_invalid_row(swept):
    _, _, lies = swept
    for name in ("nan_every_fifth", "nan_later"):
        message = error_of(lies, name)["message"]  # of every fifth run the first that is looked at may be one
        assert re.search("holds NaN, and that (of the first run did not|after it was timed does not)", message)
    (plain,) = [r for r in lies.records if r["case"]["method"] == "none"]
    assert plain["status"] == "ok"


def test_hooks_on_every_module_and_flushed_denormals_are_put_back_and_told(swept):
    folder, _, lies = swept
    (flag,) = [f for r in lies.records for f in r["flags"] if f["code"] == "changes_global_state"]
    assert "module hooks from none to 1" in flag["text"] and "flush denormal from False to True" in flag["text"]
    samples = [read_json(path) for path in Path(folder).glob("results/samples/*/[0-9]*.json.gz")]
    hooked = Case.from_dict(next(r["case"] for r in lies.records if "hooks" in r["case"]["method"])).key
    together = [item for item in samples if hooked in item["cases"]]
    assert together
    for item in together:  # half a millisecond a module, had the hook stayed
        assert min(item["cases"][hooked]["latency_ms"]) < 0.5


def test_no_record_of_the_sweep_is_lost_on_the_next(swept):
    folder, _, _ = swept
    again = sweep(configuration(folder, [f"tests.faults.models:{name}" for name in MODELS]))
    assert (again.measured, len(again.records)) == (0, len(MODELS))


# -- kills ------------------------------------------------------------------------------------------------------------

#: A driver that is killed at the n-th call of a function; what it measured is that of the moments-long protocol.
KILLED = """
import json, os, signal, sys
from pathlib import Path
from bench.store import journal, records
from tests.sweeping import HEALTHY, configuration, sweep

def killing(owner, name, when):
    real, count = getattr(owner, name), [0]
    def call(*args, **kwargs):
        count[0] += 1
        if count[0] == when:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(owner, name, call)

owner, name, when = sys.argv[2], sys.argv[3], int(sys.argv[4])
killing({"os": os, "journal": journal.Journal}[owner], name, when)
sweep(configuration(Path(sys.argv[1]), [HEALTHY]))
"""


def killed_at(folder, owner, name, when, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-c", KILLED, str(folder), owner, name, str(when)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120).returncode


def events(folder):
    return [entry["event"] for entry in Journal(folder / "results" / "journal.jsonl").read().entries]


def test_a_row_is_ours_though_the_driver_was_killed_between_it_and_the_journal(tmp_path):
    """And what it left for its workers is gone, though it could not clear up."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    calls = len(["sweep_started", "probed", "timed", "timed", "recording", "recorded"])
    code = killed_at(tmp_path, "journal", "append", calls, TMPDIR=str(temporary))
    assert code == -signal.SIGKILL and events(tmp_path)[-1] == "recording"
    (made,) = Store(tmp_path / "results").iterate()
    assert made["status"] == "ok" and measured_here(made, tmp_path / "results")
    forged = {**made, "content_hash": "0" * 64}
    assert not measured_here({**forged, "case": {**made["case"], "model": "evil:build"}}, tmp_path / "results")
    until(lambda: not list(temporary.glob("bench-*")), 30)


@pytest.mark.slow
@pytest.mark.parametrize("when", range(1, 13))
def test_a_driver_that_is_killed_before_any_rename_loses_nothing_and_leaves_no_litter(tmp_path, when):
    code = killed_at(tmp_path, "os", "replace", when)
    result = sweep(configuration(tmp_path, [HEALTHY]))
    assert statuses(result.records) == {"healthy": "ok"} and not result.problems
    assert not list((tmp_path / "results").rglob(".*.tmp"))
    assert all(measured_here(made, tmp_path / "results") for made in result.records)
    assert code in (0, -signal.SIGKILL)


def test_what_killed_writers_left_goes_with_the_next_sweep_and_nothing_else_does(tmp_path):
    left = [
        tmp_path / "results" / name for name in ("records/.a.json.x.tmp", "probes/.b.json.y.tmp", "samples/s/.c.z.tmp")
    ]
    kept = [tmp_path / "results" / name for name in ("records/.keep", "samples/s/notes.tmp")]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    Store(tmp_path / "results").remove_litter()
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


#: Workers without a command line: they run a model that leaves a child behind and wait for it.
LEAVING = """
import sys
from pathlib import Path
from bench.app.cli import _end_as_by_ctrl_c
from tests.worker.test_worker import TIMEOUTS, probe
from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.worker.client import Workers
from tests.sweeping import QUICK

_end_as_by_ctrl_c()
folder = Path(sys.argv[1])
recipe = Recipe(Case(suite="t", model="m"), "tests.faults.models:leaves_a_child", {"mark": str(folder / "mark")})
spec = {"recipe": recipe.as_dict(), "protocol": QUICK, "meters": [], "no_quality": ""}
with Workers({**TIMEOUTS, "warmup": 600}) as workers:
    workers.run("probe", spec, log=folder / "log")
"""


@pytest.mark.slow
def test_no_child_lives_on_however_the_driver_is_ended(tmp_path):
    """Ctrl-C, a request to end, a terminal that closes, a kill; the child has a session of its own and no parent."""
    ways = {signal.SIGINT: -1, signal.SIGTERM: -1, signal.SIGHUP: -1, signal.SIGKILL: -1}
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    running = {}
    for way in ways:
        folder = tmp_path / way.name
        folder.mkdir()
        running[way] = subprocess.Popen(
            [sys.executable, "-c", LEAVING, str(folder)],
            env=env,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGHUP)],  # noqa: PLW1509
        )
    marks = {way: tmp_path / way.name / "mark" for way in ways}
    try:
        until(lambda: all(mark.exists() and mark.read_text().endswith("\n") for mark in marks.values()), 120)
        children = [psutil.Process(int(mark.read_text())) for mark in marks.values()]
        for way, process in running.items():
            process.send_signal(way)
        for process in running.values():
            process.wait(timeout=60)
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
        until(lambda: not list(tmp_path.glob("bench-*")), 30)
    finally:
        for process in running.values():
            process.kill()


# -- one process, two copies ------------------------------------------------------------------------------------------


def test_a_process_that_two_copies_of_a_folder_share_counts_once(swept):
    from bench.analysis.timings import paired, processes, unshared

    _, ends, _ = swept
    (one,) = [r for r in ends.records if r["status"] == "ok"]
    assert paired(one, json.loads(json.dumps(one)), "latency_ms") is not None
    copy = json.loads(json.dumps(one))
    second = copy["timing"]["invocations"][1]
    second["started_at"], second["median_ms"] = "2026-01-01T00:00:00+00:00", 3 * second["median_ms"]
    before, after = paired(one, copy, "latency_ms")
    assert (
        before == after == [one["timing"]["invocations"][0]["median_ms"]]
    )  # the same file twice is all that they share
    assert len(processes(one) & processes(copy)) == 1
    alone = unshared(copy, [one])
    assert [line["index"] for line in alone["timing"]["invocations"]] == [1]
    assert paired(one, alone, "latency_ms") is None
    assert unshared(one, [one]) is one
