"""An accuracy is set against its baseline's image by image, with the interval that pairing allows."""

import math

import pytest

from bench.analysis import ranking, table
from reports.rows import rows_of
from tests.synthetic import record


def scored(answers, digest="images", **fields):
    """A record with these answers, one character per image."""
    item = record(accuracy=100 * answers.count("1") / len(answers), **fields)
    item["quality"] = {
        "per_sample": answers,
        "samples_digest": digest,
        "n": len(answers),
        "correct": answers.count("1"),
    }
    return item


#: 90 images right under both, 6 lost, 2 won, 2 wrong under both: 96 % and 92 %.
BASE = "1" * 96 + "0" * 4
CASE = "1" * 90 + "0" * 6 + "11" + "00"


def change(one, two):
    found = rows_of([one, two], [])
    return next(row for row in found if row.case.method != "none").cells["accuracy_change"]


def test_the_difference_has_the_paired_interval_by_hand():
    cell = change(scored(BASE), scored(CASE, method="tome", setting="r=8"))
    # Bonett and Price 2012: shares (6 + 1) / 102 and (2 + 1) / 102
    centre, se = -4 / 102, math.sqrt((10 / 102 - (4 / 102) ** 2) / 102)
    assert (cell.value, cell.n) == (pytest.approx(-4.0), 100)
    assert cell.low == pytest.approx(100 * (centre - 1.959964 * se), abs=1e-4)
    assert cell.high == pytest.approx(100 * (centre + 1.959964 * se), abs=1e-4)
    # McNemar, exact: 2 * (C(8,0) + C(8,1) + C(8,2)) / 2**8
    assert "6 images lost and 2 won of 100" in cell.note and "p = 0.29" in cell.note
    assert cell.provenance == "measured"


def test_pairing_by_image_is_sharper_than_the_two_intervals():
    cell = change(scored(BASE), scored(CASE, method="tome", setting="r=8"))
    apart = 100 * 1.96 * math.sqrt(0.96 * 0.04 / 100 + 0.92 * 0.08 / 100)
    assert (cell.high - cell.low) / 2 < apart


def test_other_images_give_a_difference_without_an_interval():
    cell = change(scored(BASE), scored(CASE, digest="others", method="tome", setting="r=8"))
    assert cell.value == pytest.approx(-4.0) and cell.low is None and "not scored on the same images" in cell.note


def test_a_missing_accuracy_is_a_reason():
    cell = change(scored(BASE), record(method="tome", setting="r=8"))
    assert cell.value is None and "missing" in cell.note


def spread(item, width):
    """The record with this half-width around its accuracy."""
    for each in item["readings"]:
        if each["metric"] == "accuracy":
            each.update(ci_low=each["value"] - width, ci_high=each["value"] + width)
    return item


def ranks(records, **options):
    found = ranking.rank_intervals(table.from_records(records), "accuracy", **options)
    return [tuple(pair) for pair in found[["rank_low", "rank_high"]].to_numpy().tolist()]


def test_rows_are_ranked_image_by_image_where_they_saw_the_same_ones():
    # 6 images lost and none won: McNemar's exact p = 2 / 2**6 = 0.031; apart 6 points with +-4 and +-6 are open
    first, second = (
        spread(scored("1" * 96 + "0" * 4), 4.0),
        spread(scored("1" * 90 + "0" * 10, method="tome", setting="r=8"), 6.0),
    )
    assert ranks([first, second]) == [(1, 2), (1, 2)]
    assert ranks([first, second], answers=ranking.answers_of([first, second])) == [(1, 1), (2, 2)]
    # 5 lost: p = 2 / 2**5 = 0.0625, which leaves it open
    second = spread(scored("1" * 91 + "0" * 9, method="tome", setting="r=8"), 6.0)
    assert ranks([first, second], answers=ranking.answers_of([first, second])) == [(1, 2), (1, 2)]


def test_answers_to_other_images_or_of_another_length_are_not_paired():
    first = spread(scored("1" * 96 + "0" * 4), 4.0)
    for other in (
        scored("1" * 90 + "0" * 10, digest="others", method="tome"),
        scored("1" * 180 + "0" * 20, method="tome"),
    ):
        rows = [first, spread(other, 6.0)]
        assert ranks(rows, answers=ranking.answers_of(rows)) == [(1, 2), (1, 2)]
    assert ranking.answers_of([record(accuracy=90.0)]) == {}
