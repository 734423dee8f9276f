"""What a paper prints stands beside a row with its mark; it is never ranked, drawn or joined to a cost."""

import json
import re

import pytest

from reports.site import build, load
from tests.synthetic import record, store

CLAIM = {"method": "tome", "metric": "accuracy", "value": 79.4, "unit": "%", "relative_to_baseline": False,
         "model": "deit_small", "setting": "r=13", "mode": "trained", "hardware": "any",
         "convention": "ImageNet-1k top-1", "tolerance": 0.005, "source": "A Paper, table 1",
         "comparable_when": "ImageNet and a checkpoint trained with ToMe"}  # fmt: skip


def written(tmp_path, *claims):
    folder = tmp_path / "vit_tokens"
    folder.mkdir(exist_ok=True)
    (folder / "claims.yaml").write_text(
        json.dumps({"assume": {"resolution": 224, "tasks": ["imagefolder"]}, "claims": list(claims)})
    )
    return folder


def rows(**changes):
    common = {"model": "deit_small", "task": "none", **changes}
    return [
        record(latency_ms=130.0, baseline_ms=130.0, **common),
        record(method="tome", setting="r=13", latency_ms=80.0, baseline_ms=130.0, **common),
        record(method="tome", setting="r=8", latency_ms=100.0, baseline_ms=130.0, **common),
    ]


def test_a_printed_accuracy_stands_beside_its_own_setting_only(tmp_path):
    store(tmp_path / "results", rows(), with_samples=False)
    site = load([tmp_path / "results"], claims=[written(tmp_path, CLAIM)])
    cells = {row.case.setting: row.cells.get("published_accuracy") for row in site.rows}
    assert cells["r=13"].value == 79.4 and cells["r=13"].provenance == "published"
    assert "A Paper, table 1" in cells["r=13"].note and "the paper's weights" in cells["r=13"].note
    assert cells["r=8"] is None and cells[""] is None


@pytest.mark.parametrize("change", [{"resolution": 384}, {"model": "deit_tiny"}, {"model_settings": "depth=6"}])
def test_another_model_or_resolution_gets_no_printed_accuracy(tmp_path, change):
    store(tmp_path / "results", rows(**change), with_samples=False)
    site = load([tmp_path / "results"], claims=[written(tmp_path, CLAIM)])
    assert not any("published_accuracy" in row.cells for row in site.rows)


def test_a_papers_own_setting_and_a_difference_belong_to_no_row(tmp_path):
    store(tmp_path / "results", rows(), with_samples=False)
    others = [{**CLAIM, "setting": None}, {**CLAIM, "relative_to_baseline": True, "value": -0.4}]
    site = load([tmp_path / "results"], claims=[written(tmp_path, *others)])
    assert not any("published_accuracy" in row.cells for row in site.rows)


def test_a_printed_accuracy_is_marked_and_neither_ranked_nor_drawn(tmp_path):
    store(tmp_path / "results", rows(), with_samples=False)
    build(tmp_path / "results", tmp_path / "site", claims=[written(tmp_path, {**CLAIM, "value": 79.41357})])
    figures = (tmp_path / "site" / "suites" / "vit_tokens.figures.js").read_text()
    rows_of_page = (tmp_path / "site" / "suites" / "vit_tokens.rows.js").read_text()
    data = json.loads(re.fullmatch(r'waterlineData\("rows", (.*)\);\n', rows_of_page, re.S)[1])
    column = next(i for i, each in enumerate(data["columns"]) if each["key"] == "published_accuracy")
    cells = [row[7][column] for row in data["rows"]]
    (cell,) = [each for each in cells if isinstance(each, list)]
    assert (
        cell[0] == 79.41357 and data["provenances"][cell[2]] == ["published", "p"] and len(cell) <= 7
    )  # no ranks behind the note
    assert '"figure:flagship"' in figures and "79.41" not in figures
    claims = (tmp_path / "site" / "claims.html").read_text()
    assert "never joined to a cost measured here" in claims and "Not comparable here: 1" in claims
    assert "ImageNet and a checkpoint trained with ToMe" in claims


def test_a_difference_of_accuracies_is_judged_image_by_image(tmp_path):
    base, case = rows(task="imagefolder", checkpoint="abc")[:2]
    answers = ("1" * 9000 + "0" * 1000, "1" * 8960 + "0" * 1040)
    for item, right in zip((base, case), answers, strict=True):
        item["quality"] = {"per_sample": right, "samples_digest": "d"}
        for each in item["readings"]:
            if each["metric"] == "accuracy":
                share = right.count("1") / 100
                each.update(value=share, ci_low=share - 0.6, ci_high=share + 0.6, n=10_000, provenance="measured")
    store(tmp_path / "results", [base, case], with_samples=False)
    drop = {
        **CLAIM,
        "relative_to_baseline": True,
        "value": -0.1,
        "mode": "off-the-shelf",
        "convention": "top-1",
        "tolerance": 0.0,
    }
    (judged,) = load([tmp_path / "results"], claims=[written(tmp_path, drop)]).claims
    # 40 of 10000 lost, none won: -0.4 points, +-0.13 paired; the two intervals apart would be +-0.85 and hide it
    assert judged["verdict"] == "not reproduced"
    assert judged["low"] == pytest.approx(-0.53, abs=0.02) and judged["high"] == pytest.approx(-0.27, abs=0.02)
