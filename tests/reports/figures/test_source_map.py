"""Source maps: borders, counts and reasons on a grid small enough to draw by hand."""

import pytest

from reports.figures import source_map
from reports.safe import inert_json
from tests.synthetic import record

# 3 x 3 patches:  a a b      after block 1 all are apart; after block 2 a holds three, one is dropped
#                 a c b
#                 d - e
APART = list(range(1, 10))
MERGED = [1, 1, 2, 1, 3, 2, 4, -1, 5]


def picture(owners=(APART, MERGED)):
    return {
        "pixels": [[(r * 9 + c) for c in range(9)] for r in range(9)],
        "grid": 3,
        "owners": list(owners),
        "protected": 1,
    }


def case(**rest):
    return {**record(method="tome", setting="r=3"), "picture": picture(**rest)}


def test_lines_stand_only_between_patches_of_different_tokens():
    xs, ys = source_map.borders(MERGED, 3)
    segments = {(xs[i], ys[i], xs[i + 1], ys[i + 1]) for i in range(0, len(xs), 3)}
    assert (2, 0, 2, 1) in segments  # a | b in the first row
    assert (1, 0, 1, 1) not in segments  # a and a
    assert (0, 1, 1, 1) not in segments  # a above a
    assert (1, 1, 2, 1) in segments  # a above c
    assert len(segments) == 9


def test_all_apart_has_every_inner_border():
    xs, _ = source_map.borders(APART, 3)
    assert len(xs) // 3 == 12


def test_table_counts_tokens_drops_and_the_largest():
    table = source_map.summary([APART, MERGED])
    assert table.to_dict("list") == {
        "block": [1, 2],
        "tokens that hold patches": [9, 5],
        "patches dropped": [0, 1],
        "patches in the largest token": [1, 3],
    }


def test_title_states_what_is_left_and_views_end_first():
    figure = source_map.figure(case())
    assert "5 tokens hold 8 of 9 patches, the largest 3" in figure.title
    assert list(figure.views) == ["block 2", "block 1"]


def test_blocks_that_change_nothing_have_no_view():
    assert list(source_map.figure(case(owners=(APART, APART, MERGED, MERGED))).views) == ["block 3", "block 1"]


@pytest.mark.parametrize("broken", [None, {"pixels": [[0]], "grid": 3, "owners": [[1, 2]], "protected": 1}])
def test_without_a_square_picture_there_is_a_reason(broken):
    figure = source_map.figure({**record(), "picture": broken})
    assert figure.reason and not figure.views


def test_the_image_is_inside_the_figure_and_asks_nobody():
    spec = source_map.figure(case()).spec
    assert spec["layout"]["images"][0]["source"].startswith("data:image/png;base64,")


def test_hiding_the_machines_paths_leaves_the_image_whole():
    source = source_map.figure(case()).spec["layout"]["images"][0]["source"]
    assert source in inert_json({"source": source}, hide_paths=True)


def test_tints_are_the_largest_tokens_wherever_their_patches_lie():
    # a: 3 patches, b: 2; c, d, e one each; the dropped one belongs to none
    assert source_map.largest(MERGED) == [1, 2]
    assert source_map.largest(APART) == []
    assert source_map.largest([7, 8, 7, 8, 7, -1, -1, -1, -1], most=1) == [7]
    shapes = source_map.figure(case()).spec["layout"]["shapes"]
    places = {(s["y0"] * 3 + s["x0"]): s["fillcolor"] for s in shapes}
    assert set(places) == {0, 1, 3, 2, 5}
    assert places[0] == places[1] == places[3] != places[2] == places[5]
