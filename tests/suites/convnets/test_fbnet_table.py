"""FBNet's table: layers add up to their network, every layer that a network needs has a row, sums predict by hand."""

import pytest
import torch

from bench.config.catalogue import parse_spec
from bench.errors import UsageError
from bench.meters import macs
from suites.common.fbnet import PLANS, STEM, from_rows
from suites.convnets.fbnet_table import (
    RESOLUTION,
    FbnetLayer,
    compared,
    fbnet_member,
    layers_of,
    member,
    rank_correlation,
    summary,
    told,
)
from tests.suites.convnets.building import made
from tests.suites.test_grids import suite_of

NETWORKS = {**PLANS, **{f"member {seed}": member(seed) for seed in range(1, 6)}}


def in_grid():
    return [spec for block in suite_of("convnets").grids["table"] for spec in block.models]


def counted(module, *inputs):
    with torch.no_grad():
        count = macs.count(module.to("meta").eval(), tuple(x.to("meta") for x in inputs), {}, second_count=False)
    return sum(parameter.numel() for parameter in module.parameters()), count.macs


@pytest.mark.parametrize("name", ["a", "member 1"])
def test_layers_add_up_to_their_network(name):
    last, rows = NETWORKS[name]
    whole = counted(from_rows(rows, last, 1000, RESOLUTION), torch.empty(1, 3, RESOLUTION, RESOLUTION))
    parts = [FbnetLayer(layer, 1000) for layer in layers_of(rows, last)]
    each = [counted(part, *part.example_inputs(1)) for part in parts]
    assert tuple(map(sum, zip(*each, strict=True))) == whole


@pytest.mark.parametrize("name", ["a", "b", "c", "member 1"])
def test_layers_one_after_the_other_are_the_network(name):
    last, rows = NETWORKS[name]
    network = from_rows(rows, last, 5, 32)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        y, expected = x, network(x)
        for layer, own in zip(layers_of(rows, last, 32), network[: len(layers_of(rows, last, 32)) - 1], strict=False):
            assert y.shape[1:] == (layer.inputs, layer.side, layer.side)
            part = layer.made(5).eval()
            part.load_state_dict(own.state_dict())
            y = part(y)
        y = network[-1](network[-2](y))
    assert torch.equal(y, expected)


def test_the_grid_has_every_layer_of_its_networks():
    grid = in_grid()
    rows = {repr(sorted(parse_spec(spec)[1].items())) for spec in grid if spec.startswith("fbnet_layer")}
    for last, plan in NETWORKS.values():
        wanted = {repr(sorted(parse_spec(layer.spec)[1].items())) for layer in layers_of(plan, last)}
        assert wanted <= rows
    assert len({repr(member(seed)) for seed in range(1, 6)}) == 5
    assert made(grid[0]).inputs > 0


def test_a_sum_of_layers_is_the_prediction_and_a_missing_layer_is_none():
    last, rows = PLANS["a"]
    layers = layers_of(rows, last)
    times = {layer.spec: 0.5 for layer in layers} | {"fbnet_a": 12.0, "fbnet_b": 1.0}
    assert compared(times) == {"fbnet_a": (0.5 * len(layers), 12.0)}
    del times[layers[3].spec]
    assert compared(times) == {}


def test_ranks_by_hand():
    assert rank_correlation([(1, 10), (2, 30), (3, 20), (4, 40)]) == pytest.approx(1 - 6 * 2 / 60)
    assert rank_correlation([(1, 3), (2, 2), (3, 1)]) == -1
    said = {"a": (1.0, 2.0), "b": (2.0, 3.0), "c": (3.0, 5.0), "d": (4.0, 4.0)}
    assert "Mean error 31 %" in summary(said) and "rank correlation 0.80 of 4" in summary(said)
    with pytest.raises(UsageError, match="grid=table"):
        summary({})


def test_members_start_and_end_as_the_networks_do():
    assert {member(seed)[0] for seed in range(8)} <= {last for last, _ in PLANS.values()}
    network = fbnet_member(number=3, classes=5, resolution=32)
    assert network[0][0].out_channels == STEM and network(torch.randn(1, 3, 32, 32)).shape == (1, 5)


def test_a_table_of_results_is_read_by_its_whole_forwards_of_one_picture():
    pandas = pytest.importorskip("pandas")
    rows = [("fbnet_a", "latency_ms", 1, "forward", 9.0), ("fbnet_a", "macs", 1, "forward", 5.0)]
    for plan in ("a", "b", "c"):
        rows += [(layer.spec, "latency_ms", 1, "forward", 0.5) for layer in layers_of(PLANS[plan][1], PLANS[plan][0])]
    rows += [("fbnet_b", "latency_ms", 1, "forward", 8.0), ("fbnet_c", "latency_ms", 1, "forward", 11.0)]
    rows += [("fbnet_member(number=1)", "latency_ms", 1, "forward", 7.0), ("fbnet_a", "latency_ms", 8, "forward", 99.0)]
    split = [(*row[0].removesuffix(")").partition("(")[::2], *row[1:]) for row in rows]
    frame = pandas.DataFrame(split, columns=["model", "model_settings", "metric", "batch", "part", "value"])
    said = told(frame)
    assert "| fbnet_a | 10.50 | 9.00 | 1.17 |" in said and "of 4 networks" in said
