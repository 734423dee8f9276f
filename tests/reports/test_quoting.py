"""What is pasted elsewhere says what the row says: the badge, the sentence, the BibTeX entry and the trace."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from reports.groups import group
from reports.packing import unpacked
from reports.quoting import badge, badge_svg, bibtex, cited, tex
from reports.rows import rows_of
from reports.site import build
from reports.trace import trace_of
from tests.synthetic import record, store


def both(**fields):
    made = rows_of(
        [
            record(macs=2e9, baseline_macs=2e9),
            record(method="tome", setting="r=13", macs=1e9, baseline_macs=2e9, latency_ms=25.0, noise=1e-4, **fields),
        ],
        [],
    )
    return made, group(made)


def test_a_badge_says_what_was_measured_of_what_was_promised():
    (base, row), _ = both()
    made = badge(row, [])
    assert re.fullmatch(r"1\.60 ± 0\.03× of 2\.00× promised", made.text) and made.kind == "good"
    assert badge(row, ["reproduced", "not comparable here"]).text.endswith("promised, reproduced")
    assert badge(row, ["reproduced", "not reproduced"]).text.endswith("promised, not reproduced")
    assert badge(base, []).text.endswith("ms") and badge(base, []).kind == ""


def test_a_disturbed_and_a_failed_row_say_so_on_their_badge():
    (_, row), _ = both()
    row.status = "contaminated"
    assert badge(row, []).text.endswith("promised, disturbed") and badge(row, []).kind == "care"
    row.status = "oom"
    assert (badge(row, []).text, badge(row, []).kind) == ("oom", "bad")


def test_a_badge_is_one_well_formed_picture_whatever_it_is_called():
    (_, row), _ = both()
    made = badge_svg("<script>&\"'", badge(row, []))
    root = ElementTree.fromstring(made)
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["<script>&\"'", badge(row, []).text]
    assert int(root.get("width")) > 200


def test_a_citation_has_what_finds_the_row_again():
    (_, row), groups = both()
    row.record["content_hash"] = "c0ffee" * 8
    said = cited(row, groups[0])
    for part in ("deit_tiny · tome(r=13)", "measured speed-up 1.6", "2026-11-01", row.case_key, "c0ffee"):
        assert part in said
    entry = bibtex(row, groups[0])
    pybtex = pytest.importorskip("pybtex.database")
    (found,) = pybtex.parse_string(entry, "bibtex").entries.values()
    assert found.fields["year"] == "2026" and row.case_key in found.fields["howpublished"]
    assert entry.isascii() and r"deit\_tiny" in entry


def test_tex_keeps_no_letter_that_means_something_to_it():
    assert tex("50 % of a_b & {c} × \u4e2d") == r"50 \% of a\_b \& \{c\} $\times$ ?"


def slices(trace):
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


def test_a_trace_holds_every_timed_layer_once_in_order_and_nested_in_its_modules():
    item = record()
    trace = trace_of(item)
    found = slices(trace)
    leaves = [event for event in found if event["name"].endswith(")")]
    assert [event["name"].split(" ")[0] for event in leaves] == [row["name"] for row in item["layers"]]
    assert sum(event["dur"] for event in leaves) == pytest.approx(1e3 * sum(r["time_ms"] for r in item["layers"]), 1e-4)
    assert all(b["ts"] >= a["ts"] + a["dur"] - 1e-6 for a, b in pairwise(leaves))
    for outer in found:
        for inner in found:
            apart = inner["ts"] >= outer["ts"] + outer["dur"] - 1e-6 or outer["ts"] >= inner["ts"] + inner["dur"] - 1e-6
            ends = (inner["ts"] + inner["dur"], outer["ts"] + outer["dur"])
            inside = inner["ts"] >= outer["ts"] - 1e-6 and ends[0] <= ends[1] + 1e-6
            around = outer["ts"] >= inner["ts"] - 1e-6 and ends[1] <= ends[0] + 1e-6
            assert apart or inside or around, (outer, inner)
    assert {"blocks", "blocks.0", "blocks.3"} <= {event["name"] for event in found}
    assert found[-1]["name"] == "outside the layers"


def test_without_times_there_is_no_trace():
    item = record()
    for row in item["layers"]:
        row["time_ms"] = None
    assert trace_of(item) is None


def test_the_page_of_a_case_offers_them(tmp_path):
    store(tmp_path / "results", [record(), record(method="tome", setting="r=8", latency_ms=30.0)], with_samples=False)
    build(tmp_path / "results", tmp_path / "site", figure_seconds=None)
    (page,) = [
        p for p in (tmp_path / "site" / "cases").glob("*.html") if "tome(r=8)" in p.read_text().split("</title>")[0]
    ]
    text = page.read_text()
    inside = re.search(r'<script type="application/json" id="trace">(.*?)</script>', text, re.S)[1]
    assert len(slices(unpacked(inside))) > 8
    assert "<svg xmlns" in text and "@misc{waterline" in text and 'id="roofline"' in text
    for target in (
        "methods/tome.html",
        "models/deit_tiny.html",
        "machines/synthetic000cpu0.html",
        "suites/vit_tokens.html",
    ):
        assert f'href="../{target}"' in text
