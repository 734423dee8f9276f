"""Split networks in the report: the map of links, the break-even rates and payload against score."""

from types import SimpleNamespace

import pytest

from reports.figures import link_map, rate_distortion
from reports.figures.theme import family_styles
from reports.rows import Cell
from reports.split_ways import break_even_table, payload_points, payload_table, ways_by_network, winners_table


def row(
    name, *, head=1.0, encode=1.0, decode=1.0, tail=1.0, payload=100.0, score=90.0, ranked=True, parts=(), **further
):
    values = {
        ("latency_ms", "head"): head, ("latency_ms", "encode"): encode, ("latency_ms", "decode"): decode,
        ("latency_ms", "tail"): tail, ("payload_bytes", ""): payload, ("answer_bytes", ""): 40.0 if payload else 0.0,
        ("accuracy", ""): score, **further,
    }  # fmt: skip
    family = name.partition("(")[0]
    return SimpleNamespace(
        ranked=ranked, name=name, head=name, family=family, parts=parts, record={},
        cells={"accuracy": Cell(score, score - 1, score + 1)},
        value=lambda metric, part="": values.get((metric, part)),
        case=SimpleNamespace(workload="split", batch=1, model_label="small", method=family),
    )  # fmt: skip


def site():
    return SimpleNamespace(
        rows=[
            row("none", head=30.0, payload=0.0, encode=None, decode=None, tail=None, score=95.0),
            row("offload(q=50)", head=0.0, tail=20.0, payload=5000.0, score=94.5),
            row("bottlefit(b=1)", head=3.0, tail=15.0, payload=60.0, score=80.0),
            row("bottlefit(b=4)", head=3.0, tail=15.0, payload=200.0, score=94.0),
            row("bottlefit(b=4)", head=9.0, payload=200.0),
            row("broken", ranked=False),
        ]
    )


def test_a_case_that_stands_at_several_links_is_one_way():
    ((network, ways),) = ways_by_network(site()).items()
    assert network == "small, batch 1"
    assert [(named.way.name, named.kind) for named in ways] == [
        ("none", "local"), ("offload(q=50)", "offload"), ("bottlefit(b=1)", "split"), ("bottlefit(b=4)", "split"),
    ]  # fmt: skip
    assert ways[3].way.device_ms == 4.0 and ways[3].way.server_ms == 16.0 and ways[3].way.bytes == 240


def test_the_slowest_of_several_devices_is_the_way():
    times = {"head_1": 2.0, "encode_1": 1.0, "head_2": 5.0, "encode_2": 1.0}
    branches = {("latency_ms", part): ms for part, ms in times.items()}
    branches |= {("payload_bytes", "encode_1"): 30.0, ("payload_bytes", "encode_2"): 60.0}
    one = row("ed_vit(n=2)", parts=("head_1", "encode_1", "head_2", "encode_2"))
    plain = one.value
    one.value = lambda metric, part="": branches.get((metric, part), plain(metric, part))
    found = ways_by_network(SimpleNamespace(rows=[one, row("none", payload=0.0)]))
    (named, _) = found["small, batch 1"]
    assert named.way.device_ms == 6.0 and named.way.bytes == 100


def test_the_table_says_below_which_rate_a_split_pays():
    head, lines = break_even_table(site())
    assert len(lines) == 2 and len(head) == 6
    # against the file at a device of this speed: 8 (5040 - 100) / ((3 + 1 + 1 + 15) - (0 + 1 + 1 + 20)) is always
    assert lines[0][:2] == ["bottlefit(b=1)", "small, batch 1"] and lines[0][4] == "always"
    assert lines[0][5] == f"below {8e-3 * 4940 / (10 * 3 - 5):.3g} Mbit/s"


def test_tables_say_who_answers_first_and_what_bytes_are_worth():
    head, lines = winners_table(site())
    assert head[2:] == ["0.1 Mbit/s", "1 Mbit/s", "10 Mbit/s", "100 Mbit/s", "1000 Mbit/s"]
    # 30 ms on the device; at 1000 Mbit/s 20 + 20 of round trip behind a split of 3 + 1 + 1 + 15 ms
    assert [line[1] for line in lines] == ["1x", "4x", "16x", "64x"] and lines[0][2:] == ["local"] * 5
    assert lines[1][2] == "split: bottlefit(b=1)" and lines[3][-1] == "offload: offload(q=50)"
    _, lines = payload_table(site())
    assert [line[0] for line in lines] == ["bottlefit(b=1)", "bottlefit(b=4)", "offload(q=50)"]
    assert lines[0][2] == "60" and lines[0][-1] == "80 % [79, 81]" and lines[0][3] == "unavailable"


def test_the_map_draws_every_way_that_wins_somewhere():
    drawn = link_map.figure(ways_by_network(site()))
    (spec,) = drawn.views.values()
    assert {trace["name"].split(":")[0] for trace in spec["data"]} <= {
        "local",
        "offload",
        "split",
    } and "%" in drawn.title
    assert sum(len(trace["x"]) for trace in spec["data"]) == 33 * 15
    assert link_map.figure({}).reason


def test_payload_against_score_joins_the_settings_of_a_method():
    found = payload_points(site())
    ((key, points),) = found.items()
    assert key == ("small, batch 1", "accuracy") and [point.payload for point in points] == [60.0, 200.0, 5000.0]
    drawn = rate_distortion.figure(found, styles=family_styles(["bottlefit", "offload"]))
    (spec,) = drawn.views.values()
    line = next(trace for trace in spec["data"] if trace["name"] == "bottlefit")
    assert line["x"] == pytest.approx([60, 200]) and "bottlefit(b=4)" in drawn.title
    assert rate_distortion.figure({}, styles={}).reason
