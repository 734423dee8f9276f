"""Over suites only the typical is said: a case in the middle for each method, never a largest one or a rank."""

import json
import re

import pytest

from reports import atlas
from reports.addresses import method_page, slug
from reports.figures import flagship
from reports.figures.flagship import looks_by_suite
from reports.groups import group
from reports.rows import rows_of
from reports.site import build, load
from tests.reports.figures.specs import check
from tests.synthetic import record, store


def reduced(setting, arrives, *, model="net", method="tome", promised=2.0, **fields):
    """A case whose operations promise `promised` and of which this share arrives."""
    base, macs = 40.0, 1.0e9
    return record(
        model=model, method=method, setting=setting, macs=macs / promised, baseline_macs=macs, baseline_ms=base,
        latency_ms=base / (promised * arrives), noise=1e-4, **fields,
    )  # fmt: skip


def plain(model="net", **fields):
    return record(model=model, macs=1.0e9, baseline_macs=1.0e9, latency_ms=40.0, baseline_ms=40.0, **fields)


def rows(*records):
    problems = []
    made = rows_of(records, problems)
    assert not problems
    group(made)
    return made


def test_of_the_settings_of_a_method_on_a_network_the_one_in_the_middle_stands_for_it():
    made = rows(plain(), *(reduced(f"r={i}", share) for i, share in enumerate((0.3, 0.9, 0.6))))
    (point,) = atlas.typical(atlas.points(made))
    assert point.row.case.setting == "r=2" and point.share == pytest.approx(0.6, rel=1e-3)


def test_a_disturbed_case_stands_for_a_method_only_where_there_is_no_other():
    busy = {**reduced("r=1", 0.9), "status": "contaminated"}
    calm = [reduced("r=2", 0.5), reduced("r=3", 0.4)]
    (alone,) = atlas.typical(atlas.points(rows(plain(), busy)))
    assert alone.row.disturbed and alone.share == pytest.approx(0.9, rel=1e-3)
    (one,) = atlas.typical(atlas.points(rows(plain(), busy, *calm)))
    assert one.row.ranked and one.row.case.setting == "r=3"


def test_counts_are_of_undisturbed_cases_and_ask_what_was_paid():
    made = rows(
        plain(accuracy=90.0),
        reduced("r=1", 0.9, method="kept", accuracy=90.0),
        reduced("r=1", 0.9, method="unscored"),
        reduced("r=1", 0.4, method="slow"),
        {**reduced("r=1", 0.9, method="busy"), "status": "contaminated"},
    )
    found = atlas.typical(atlas.points(made))
    counts = atlas.tally(found)
    assert (counts.compared, counts.faster, counts.kept, counts.unscored, counts.slower, counts.disturbed) == (
        3, 2, 1, 1, 1, 1,
    )  # fmt: skip
    assert atlas.headline(found) == "Of 3 methods on networks 2 are faster for certain and 1 slower"


def test_the_share_that_arrives_is_told_with_its_quartiles_and_only_of_promises():
    shares = (0.5, 0.6, 0.7, 0.8)
    made = rows(plain(), *(reduced("r=1", share, method=f"m{i}") for i, share in enumerate(shares)))
    low, middle, high = atlas.quartiles(atlas.points(made))
    assert (low, middle, high) == pytest.approx((0.575, 0.65, 0.725), rel=1e-3)
    more = rows(plain(), *(reduced("r=1", 0.5, method=f"m{i}") for i in range(3)), reduced("r=1", 0.5, promised=1.0))
    assert atlas.quartiles(atlas.points(more)) is None


def test_a_simulated_case_is_no_point():
    made = rows(plain(), {**reduced("r=1", 0.9), "labels": {"execution": "simulated", "kernel": None}})
    assert atlas.points(made) == []


def test_the_picture_has_equal_scales_hollow_disturbed_marks_and_a_page_behind_every_one():
    made = rows(
        plain(), plain("other", suite="second"), reduced("r=1", 0.9, method="a"),
        {**reduced("r=1", 0.45, method="b"), "status": "contaminated"},
        reduced("r=1", 0.7, model="other", suite="second"),
    )  # fmt: skip
    found = atlas.typical(atlas.points(made))
    drawn = check(flagship.figure(found, looks_by_suite(found), title="t", grey_legend=True))
    layout = drawn.spec["layout"]
    assert layout["yaxis"]["scaleanchor"] == "x" and layout["xaxis"]["type"] == layout["yaxis"]["type"] == "log"
    marks = [trace for trace in drawn.spec["data"] if trace.get("meta") == "hover"]
    symbols = {}
    for trace in marks:
        symbol = trace["marker"]["symbol"]
        for place, (number, _) in enumerate(trace["customdata"]):
            symbols[found[number].row.name] = symbol if isinstance(symbol, str) else symbol[place]
    hollow = {name for name, symbol in symbols.items() if symbol.endswith("-open")}
    assert hollow == {point.row.name for point in found if point.row.disturbed} and len(hollow) == 1
    assert {symbol.removesuffix("-open") for symbol in symbols.values()} == {"circle", "square"}
    assert drawn.links == tuple(point.row.page for point in found)
    guides = [trace for trace in drawn.spec["data"] if trace.get("mode") == "lines"]
    assert [trace["y"][0] / trace["x"][0] for trace in guides] == pytest.approx([1.0, 0.75, 0.5])


def test_small_multiples_have_a_panel_for_each_suite_or_for_each_method_of_one():
    made = rows(
        plain(), plain("other", suite="second"), reduced("r=1", 0.9, method="a"), reduced("r=1", 0.7, method="b"),
        reduced("r=1", 0.7, model="other", suite="second"),
    )  # fmt: skip
    found = atlas.points(made)
    views = {
        "all": found,
        **{name: [p for p in found if p.row.case.suite == name] for name in ("vit_tokens", "second")},
    }
    look = looks_by_suite(found)
    drawn = check(flagship.figure(found, look, title="t", views=views, control="Suite", facets_first=True))
    assert drawn.wide == "all · small multiples" and drawn.wide in drawn.views
    assert [control.label for control in drawn.controls] == ["Suite", "Layout"]
    whole, one = (drawn.view(name, "small multiples") for name in ("all", "vit_tokens"))
    assert [title["text"] for title in whole["layout"]["annotations"]] == ["second", "vit_tokens"]
    assert [title["text"] for title in one["layout"]["annotations"]] == ["a", "b"]
    assert drawn.view("second", "one picture") == drawn.view("second", "small multiples")  # it has one panel
    for spec in (whole, one):  # every mark once, on axes that reach equally far
        marks = [item for trace in spec["data"] if trace.get("meta") == "hover" for item in trace["customdata"]]
        assert len(marks) == len({item[0] for item in marks}) == spec["layout"]["meta"]["panels"] + (spec is whole)
        assert spec["layout"]["xaxis"]["range"] == spec["layout"]["xaxis2"]["range"]
        assert spec["layout"]["yaxis2"]["scaleanchor"] == "x2"


def test_suites_and_workloads_never_share_a_group_a_rank_or_a_front(tmp_path):
    both = [record(), record(suite="second", model="other", latency_ms=4.0, baseline_ms=4.0, accuracy=99.0)]
    store(tmp_path / "results", [*both, record(workload="generate", model="third")], with_samples=False)
    site = load([tmp_path / "results"])
    assert len(site.groups) == 3 and len({row.group for row in site.rows}) == 3
    assert all(rank == (1, 1) for row in site.rows for rank in row.rank.values())
    build(tmp_path / "results", tmp_path / "site")
    index = (tmp_path / "site" / "index.html").read_text()
    assert "Pareto" not in index and "rank " not in index and "waterlineData" not in index
    for suite in ("vit_tokens", "second"):
        text = (tmp_path / "site" / "suites" / f"{suite}.rows.js").read_text()
        data = json.loads(re.fullmatch(r'waterlineData\("rows", (.*)\);\n', text, re.S)[1])
        models = {data["strings"][row[data["rowFields"].index("model")]] for row in data["rows"]}
        assert ("other" in models) == (suite == "second")
        assert {row[data["rowFields"].index("group")] for row in data["rows"]} == set(range(len(data["groups"])))


def test_a_suite_compares_with_a_row_that_another_suite_measured(tmp_path):
    store(tmp_path / "results", [plain(suite="first"), reduced("r=1", 0.9, suite="second")], with_samples=False)
    site = load([tmp_path / "results"])
    second = site.of_suite("second")
    (row,) = second.rows
    assert second.baseline(row).case.suite == "first" and row.value("mac_ratio") == pytest.approx(2.0)


def test_names_of_files_are_safe_and_told_apart():
    assert method_page("tome") == "methods/tome.html"
    names = ["ToMe", "tome", "a/b", "a b", "../x", "", "mymodels:net(width=3)", "x" * 90, "x" * 91]
    assert len({slug(name).lower() for name in names}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_][a-z0-9_-]{0,70}", slug(name)) for name in names)


def test_pages_of_methods_networks_and_machines_say_what_was_found(tmp_path):
    made = [plain(accuracy=90.0), *(reduced(f"r={i}", s, accuracy=89.0) for i, s in enumerate((0.4, 0.7, 0.8, 0.9)))]
    store(tmp_path / "results", made, with_samples=False)
    build(tmp_path / "results", tmp_path / "site")
    method = (tmp_path / "site" / "methods" / "tome.html").read_text()
    assert "tome: of 4 cases 3 are faster for certain and 1 slower; 75 % of the promise arrives in the median" in method
    model = (tmp_path / "site" / "models" / "net.html").read_text()
    assert "What was done to it" in model and 'id="waterline"' in model and 'id="pareto"' in model
    machine = (tmp_path / "site" / "machines" / "synthetic000cpu0.html").read_text()
    assert "176\u00a0Gop/s" in machine and "13.7\u00a0GB/s" in machine and 'id="machine-roofline"' in machine
    assert "no energy counter is readable on this machine" in machine
