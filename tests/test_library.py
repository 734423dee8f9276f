"""The library in a notebook: tables that read, a bar, a glance, a comparison in a line, a waterline that draws."""

import inspect
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy
import pandas
import pytest
import torch
from torch import nn

import bench
from bench.analysis import assemble
from bench.api import processes
from bench.api.drawn import as_read
from bench.api.measuring import protocol_named
from bench.api.progress import Bar
from bench.config.protocol import Protocol
from bench.config.schema import validate
from bench.errors import UsageError
from bench.plan.plan import threads as default_threads
from bench.store.records import Store
from bench.sweep.events import Advanced, Working
from tests.sweeping import QUICK
from tests.synthetic import PEAKS

pytestmark = pytest.mark.usefixtures("shared_server")
WIDE, NARROW = nn.Sequential(nn.Linear(64, 512), nn.Linear(512, 64)), nn.Linear(64, 64)
X = torch.rand(32, 64)


@pytest.fixture(scope="module")
def counted():
    return bench.measure(nn.Linear(8, 4), torch.rand(2, 8), ["params", "macs"])


def test_a_result_is_what_was_asked_and_the_long_form_is_behind_it(counted):
    assert list(counted.columns) == ["metric", "value", "low", "high", "unit", "provenance", "note"]
    assert len(counted.long) == len(counted) and {"case_key", "dtype", "started_at"} <= set(counted.long.columns)
    assert counted.set_index("metric").loc["macs", "value"] == 32
    assert type(counted[counted["metric"] == "macs"]) is pandas.DataFrame


def test_a_result_reads_as_text_and_as_html(counted):
    html, text = counted._repr_html_(), repr(counted)
    assert "<table>" in html and "32.0\u00a0MACs" in html and "case_key" not in html
    assert "32.0\u00a0MACs" in text and "counted" in text
    hostile = counted.copy()
    made = type(counted).of(counted.long.assign(method_note="<script>alert(1)</script>"))
    assert "<script>" not in made._repr_html_() and "&lt;script&gt;" in made._repr_html_()
    assert len(hostile) == len(counted)


def test_a_value_is_written_as_the_pages_write_it():
    assert as_read(28.13, "ms", 27.8, 28.4) == "28.1 ± 0.3\u00a0ms"
    assert as_read(numpy.nan, "ms") == as_read(None, "ms") == as_read(pandas.NA, "ms") == "—"


def test_rows_that_differ_in_model_or_part_say_so(counted):
    other = counted.long.assign(model="Other")
    made = type(counted).of(pandas.concat([counted.long, other], ignore_index=True))
    assert list(made.columns)[:2] == ["model", "metric"] and set(made.shown()["model"]) == {"Linear", "Other"}


def test_a_glance_is_one_process_marked_on_every_row_it_gives():
    glance = protocol_named("glance")
    assert (glance.latency.invocations, glance.latency.max_invocations) == (1, 1)
    frame = bench.measure(NARROW, X, ["latency_ms"], protocol="glance")
    row = frame.iloc[0]
    assert row["value"] > 0 and pandas.isna(row["low"]) and "a glance: one process" in repr(frame)
    assert "glance" in {flag["code"] for flag in frame.attrs["flags"]}
    assert assemble._glance(Protocol(), []) == []


def test_a_comparison_has_both_values_a_ratio_and_a_verdict():
    found = bench.compare(WIDE, NARROW, X, protocol=Protocol(**QUICK), names=("wide", "narrow"))
    rows = found.set_index("metric")
    assert list(rows.index) == ["latency_ms", "throughput_per_s", "macs", "params", "peak_memory_bytes"]
    assert rows.loc["macs", ["a", "b"]].tolist() == [2 * 64 * 512, 64 * 64]
    assert rows.loc["macs", "ratio"] == 16 and rows.loc["macs", "verdict"] == "BETTER"
    latency = rows.loc["latency_ms"]
    assert latency["ratio"] > 1 and latency["low"] < latency["ratio"] < latency["high"]
    assert latency["verdict"] in ("FASTER", "AMBIGUOUS", "SAME", "SLOWER")
    assert list(found.shown().columns) == ["metric", "wide", "narrow", "better by", "verdict", "why"]
    assert "wide" in found._repr_html_() and set(found.long["method"]) == {"none", "narrow"}


def test_a_comparison_of_a_module_with_itself_is_the_same_by_every_count():
    found = bench.compare(NARROW, NARROW, X, ["macs", "params"]).set_index("metric")
    assert set(found["verdict"]) == {"SAME"} and list(found["a"]) == list(found["b"])


def test_a_waterline_draws_and_says_what_it_found(tmp_path, monkeypatch):
    asked = []
    swept = processes._swept

    def without_calibration(config, cases, pickles, wanted):
        asked.append(wanted)
        records = swept(config, cases, pickles, replace(wanted, calibrations=None))
        return [{**record, "machine": {**record["machine"], **PEAKS}} for record in records]

    monkeypatch.setattr(processes, "_swept", without_calibration)
    drawn = bench.waterline(WIDE, X, results=tmp_path / "results")
    assert asked[0].calibrations == tmp_path / "results" and asked[0].protocol.name == "glance"
    assert "of the peak is used" in drawn.title and drawn.title in repr(drawn)
    assert list(drawn.table["layer"]) == ["0", "1"]
    assert drawn.plot().data and drawn.views[0].startswith("op:byte")
    assert drawn.title.split(":")[0] in drawn._repr_html_()
    page = drawn.save(tmp_path / "line.html").read_text()
    assert page.startswith("<!doctype html>") and not re.search(r"<(script|link)[^>]+(src|href)=", page)
    with pytest.raises(UsageError, match='view "op" does not exist'):
        drawn.plot("op")


def test_the_machines_peaks_are_kept_in_the_results_folder(tmp_path):
    config = validate({"suite": {"name": "s", "grids": {"default": []}}, "protocol": {}})
    driver = SimpleNamespace(config=config, store=Store(tmp_path / "own"), machine_key="m")
    kept = Store(tmp_path / "kept")
    threads = default_threads(config)
    file = kept.calibration_path("m", "cpu", threads)
    with processes._calibration(driver, kept.root):
        own = driver.store.calibration_path("m", "cpu", threads)
        own.parent.mkdir(parents=True)
        own.write_text("first")
    assert file.read_text() == "first"
    own.unlink()
    with processes._calibration(driver, kept.root):
        assert own.read_text() == "first"


def test_the_bar_steps_with_every_process_and_is_silent_where_nobody_looks(capsys, monkeypatch):
    with Bar(3, shown=True, title="net") as bar:
        for what in ("probe a", "timing 1", "timing 2", "timing 3"):
            bar(Working(what))
            bar(Advanced(1.0))
        assert (bar._bar.n, bar._bar.total) == (3, 4)
    assert "net: timing 3" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with Bar(3) as silent:
        silent(Working("probe a"))
    assert capsys.readouterr().err == ""


def test_the_library_shows_itself_alone_and_is_typed():
    assert dir(bench) == sorted(bench.__all__) and not {"api", "app", "worker"} & set(dir(bench))
    assert (Path(bench.__file__).parent / "py.typed").is_file()
    for name in set(bench.__all__) - {"__version__"}:
        function = getattr(bench, name)
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, name
        assert all(part.annotation is not inspect.Parameter.empty for part in signature.parameters.values()), name
        assert inspect.getdoc(function), name
