"""What the pages say in prose is true of the rows: who learned further, and at what accuracy a speed-up was bought."""

from pathlib import Path

import pytest

from reports.findings import changes, findings, headline
from reports.methods import quality_text
from reports.site import load
from tests.synthetic import record, store

ROOT = Path(__file__).resolve().parents[2]


def reduced(setting, **changes):
    item = record(method="tome", setting=setting, macs=0.8e9, latency_ms=25.0, accuracy=91.0, noise=1e-4, **changes)
    return {**item, "weights": {"kind": "trained"}}


def tuned(setting):
    return {**reduced(setting), "weights": {"kind": "trained", "method": "tome", "steps": 100}}


def test_retraining_is_said_of_those_that_learned_further_and_of_no_others():
    plain = record(accuracy=96.0)
    assert "reported, without retraining after the method was put in" in quality_text([plain, reduced("r=8")])
    assert "1 of the 2 with a method were trained further" in quality_text([plain, reduced("r=8"), tuned("r=13")])
    assert "reported, trained further with the method in place" in quality_text([plain, tuned("r=13")])


def test_the_headline_says_what_is_known_of_the_accuracy(tmp_path):
    unknown = record(method="tome", setting="r=13", macs=0.8e9, latency_ms=25.0, noise=1e-4)
    store(tmp_path / "one", [record(noise=1e-4), unknown], with_samples=False)
    site = load([tmp_path / "one"])
    said = headline(site.rows, site.groups)
    # 1.25 over 0.8 GMACs promise 1.5625
    assert said == (
        "tome(r=13) makes deit_tiny 1.60 ± 0.03 times as fast, all of the 1.56 times that its operations promise, "
        "at an accuracy that was not measured"
    )
    both = [record(accuracy=96.0, noise=1e-4), reduced("r=13")]
    for item, answers in zip(both, ("1" * 96 + "0" * 4, "1" * 90 + "0" * 6 + "1100"), strict=True):
        item["quality"] = {"per_sample": answers, "samples_digest": "d"}
    store(tmp_path / "two", both, with_samples=False)
    site = load([tmp_path / "two"])
    said = headline(site.rows, site.groups)
    assert said.endswith(
        "at \u22124.0 ± 6.0 points of accuracy"
    )  # 96 and 92 of 100 images, Bonett and Price: -3.92 -+ 6.03


def test_what_is_only_counted_is_not_called_measured_and_stands_behind_what_was_timed(tmp_path):
    counted = [{**record(model=name, batch=4), "timing": None} for name in ("deit_tiny", "deit_small", "deit_base")]
    store(tmp_path / "both", [record(), reduced("r=8"), *counted], with_samples=False)
    site = load([tmp_path / "both"])
    assert [group.size for group in site.groups] == [2, 3]
    said = findings(site.rows, site.groups)[-1]
    assert said.big == "2 of 2"
    assert said.what == "cases measured in 2 groups that are ranked apart; 3 more counted, not timed"
    store(tmp_path / "none", counted, with_samples=False)
    site = load([tmp_path / "none"])
    said = findings(site.rows, site.groups)[-1]
    assert (said.big, said.what) == ("3", "cases counted, none timed")


def site_of(folder, records):
    store(folder, records, with_samples=False)
    return load([folder])


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ((0, 0), "none is faster or slower for certain"),
        ((0, 2), "none is faster for certain and 2 are slower"),
        ((1, 0), "1 is faster for certain and none slower"),
        ((4, 1), "4 are faster for certain and 1 slower"),
    ],
)
def test_counts_of_changes_are_a_sentence(counts, told):
    assert changes(*counts) == told


def test_the_headline_of_several_methods_is_the_typical_and_not_the_largest(tmp_path):
    made = [record(noise=1e-4)]
    for place, latency in enumerate((20.0, 25.0, 32.0, 36.0, 50.0)):
        made.append(record(method="tome", setting=f"r={place}", macs=0.625e9, latency_ms=latency, noise=1e-4))
    site = site_of(tmp_path / "many", made)
    # 40 ms plain and twice promised: 2, 1.6, 1.25, 1.11 and 0.8 times as fast are 100, 80, 62.5, 55.6 and 40 %
    assert headline(site.rows, site.groups) == (
        "Of 5 cases that were compared 4 are faster for certain and 1 slower; 62 % of the promised speed-up arrives "
        "in the median (quartiles 56 to 80 %)"
    )
    assert findings(site.rows, site.groups)[0].what.startswith("largest speed-up (quality not measured): ")


def test_the_largest_speed_up_is_named_among_those_that_lose_no_quality_for_certain(tmp_path):
    plain, fast, kept = record(accuracy=96.0), reduced("r=13"), reduced("r=4")
    answers = ("1" * 96 + "0" * 4, "1" * 50 + "0" * 50, "1" * 95 + "0" * 5)
    for item, marks in zip((plain, fast, kept), answers, strict=True):
        item["quality"] = {"per_sample": marks, "samples_digest": "d"}
    site = site_of(tmp_path / "lossy", [plain, fast, kept])
    said = findings(site.rows, site.groups)[0].what
    assert said.startswith("largest speed-up at no certain loss of accuracy: ") and "r=4" in said


def test_where_nothing_is_faster_the_page_says_so_and_names_what_comes_closest(tmp_path):
    slow = [
        record(method="tome", setting=f"r={place}", macs=0.6e9, latency_ms=latency, noise=1e-4)
        for place, latency in enumerate((50.0, 44.0))
    ]
    said = findings(site_of(tmp_path / "slow", [record(noise=1e-4), *slow]).rows, [])[0]
    assert said.what == (
        "comes closest: deit_tiny · tome(r=1) (quality not measured); nothing is faster for certain than the same "
        "network without it"
    )
    assert said.big.startswith("0.9") and said.big.endswith("×")  # 40 over 44 ms


def test_a_speed_up_that_is_certain_goes_before_one_that_only_keeps_the_quality(tmp_path):
    plain, fast, kept = record(accuracy=96.0), reduced("r=13"), reduced("r=4")
    for item in kept["readings"]:
        if item["metric"] == "speedup":
            item |= {"value": 0.9, "ci_low": 0.88, "ci_high": 0.92}
    answers = ("1" * 96 + "0" * 4, "1" * 50 + "0" * 50, "1" * 95 + "0" * 5)
    for item, marks in zip((plain, fast, kept), answers, strict=True):
        item["quality"] = {"per_sample": marks, "samples_digest": "d"}
    said = findings(site_of(tmp_path / "lossy", [plain, fast, kept]).rows, [])[0].what
    assert said.startswith("largest speed-up at \u2212") and "r=13" in said


def test_rows_that_were_disturbed_are_not_called_unfinished(tmp_path):
    busy = [{**record(), "status": "contaminated"}, {**reduced("r=8"), "status": "contaminated"}]
    site = site_of(tmp_path / "busy", busy)
    assert headline(site.rows, site.groups) == (
        "2 of 2 cases were measured on a busy machine: their ratios stand, their ranks do not"
    )


def test_a_network_of_ones_own_gives_its_page_the_name_and_takes_no_claims_of_the_suite(tmp_path):
    claims = [ROOT / "suites" / "vit_tokens"]
    store(tmp_path / "own", [record(model="mymodels:Net")], with_samples=False)
    own = load([tmp_path / "own"], claims=claims)
    assert own.title == "mymodels:Net" and own.claims == []
    store(tmp_path / "suite", [record()], with_samples=False)
    its = load([tmp_path / "suite"], claims=claims)
    assert its.title == record()["case"]["suite"] and len(its.claims) > 50


def test_points_take_no_prefix_and_nothing_is_minus_zero():
    from reports.numbers import plain, quantity

    assert quantity(-0.838, "pp", -2.1, 0.43) == "\u22120.8 ± 1.3\u00a0points"
    assert plain(-0.001, 2) == "0.00" and plain(-12.34, 1) == "\u221212.3"
