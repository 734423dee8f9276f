"""A mirror that is away or broken, a clock that goes back, an endless model: the sweep finishes with records."""

import contextlib
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.app import forecast
from bench.app.jobs import sweep as job
from bench.config import catalogue
from bench.plan import plan
from bench.store.journal import Journal
from bench.store.lock import Locked, ResultsLock
from bench.store.records import Store
from bench.sweep import calibration
from bench.sweep.calibration import Calibrator
from bench.sweep.loop import Driver
from tests.faults.driver import statuses
from tests.sweeping import HEALTHY, configuration, sweep

WIDE = f"{HEALTHY}(width=8)"
OFF = {"enabled": False}


def unreachable():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def mirrored(folder, models, **tracking):
    where = {"enabled": True, "folder": str(folder / "mlflow"), **tracking}
    return configuration(folder, models, tracking=where, report=OFF)


@pytest.mark.slow
def test_a_whole_sweep_finishes_well_while_the_server_is_down(tmp_path, capsys):
    config = mirrored(tmp_path, [HEALTHY], uri=unreachable())
    began = time.monotonic()
    assert job.run(config) == 0
    spent = time.monotonic() - began
    began = time.monotonic()
    assert job.run(config) == 0  # nothing to measure: what is left is what the outage costs
    assert time.monotonic() - began < max(30.0, spent)
    told = capsys.readouterr()
    assert "every record is kept" in told.err and "Traceback" not in told.err
    assert [record["status"] for record in Store(config.paths.results).iterate()] == ["ok"]


@pytest.mark.slow
def test_what_an_outage_kept_back_is_mirrored_by_the_next_run_without_measuring(tmp_path, capsys):
    pytest.importorskip("mlflow")
    assert job.run(mirrored(tmp_path, [HEALTHY], uri=unreachable())) == 0
    assert job.run(mirrored(tmp_path, [HEALTHY])) == 0
    assert "0 measured now" in capsys.readouterr().out
    ledger = Journal(tmp_path / "results" / "mirrored.jsonl").read().events("mirrored")
    assert len(ledger) == 1


def test_a_refused_driver_leaves_the_mirror_alone(tmp_path, monkeypatch):
    """The first driver's running sweep is nobody else's to end or to begin, also if it comes first by a moment."""
    config = mirrored(tmp_path, [HEALTHY])
    with ResultsLock(config.paths.results), pytest.raises(Locked):
        job.run(config)
    first = ResultsLock(config.paths.results)
    monkeypatch.setattr(job, "group_seconds", lambda *_: first.acquire() or {})
    with pytest.raises(Locked):
        job.run(config)
    first.release()
    assert not (tmp_path / "mlflow").exists()


@pytest.mark.slow
def test_a_database_that_is_destroyed_in_the_middle_costs_the_mirror_only(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mlflow")
    from bench.app.mirror import MirrorListener

    config, recorded = mirrored(tmp_path, [HEALTHY, WIDE]), MirrorListener.recorded

    def destroying(self, record):
        recorded(self, record)
        for part in (tmp_path / "mlflow").glob("mlflow.db*"):
            part.write_bytes(b"no database any more " * 500)

    monkeypatch.setattr(MirrorListener, "recorded", destroying)
    assert job.run(config) == 0
    told = capsys.readouterr()
    assert "every record is kept" in told.err and "Traceback" not in told.err
    assert len(list(Store(config.paths.results).iterate())) == 2


@pytest.mark.slow
def test_a_server_that_goes_down_in_the_middle_costs_the_mirror_only(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mlflow")
    from bench.app.mirror import MirrorListener
    from tests.tracking.test_tracking import free_port, server

    port, recorded = free_port(), MirrorListener.recorded
    config = mirrored(tmp_path, [HEALTHY, WIDE], uri=f"http://127.0.0.1:{port}")
    with contextlib.ExitStack() as running:
        running.enter_context(server(tmp_path, port))

        def going_down(self, record):
            recorded(self, record)
            running.close()

        monkeypatch.setattr(MirrorListener, "recorded", going_down)
        assert job.run(config) == 0
    assert "the next run mirrors what is missing" in capsys.readouterr().err
    monkeypatch.undo()
    with server(tmp_path, port):
        assert job.run(config) == 0
    ledger = Journal(tmp_path / "results" / "mirrored.jsonl").read().events("mirrored")
    assert len({entry["record_key"] for entry in ledger}) == 2


# -- time -------------------------------------------------------------------------------------------------------


def backwards():
    """A clock that loses a day every time somebody looks at it."""
    moment = datetime(2026, 11, 1, tzinfo=UTC)

    def now():
        nonlocal moment
        moment -= timedelta(days=1)
        return moment.isoformat(timespec="seconds")

    return now


def test_a_clock_that_goes_backwards_loses_nothing_and_measures_nothing_twice(tmp_path):
    config = configuration(tmp_path, ["tests.faults.models:wrong_value", HEALTHY])
    now = backwards()

    def run(**changes):
        changed = config.model_copy(update=changes)
        driver = Driver(changed, plan.make(changed, catalogue.load()), calibrated=False, now=now)
        driver.journal = Journal(driver.store.journal, clock=now)
        return driver.run({})

    assert statuses(run().records) == {"wrong_value": "invalid", "healthy": "ok"}
    assert run().measured == 0
    again = run(retry_failed=True)
    assert again.measured == 1
    found = {record["case"]["model"]: record for record in Store(config.paths.results).iterate()}
    newest = found["tests.faults.models:wrong_value"]
    assert newest["supersedes"]  # the newer one counts by what it supersedes, although its time stamp is older
    assert len(found) == 2
    events = [entry["event"] for entry in Journal(Store(config.paths.results).journal).read().entries]
    assert events[0] == "sweep_started" and events[-1] == "sweep_ended"


def test_a_calibration_from_the_future_is_made_anew(tmp_path, monkeypatch):
    from bench.store.records import read_json, write_json
    from bench.worker.client import Done

    config = configuration(tmp_path, [HEALTHY])
    store = Store(config.paths.results)
    made = Done({"peaks": [], "bandwidth": None, "notes": ["new"]}, 1.0)
    monkeypatch.setattr(calibration, "measure", lambda *_: made)
    calibrator = Calibrator(None, store, Journal(store.journal), lambda event: None)  # no process is to be started
    assert calibrator.current("machine", "cpu", 1)["notes"] == ["new"]
    (path,) = store.machines.glob("*.json")
    write_json(path, {**read_json(path), "notes": ["old"], "measured_at": time.time() + 1e6})
    assert calibrator.current("machine", "cpu", 1)["notes"] == ["new"]


def test_a_case_longer_than_its_limit_is_tried_twice_then_a_row_with_the_phase(tmp_path):
    timeouts = {"start": 60, "load": 60, "compile": 60, "warmup": 1, "measure": 60}
    config = configuration(
        tmp_path,
        ["tests.faults.models:hang", "tests.faults.models:exits_quietly", HEALTHY],
        executor={"retries": 1, "timeouts_s": timeouts},
    )
    result = sweep(config)
    assert statuses(result.records) == {"hang": "timeout", "exits_quietly": "crashed", "healthy": "ok"}
    errors = {record["case"]["model"].partition(":")[2]: record["error"] for record in result.records}
    assert (errors["hang"]["phase"], errors["hang"]["type"]) == ("warmup", "Timeout")
    assert "took longer than 1 s" in errors["hang"]["message"]
    assert "exited with 0 and left no result" in errors["exits_quietly"]["message"]
    lost = Journal(Path(config.paths.results) / "journal.jsonl").read().events("lost")
    assert [entry["status"] for entry in lost] == ["timeout"] * 2 + ["crashed"] * 2


def test_a_model_that_hangs_while_it_is_forecast_costs_the_forecast_only(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "FORECAST_CAP_S", 1.0)
    config = configuration(tmp_path, ["tests.faults.models:hang"])
    made = plan.make(config, catalogue.load())
    began = time.monotonic()
    seconds = forecast.group_seconds(config, made)
    assert time.monotonic() - began < 60
    assert set(seconds) == {group.key for group in made.groups}
