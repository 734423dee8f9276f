"""What a method's own operators cost stands apart from what they save, and what cannot be told apart is said."""

from itertools import pairwise

import pytest

from reports.figures import layer_savings, time_split
from reports.own_time import ITSELF, OUTSIDE, REPLACED, added_paths, role, split
from reports.rows import rows_of
from tests.synthetic import record


def layer(path, ms, op="Linear", macs=0.0, spread=0.1):
    return {
        "module_path": path,
        "name": path.rpartition(".")[2],
        "op": op,
        "macs": macs,
        "time_ms": ms,
        "tokens": None,
        "time_low_ms": ms * (1 - spread),
        "time_high_ms": ms * (1 + spread),
    }


PLAIN = [
    layer("patch_embed.proj", 1.0),
    layer("blocks.0.norm1", 0.5),
    layer("blocks.0.attn.qkv", 3.0, macs=300.0),
    layer("blocks.0.attn", 2.0, "Attention", macs=100.0),
    layer("blocks.0.mlp.fc1", 4.0, macs=400.0),
    layer("blocks.0", 0.5, "Block"),
]
#: Attention 5.0 -> 4.5 ms, MLP 4.0 -> 2.0 ms, the rest the same, 1.2 ms of matching.
MERGED = [
    layer("patch_embed.proj", 1.0),
    layer("blocks.0.norm1", 0.5),
    layer("blocks.0.attn.qkv", 3.0, macs=300.0),
    layer("blocks.0.attn", 1.5, "Attention", macs=100.0),
    layer("blocks.0.reduce", 1.2, "Merge", macs=8.0),
    layer("blocks.0.mlp.fc1", 2.0, macs=200.0),
    layer("blocks.0", 0.5, "Block"),
]


def pair(layers=MERGED, end=10.2, plain=PLAIN, plain_end=11.5):
    """A case and its baseline with these layers and end-to-end times."""
    base, case = record(), record(method="tome", setting="r=13", macs=0.8e9)
    for item, own, ms in ((base, plain, plain_end), (case, layers, end)):
        item["layers"], item["layers_info"] = own, {"end_to_end_ms": ms}
    return case, base


def test_time_of_added_modules_stands_apart_from_what_the_others_save():
    found = split(*pair())
    assert found.own_ms == pytest.approx(1.2) and found.own_modules == 1 and found.own_macs == 8.0
    assert (found.own_low_ms, found.own_high_ms) == (pytest.approx(1.08), pytest.approx(1.32))
    assert found.saved_ms == pytest.approx(0.5 + 2.0)
    assert found.taken_back == pytest.approx(1.2 / 2.5)
    assert found.own_share == pytest.approx(1.2 / 10.2)
    assert (found.base_unexplained_ms, found.unexplained_ms) == (pytest.approx(0.5), pytest.approx(0.5))
    changes = {part.name: part.change_ms for part in found.parts}
    assert changes == pytest.approx({OUTSIDE: 0.0, "norm": 0.0, "attn": -0.5, "mlp": -2.0, ITSELF: 0.0})


def test_the_steps_lead_from_the_plain_networks_time_to_the_cases_without_a_gap():
    steps = time_split.steps(split(*pair(end=10.7)))
    changes = [step for step in steps if step.kind != "total"]
    assert steps[0].end + sum(step.change for step in changes) == pytest.approx(10.7) == steps[-1].end
    assert all(one.end == two.start for one, two in pairwise(changes))
    assert next(step.change for step in steps if step.name == time_split.UNEXPLAINED) == pytest.approx(0.5)


def test_a_module_of_another_class_is_replaced_with_everything_below_it():
    layers = [
        *MERGED[:1],
        layer("blocks.0", 1.0, "Generator"),
        layer("blocks.0.cross.q", 2.0),
        layer("blocks.0.mlp.fc1", 2.0),
    ]
    added, replaced = added_paths(layers, PLAIN)
    assert added == set() and {"blocks.0.cross.q", "blocks.0.attn.qkv", "blocks.0"} <= replaced
    found = split(*pair(layers, end=6.5))
    part = next(part for part in found.parts if part.name == REPLACED)
    assert (part.base_ms, part.ms) == (pytest.approx(10.0), pytest.approx(5.0)) and found.own_ms == 0
    figure = time_split.figure(*pair(layers, end=6.5))
    assert "adds no modules of its own" in figure.title
    assert any("not told apart" in note for note in figure.notes)


def test_added_modules_that_do_the_networks_work_are_said_to():
    layers = [*MERGED[:4], layer("blocks.0.generator", 5.0, "Generator", macs=300.0)]
    figure = time_split.figure(*pair(layers))
    assert any("part of the network's work" in note for note in figure.notes)
    assert not any("part of the network's work" in note for note in time_split.figure(*pair()).notes)


def test_time_that_is_not_known_is_a_reason_and_never_a_zero():
    untimed = [{**row, "time_ms": None} for row in MERGED]
    case, base = pair(untimed)
    assert split(case, base) == "no time was measured per layer for the case or its baseline"
    assert time_split.figure(case, base).reason and time_split.figure(case, None).reason
    some = [{**row, "time_ms": None} if row["module_path"] == "blocks.0.mlp.fc1" else row for row in MERGED]
    found = split(*pair(some))
    assert found.unexplained_ms == pytest.approx(10.2 - 7.7)


def test_the_figure_says_what_matching_costs_beside_what_is_saved():
    figure = time_split.figure(*pair())
    assert (
        figure.title
        == "tome(r=13) spends 1.2 ms (12 % of its time) in its own operators and saves 2.5 ms in the others"
    )
    bars = {trace["name"]: trace for trace in figure.spec["data"]}
    own = bars["added by the method's own operators"]
    assert own["x"] == [1.2] and own["base"] == [pytest.approx(9.0)]
    line = figure.table[figure.table["where"] == time_split.OWN].iloc[0]
    assert line["change (ms)"] == pytest.approx(1.2)
    assert line["change (% of the plain network's time)"] == pytest.approx(100 * 1.2 / 11.5)


def test_matching_that_costs_more_than_it_saves_is_the_title():
    dear = [{**row, "time_ms": 3.0} if row["op"] == "Merge" else row for row in MERGED]
    assert "more than the 2.5 ms" in time_split.figure(*pair(dear, end=12.0)).title
    useless = [*PLAIN, layer("blocks.0.reduce", 1.0, "Merge")]
    assert "the other modules save nothing" in time_split.figure(*pair(useless, end=12.5)).title


def test_per_block_the_own_operators_have_a_bar_of_their_own():
    case, base = pair()
    (outside, block) = layer_savings.blocks(case, base)
    assert (outside.own_ms, block.own_ms) == (0.0, pytest.approx(1.2))
    bars = {trace["name"]: trace for trace in layer_savings.draw([outside, block])["data"]}
    assert bars["time saved by the network's layers"]["y"][1] == pytest.approx(100 * 2.5 / 11.0, rel=1e-3)
    assert bars["own operators"]["y"][1] == pytest.approx(-100 * 1.2 / 11.0, rel=1e-3)
    assert bars["time saved, net"]["y"][1] == pytest.approx(100 * 1.3 / 11.0, rel=1e-3)


def test_the_leaderboard_has_the_share_of_time_in_own_operators():
    case, base = pair()
    row = next(row for row in rows_of([case, base], []) if row.case.method == "tome")
    cell = row.cells["own_share"]
    assert (cell.value, cell.low, cell.high) == (
        pytest.approx(100 * 1.2 / 10.2),
        pytest.approx(100 * 1.08 / 10.2),
        pytest.approx(100 * 1.32 / 10.2),
    )
    assert cell.provenance == "measured" and "1 module" in cell.note


def test_a_method_inside_replaced_modules_has_no_share_of_its_own_and_no_rank_for_it():
    layers = [*MERGED[:1], layer("blocks.0", 1.0, "Generator"), layer("blocks.0.cross.q", 2.0), layer("new_norm", 0.1)]
    case, base = pair(layers, end=6.5)
    cell = next(row for row in rows_of([case, base], []) if row.case.method == "tome").cells["own_share"]
    assert cell.value is None and "replace the network's" in cell.note


@pytest.mark.parametrize(
    ("path", "kind"),
    [("blocks.3.mlp.fc1", "mlp"), ("blocks.3.norm2", "norm"), ("blocks.3", ITSELF), ("head", OUTSIDE), ("", OUTSIDE)],
)
def test_modules_have_a_role_in_their_block(path, kind):
    assert role(path) == kind
