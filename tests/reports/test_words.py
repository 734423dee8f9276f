"""What the pages say in prose is true of the rows: who learned further, and at what accuracy a speed-up was bought."""

from reports.findings import findings, headline
from reports.methods import quality_text
from reports.site import load
from tests.synthetic import record, store


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
