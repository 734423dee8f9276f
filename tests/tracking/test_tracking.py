"""Records reach MLflow once and only once, look right there, and an MLflow that is away costs neither data nor time."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from bench.errors import UsageError
from bench.store.records import Store, check, seal
from bench.tracking import cases, connection, sweeps
from bench.tracking.cases import run_at
from bench.tracking.connection import check_uri, open_client
from bench.tracking.mirror import Mirror
from bench.tracking.mlflow_view import view_state, view_url
from bench.tracking.over_processes import points
from bench.tracking.single_page import one_page
from bench.tracking.sweeps import without_folders
from bench.tracking.tracked_run import COLOURS, colour, describe, note, plain, scaled
from bench.tracking.ui import ui_command
from tests.forked import in_a_fork
from tests.synthetic import record, store, suite_records

# --- what a run looks like (pure) ------------------------------------------------------------------------------------


def test_metrics_are_grouped_into_sections_and_missing_values_are_no_metrics():
    run = describe(record(accuracy=90.0))
    assert run.metrics["compute/macs"] == 1.25e9
    assert run.metrics["quality/accuracy"] == 90.0
    assert run.metrics["interval/accuracy_low"] == 88.5 and run.metrics["interval/accuracy_high"] == 91.2
    assert not any("energy" in name or "p99" in name for name in run.metrics)
    assert "Not available (no energy counter is readable on this machine): Energy." in run.tags["mlflow.note.content"]


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("ok", "FINISHED"),
        ("contaminated", "KILLED"),
        ("interrupted", "KILLED"),
        ("oom", "FAILED"),
        ("timeout", "FAILED"),
        ("crashed", "FAILED"),
        ("unsupported", "FAILED"),
        ("invalid", "FAILED"),
    ],
)
def test_every_status_has_its_word_in_mlflow(status, shown):
    assert describe(record(status=status)).status == shown


def test_failed_case_tells_why_in_tag_note_and_file():
    error = {"phase": "load", "type": "ValueError", "message": "bad", "log_tail": "Traceback\nline"}
    run = describe(record(status="crashed", error=error))
    assert run.tags["error"] == "crashed during load: ValueError: bad"
    assert "ValueError: bad" in run.tags["mlflow.note.content"] and "line" in run.files["error.txt"]
    assert run.metrics == {}


def test_layer_table_is_whole_in_csv_and_short_in_json():
    item = record()
    run = describe(item)
    rows = list(csv.DictReader(run.files["layers.csv"].splitlines()))
    assert len(rows) == len(item["layers"]) and set(rows[0]) == set(item["layers"][0])
    table = json.loads(run.files["layers.json"])
    assert table["columns"][:4] == ["module_path", "op", "macs", "time_ms"]
    assert table["data"][1][2] == item["layers"][1]["macs"]
    assert json.loads(run.files["record.json"]) == item


def test_hostile_names_stay_text():
    evil = "<img src=x onerror=alert(1)>|[a](javascript:alert(1))`\n# h"
    shown = note(record(model=evil, status="crashed", error={"phase": "x", "type": evil, "message": evil}))
    assert "<img" not in shown and "](javascript" not in shown and "\n# h" not in shown
    assert plain("a|b\n<c>") == r"a\|b &lt;c&gt;"
    item = record()
    item["layers"][0]["module_path"] = "=HYPERLINK(1)"
    assert "'=HYPERLINK(1)" in describe(item).files["layers.csv"]


def test_huge_text_is_cut_to_what_mlflow_takes():
    run = describe(
        record(status="crashed", setting="x" * 9000, error={"phase": "p", "type": "T", "message": "m" * 99999})
    )
    assert max(map(len, run.tags.values())) <= 5000 and max(map(len, run.params.values())) <= 6000


def test_colours_are_stable_distinct_and_the_baseline_is_grey():
    methods = ["tome", "evit", "diffrate"]
    assert len({colour(name) for name in methods}) == 3 and all(colour(name) in COLOURS for name in methods)
    assert colour("none") == "#7F7F7F"


def test_numbers_are_scaled_for_reading():
    assert [scaled(v) for v in (1.25e9, 5_700_000, 40.125, 0.5)] == ["1.25 G", "5.7 M", "40.12", "0.5"]


def test_view_holds_only_charts_that_have_data_and_fits_a_tag():
    state = json.loads(view_state("s", ["compute/macs", "latency/latency_ms"]))
    charts = state["compareRunCharts"]
    assert {c["metricSectionId"] for c in charts} == {"latency", "compute"}
    assert [c["type"] for c in charts].count("SCATTER") == 0
    assert all(c["metricSectionId"] in {s["uuid"] for s in state["compareRunSections"]} for c in charts)
    everything = [
        "compute/macs",
        "latency/latency_ms",
        "latency/speedup",
        "quality/accuracy",
        "energy/energy_j",
        "memory/peak_memory_bytes",
    ]
    assert len(view_state("x" * 400, everything)) <= 5000


def test_one_page_holds_its_scripts_and_allows_nothing_else(tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a.css").write_text("p { color: red }")
    (tmp_path / "assets" / "a.js").write_text('x = "</script>"')
    index = tmp_path / "index.html"
    policy = "default-src &#39;none&#39;; script-src &#39;self&#39; file:; connect-src &#39;none&#39;"
    index.write_text(
        f'<head><meta content="{policy}"><link rel="stylesheet" href="assets/a.css"></head>'
        '<script src="assets/a.js" data-root=""></script>'
    )
    page = one_page(index)
    assert page is not None and "<style>p { color: red }</style>" in page
    assert '<script data-root="">x = "<\\/script>"</script>' in page
    hashed = base64.b64encode(hashlib.sha256(b'x = "<\\/script>"').digest()).decode()
    assert f"script-src &#39;sha256-{hashed}&#39;; connect-src &#39;none&#39;" in page and "&#39;self&#39;" not in page
    for bad in ("../secret.js", "assets/missing.js"):
        (tmp_path.parent / "secret.js").write_text("")
        index.write_text(f'<script src="{bad}"></script>')
        assert one_page(index) is None


def test_one_page_takes_the_figures_that_stand_in_a_file_beside_it(tmp_path):
    for name in ("assets", "suites"):
        (tmp_path / name).mkdir()
    (tmp_path / "assets" / "plotly.min.js").write_text("drawn = 1;")
    (tmp_path / "suites" / "a.figures.js").write_text('waterlineData("figure:gap", {"views": "</script>"});')
    page = tmp_path / "suites" / "a.html"
    page.write_text(
        "<head></head><body>" + '<figure data-figure data-from="suites/a.figures.js"></figure>' * 2 + "</body>"
    )
    made = one_page(page, tmp_path)
    assert made is not None and made.count('waterlineData("figure:gap"') == 1
    assert made.count("</script>") == 2 and made.index("waterlineData") < made.index("</head>")
    (tmp_path / "suites" / "a.figures.js").unlink()
    assert one_page(page, tmp_path) is None


def test_one_page_of_a_folder_takes_what_lies_beside_it_and_above_it_up_to_the_root(tmp_path):
    for folder in ("assets", "suites"):
        (tmp_path / folder).mkdir()
    (tmp_path / "assets" / "a.css").write_text("p { color: red }")
    (tmp_path / "assets" / "plotly.min.js").write_text("plot = 1")
    (tmp_path / "suites" / "s.rows.js").write_text("rows = 2")
    page = tmp_path / "suites" / "s.html"
    page.write_text(
        '<head><link rel="stylesheet" href="../assets/a.css"><script src="s.rows.js"></script></head>'
        "<p data-figure></p>"
    )
    made = one_page(page, tmp_path)
    assert made is not None and "color: red" in made and "rows = 2" in made and "plot = 1" in made
    assert one_page(page) is None  # without a root nothing above the page's own folder is taken
    page.write_text('<script src="../../outside.js"></script>')
    (tmp_path.parent / "outside.js").write_text("")
    assert one_page(page, tmp_path) is None


def test_plain_link_carries_search_order_and_chart_mode():
    url = urlsplit(view_url("http://h:1", "7", "tags.a = 'b c'"))
    path, _, query = url.fragment.partition("?")
    found = parse_qs(query)
    assert path == "/experiments/7/runs" and found["searchFilter"] == ["tags.a = 'b c'"]
    assert found["orderByKey"] == ["metrics.`latency/latency_ms`"] and found["compareRunsMode"] == ["CHART"]


def test_wrong_address_is_a_usage_error_that_says_what_to_write():
    for bad in ("mlruns", "file:///x", "ftp://x", ""):
        with pytest.raises(UsageError, match="sqlite:///"):
            check_uri(bad)


def test_configuration_is_shown_without_folders_and_passwords():
    shown = without_folders(
        {"a": "/home/me/results", "b": ["C:\\Users\\me\\x"], "c": "http://u:p@h/x", "d": 3, "e": "none"}
    )
    assert shown == {"a": "results", "b": ["x"], "c": "http://h/x", "d": 3, "e": "none"}


def test_a_server_that_others_read_gets_no_folders_users_and_hosts(tmp_path):
    error = {
        "phase": "load",
        "type": "OSError",
        "message": "no file /home/jdoe/nets/w.pt",
        "log_tail": "in /home/jdoe/a/b.py",
    }
    item = seal(record(status="crashed", error=error, environment={"cpu": {"model": "C"}, "private": {"user": "jdoe"}}))
    shared = ("http://host:5000", "https://host", "postgresql://host/db")
    for uri in shared:
        run = run_at(uri, item)
        assert "jdoe" not in repr(run) and ".../w.pt" in run.files["error.txt"]
        assert check(json.loads(run.files["record.json"]), "mirrored")["redacted_from"] == item["content_hash"]
        assert run.tags["content_hash"] == item["content_hash"]  # what is there already is found by it
    own = run_at(f"sqlite:///{tmp_path}/m.db", item)
    assert json.loads(own.files["record.json"]) == item


def test_ui_command_is_local_small_and_silent(tmp_path):
    command, environment, url = ui_command(f"sqlite:///{tmp_path}/none.db", port=5123)
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    assert command[command.index("--host") + 1] == "127.0.0.1" and command[command.index("--workers") + 1] == "1"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert url == "http://127.0.0.1:5123"


def test_nothing_is_imported_from_mlflow_until_a_mirror_connects():
    code = "import sys, bench.tracking.mirror; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- a real MLflow on SQLite -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    """A migrated, empty database: making one takes seconds, copying it none."""
    pytest.importorskip("mlflow")
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    open_client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def place(tmp_path, template) -> Path:
    (tmp_path / "mlflow").mkdir()
    shutil.copy(template, tmp_path / "mlflow" / "mlflow.db")
    return tmp_path


def mirror(place: Path, uri: str | None = None, **more) -> Mirror:
    uri = uri or f"sqlite:///{place}/mlflow/mlflow.db"
    return Mirror(uri, "waterline", place / "mlflow" / "artifacts", place / "results", **more)


def sweep(one: Mirror, records: list[dict], page: Path | None = None) -> Mirror:
    one.start_sweep(
        "vit_tokens", {"suite": {"name": "vit_tokens"}, "paths": {"results": "/home/me/results"}}, len(records)
    )
    for item in records:
        one.log_record(item)
    one.finish(page)
    return one


def of_run(run, item: dict) -> dict:
    """The metrics of a run without the values of its processes, which have steps."""
    return {name: value for name, value in run.data.metrics.items() if name not in {p.name for p in points(item)}}


def runs(one: Mirror, kind: str = "case") -> list:
    one.connection.connect()
    return one.connection.search(f"tags.`waterline.kind` = '{kind}'")


def test_a_sweep_is_one_parent_with_a_child_per_case(place):
    page = place / "site" / "index.html"
    (page.parent / "assets").mkdir(parents=True)
    page.write_text("<p>report</p>")
    (page.parent / "assets" / "a.js").write_text("1")
    records = [seal(item) for item in suite_records()]
    one = sweep(mirror(place), records, page)
    assert one.problems == []
    (parent,), children = runs(one, "sweep"), runs(one)
    assert parent.info.status == "FINISHED" and parent.data.params["paths.results"] == "results"
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert len(children) == len(records)
    statuses = {run.data.tags["case_key"]: run.info.status for run in children}
    assert all(statuses[r["case_key"]] == ("FINISHED" if r["status"] == "ok" else "FAILED") for r in records)
    files = {file.path for file in one.connection.client.list_artifacts(parent.info.run_id, "site")}
    assert files == {"site/index.html", "site/assets"}


def test_a_running_sweep_shows_its_first_page_and_its_charts(place):
    page = place / "site" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>so far</p>")
    one = mirror(place)
    one.refresh(page)  # before the first record there is nothing to show
    assert runs(one, "sweep") == []
    one.start_sweep("vit_tokens", {}, 2)
    one.log_record(seal(record()))
    one.refresh(page)
    (parent,) = runs(one, "sweep")
    assert parent.info.status == "RUNNING" and one.problems == []
    assert [
        file.path for file in one.connection.client.list_artifacts(parent.info.run_id) if file.path == "report.html"
    ]
    assert "viewStateShareKey" in one.link()


def test_a_child_carries_numbers_names_times_and_the_record(place):
    item = seal(record(method="tome", setting="r=13", latency_ms=28.0, accuracy=90.0))
    one = sweep(mirror(place), [item])
    (run,) = runs(one)
    assert run.info.run_name == "deit_tiny · tome(r=13) · 224px · batch 1"
    assert run.data.params["setting"] == "r=13" and run.data.params["batch"] == "1"
    assert of_run(run, item) == pytest.approx(describe(item).metrics)
    assert run.info.start_time == 1793534400000 and run.info.end_time == run.info.start_time + 60_000
    local = one.connection.client.download_artifacts(run.info.run_id, "record.json")
    assert json.loads(Path(local).read_text()) == item
    assert run.info.artifact_uri.startswith((place / "mlflow" / "artifacts" / "waterline").as_uri())
    experiment = one.connection.client.get_experiment_by_name("waterline")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_rerun_mirrors_nothing_twice_and_makes_no_empty_sweep(place):
    made = store(place / "results", with_samples=False)
    first = sweep(mirror(place), list(made.iterate()))
    again = mirror(place)
    assert not again.pending(made)
    sweep(again, list(made.iterate()), None)
    assert len(runs(again)) == 9 and len(runs(again, "sweep")) == 1 and first.problems == again.problems == []


def test_what_is_all_there_is_told_without_mlflow_and_a_report_goes_over_once(place, template, monkeypatch):
    made = store(place / "results", with_samples=False)
    page = place / "site" / "index.html"
    page.parent.mkdir()
    page.write_text("<p>report</p>")
    uploads = []
    monkeypatch.setattr(sweeps.Sweeps, "_log_site", lambda self, parent, index: uploads.append(parent))
    for report in ("r1", "r1", "r2"):
        one = mirror(place)
        one.start_sweep("vit_tokens", {}, 9)
        for item in one.pending(made):
            one.log_record(item)
        one.finish(page, report=report)
    assert len(uploads) == 2 and len(runs(one, "sweep")) == 1

    def opened():
        raise AssertionError("MLflow was opened")

    monkeypatch.setattr(connection, "import_mlflow", opened)
    again = mirror(place)
    assert again.is_settled(made, "vit_tokens", "r2") and again.is_settled(made, "vit_tokens", "")
    for suite, report in (("vit_tokens", "r1"), ("vit_tokens", None), ("another", "r2")):
        assert not again.is_settled(made, suite, report)
    assert not mirror(place, "http://127.0.0.1:9").is_settled(made, "vit_tokens", "r2")  # only a server could tell
    made.write(seal(record(batch=9)))
    assert not mirror(place).is_settled(made, "vit_tokens", "r2")
    (place / "results" / cases.LEDGER).rename(place / "ledger")
    assert not mirror(place).is_settled(Store(place / "none"), "vit_tokens", "")
    (place / "ledger").rename(place / "results" / cases.LEDGER)
    assert mirror(place).is_settled(Store(place / "none"), "vit_tokens", "")
    shutil.copy(template, place / "mlflow" / "mlflow.db")
    assert not mirror(place).is_settled(Store(place / "none"), "vit_tokens", "")


def test_lost_ledger_is_made_up_for_by_looking(place):
    made = store(place / "results", with_samples=False)
    sweep(mirror(place), list(made.iterate()))
    (place / "results" / cases.LEDGER).unlink()
    again = mirror(place)
    assert len(again.pending(made)) == 9
    sweep(again, again.pending(made))
    assert len(runs(again)) == 9 and not again.pending(made)


def test_lost_database_is_filled_again(place, template):
    made = store(place / "results", with_samples=False)
    sweep(mirror(place), list(made.iterate()))
    shutil.copy(template, place / "mlflow" / "mlflow.db")
    time.sleep(0.002)
    again = mirror(place)
    assert len(again.pending(made)) == 9
    sweep(again, again.pending(made))
    assert len(runs(again)) == 9


KILLED = """
import os, sys
from bench.tracking.cases import Cases
from bench.tracking.mirror import Mirror
from bench.store.records import Store
root, step = sys.argv[1:]
mirror = Mirror(f"sqlite:///{root}/mlflow/mlflow.db", "waterline", f"{root}/mlflow/artifacts", f"{root}/results")
records = list(Store(f"{root}/results").iterate())
mirror.start_sweep("vit_tokens", {}, len(records))
mirror.log_record(records[0])
owner = Cases if step.startswith("_") else type(mirror.connection.client)
setattr(owner, step, lambda *a, **k: os.kill(os.getpid(), 9))
mirror.log_record(records[1])
"""


def killed(place, step):
    sys.argv[1:] = [str(place), step]
    exec(KILLED, {})


@pytest.mark.parametrize(
    "step",
    [
        "log_batch",
        pytest.param("log_artifacts", marks=pytest.mark.slow),
        pytest.param("set_terminated", marks=pytest.mark.slow),
        "_remember",
    ],
)
def test_killed_while_mirroring_a_case_continues_without_a_double(place, step):
    records = suite_records()[:3]
    made = store(place / "results", records, with_samples=False)
    assert in_a_fork(lambda: killed(place, step)) == -signal.SIGKILL
    again = mirror(place)
    assert len(again.pending(made)) == 2
    sweep(again, again.pending(made))
    children = runs(again)
    assert sorted(run.data.tags["case_key"] for run in children) == sorted(r["case_key"] for r in records)
    assert {run.info.status for run in children} == {"FINISHED"}
    for run in children:
        item = next(r for r in made.iterate() if r["case_key"] == run.data.tags["case_key"])
        assert of_run(run, item) == pytest.approx(describe(item).metrics)
        assert len(again.connection.client.get_metric_history(run.info.run_id, "compute/macs")) == 1
    assert sorted(run.info.status for run in runs(again, "sweep")) == ["FINISHED", "KILLED"]


def test_running_sweep_of_a_living_driver_is_left_alone(place):
    living = mirror(place)
    living.start_sweep("vit_tokens", {}, 1)
    living.log_record(record())
    sweep(mirror(place), [])
    assert [run.info.status for run in runs(living, "sweep")] == ["RUNNING"]


def test_new_record_of_a_case_takes_the_place_of_the_old_one(place):
    old = seal(record())
    new = seal({**record(latency_ms=41.0), "supersedes": old["content_hash"]})
    one = sweep(mirror(place), [old, new])
    (current,) = runs(one)
    assert current.data.tags["content_hash"] == new["content_hash"]
    assert len(runs(one, "superseded")) == 1


def test_flat_view_is_left_for_the_link_and_its_search_finds_the_cases(place):
    one = sweep(mirror(place), suite_records())
    query = parse_qs(urlsplit(one.link()).fragment.partition("?")[2])
    key = query["viewStateShareKey"][0]
    assert query["compareRunsMode"] == ["CHART"]
    state = json.loads(
        one.connection.client.get_experiment(one.connection.experiment_id).tags[f"mlflow.sharedViewState.{key}"]
    )
    assert len(one.connection.client.search_runs([one.connection.experiment_id], state["searchFilter"])) == 9
    _, _, url = ui_command(one.uri, suite="vit_tokens", port=5999)
    assert url == one.link("http://127.0.0.1:5999")


def test_other_machines_and_protocols_are_not_on_the_same_charts(place):
    one = mirror(place)
    sweep(one, [record(machine_key="other"), record()])
    assert len(one.connection.search(one.sweeps.case_filter())) == 1


def test_deleted_experiment_is_brought_back(place):
    one = sweep(mirror(place), [record()])
    one.connection.client.delete_experiment(one.connection.experiment_id)
    assert sweep(mirror(place), [record(model="deit_small")]).problems == []


def test_moved_database_says_where_its_artifacts_go(place):
    sweep(mirror(place), [record()])
    moved = Mirror(f"sqlite:///{place}/mlflow/mlflow.db", "waterline", place / "elsewhere", place / "results")
    sweep(moved, [record(model="deit_small")])
    (problem,) = moved.problems
    assert "move the database away" in problem and str(place / "mlflow" / "artifacts") in problem


def test_large_report_goes_over_as_one_archive(place, monkeypatch):
    monkeypatch.setattr(sweeps, "SITE_FILES", 1)
    (place / "site").mkdir()
    for name in ("index.html", "other.html"):
        (place / "site" / name).write_text(name)
    one = sweep(mirror(place), [record()], place / "site" / "index.html")
    (parent,) = runs(one, "sweep")
    assert {f.path for f in one.connection.client.list_artifacts(parent.info.run_id)} == {
        "site.zip",
        "config.json",
        "report.html",
    }


def test_corrupt_database_loses_nothing_and_says_where_the_records_are(tmp_path):
    pytest.importorskip("mlflow")
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(b"this is no database" * 100)
    made = store(tmp_path / "results", suite_records()[:2], with_samples=False)
    one = sweep(mirror(tmp_path), list(made.iterate()))
    (problem,) = one.problems
    assert "every record is kept" in problem and str(tmp_path / "results") in problem
    assert len(one.pending(made)) == 2


def test_record_that_cannot_be_described_is_told_and_stops_nothing(place):
    one = mirror(place)
    sweep(one, [{**record(), "readings": [{"metric": "macs"}]}, record(model="deit_small")])
    assert len(one.problems) == 1 and "cannot be mirrored" in one.problems[0]
    assert len(runs(one)) == 1


def test_terminal_stays_quiet(place):
    code = KILLED.replace("setattr(", "0 and setattr(") + "\nmirror.finish(None)\n"
    (place / "mlflow" / "mlflow.db").unlink()
    store(place / "results", suite_records()[:2], with_samples=False)
    done = subprocess.run([sys.executable, "-c", code, str(place), "x"], capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr == ""


# --- a real server that comes and goes -------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(place: Path, port: int) -> Iterator[str]:
    command, environment, _ = ui_command(f"sqlite:///{place}/mlflow/mlflow.db", port=port)
    command += ["--artifacts-destination", str(place / "served")]
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=place,
    )
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(400):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{uri}/health", timeout=2).close()
                break
            time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def test_server_that_is_not_there_costs_seconds_and_no_record(tmp_path):
    made = store(tmp_path / "results", with_samples=False)
    one = mirror(tmp_path, f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    sweep(one, list(made.iterate()))
    assert time.monotonic() - began < 10
    assert len(one.problems) == 1 and len(one.pending(made)) == 9
    assert one.link() == one.uri


@pytest.mark.slow
def test_server_goes_down_in_the_middle_and_comes_back(place):
    made = store(place / "results", with_samples=False)
    records, port = list(made.iterate()), free_port()
    one = mirror(place, f"http://127.0.0.1:{port}")
    with server(place, port):
        one.start_sweep("vit_tokens", {}, len(records))
        for item in records[:4]:
            one.log_record(item)
        assert one.problems == []
    began = time.monotonic()
    for item in records[4:7]:
        one.log_record(item)
    assert time.monotonic() - began < 15
    assert len(one.problems) == 1 and "the next run mirrors what is missing" in one.problems[0]
    assert len(one.pending(made)) == 5
    with server(place, port):
        for item in one.pending(made):
            one.log_record(item)
        (place / "site").mkdir()
        (place / "site" / "index.html").write_text("report")
        one.finish(place / "site" / "index.html")
        assert one.problems == [] and not one.pending(made)
        assert sorted(r.data.tags["case_key"] for r in runs(one)) == sorted(r["case_key"] for r in records)
        (parent,) = runs(one, "sweep")
        assert parent.info.status == "FINISHED"
        assert [f.path for f in one.connection.client.list_artifacts(parent.info.run_id, "site")] == ["site/index.html"]
        assert one.link().startswith(f"http://127.0.0.1:{port}/#/experiments/1/runs?viewStateShareKey=")
    assert (place / "served").exists() and isinstance(Store(place / "results"), Store)
