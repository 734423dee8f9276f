"""Layers are told apart by their operators and shapes, and their shares are sums over sums."""

import pytest

from bench.analysis import layer_kinds
from bench.analysis.layer_kinds import kind_of, shares
from tests.synthetic import record


def row(*operators, given=(), made=(), macs=0, op=""):
    return {
        "operators": [f"aten::{name}" for name in operators],
        "input_shapes": [list(given)],
        "output_shapes": [list(made)],
        "macs": macs,
        "calls": 1,
        "op": op,
    }


def convolution(channels, out, kernel, groups, side=10):
    """The row of a real convolution, counted by its definition."""
    macs = out * side * side * (channels // groups) * kernel * kernel
    return row("convolution", given=(1, channels, side, side), made=(1, out, side, side), macs=macs)


@pytest.mark.parametrize(
    ("channels", "out", "kernel", "groups", "kind"),
    [
        (16, 32, 3, 1, layer_kinds.CONVOLUTION),
        (3, 16, 7, 1, layer_kinds.CONVOLUTION),
        (16, 32, 1, 1, layer_kinds.POINTWISE),
        (16, 16, 3, 16, layer_kinds.GROUPED),
        (24, 24, 5, 24, layer_kinds.GROUPED),
        (96, 96, 7, 96, layer_kinds.GROUPED),
        (64, 64, 3, 4, layer_kinds.GROUPED),
    ],
)
def test_convolutions_are_told_apart_by_their_products(channels, out, kernel, groups, kind):
    assert kind_of(convolution(channels, out, kernel, groups)) == kind


@pytest.mark.parametrize(
    ("operators", "kind"),
    [
        (("addmm",), layer_kinds.LINEAR),
        (("_softmax", "bmm", "clone", "mul"), layer_kinds.ATTENTION),
        (("_scaled_dot_product_flash_attention_for_cpu",), layer_kinds.ATTENTION),
        (("bmm", "add"), layer_kinds.OF_ACTIVATIONS),
        (("bmm", "mm"), layer_kinds.MIXED),
        (("convolution_backward", "mul"), layer_kinds.MIXED),
        (("_fft_r2c", "_fft_c2r"), layer_kinds.FOURIER),
        (("add_", "native_batch_norm"), layer_kinds.NORM),
        (("linalg_vector_norm", "div"), layer_kinds.OTHER),
        (("_softmax",), layer_kinds.SOFTMAX),
        (("silu",), layer_kinds.ACTIVATION),
        (("mean", "mul", "sigmoid"), layer_kinds.OTHER),
        (("max_pool2d_with_indices",), layer_kinds.POOLING),
        ((), layer_kinds.OTHER),
    ],
)
def test_layers_have_the_kind_of_their_products(operators, kind):
    assert kind_of(row(*operators)) == kind


def layers(item, *parts):
    """A record whose layers are these: operators, macs, bytes, time in ms."""
    first = item["layers"][0]
    item["layers"] = [
        {**first, "operators": [name], "macs": macs, "read_bytes": moved, "write_bytes": 0.0, "time_ms": time}
        for name, macs, moved, time in parts
    ]
    return item


def test_a_share_is_the_bound_of_all_layers_of_a_kind_over_their_time():
    item = layers(
        record(), ("aten::mm", 1e9, 0.0, 20.0), ("aten::addmm", 3e9, 1.37e8, 30.0), ("aten::relu", 0, 0.0, 50.0)
    )
    item["machine"] = {
        "peaks": [{"dtype": "fp32", "threads": None, "unit": "op/s", "value": 1.6e11}],
        "bandwidth": {"unit": "B/s", "value": 1.37e10},
    }
    products, activation = shares(item)
    assert (products.kind, products.layers, products.time_ms) == (layer_kinds.LINEAR, 2, 50.0)
    assert products.of_time == activation.of_time == 0.5
    assert products.of_peak == pytest.approx(2 * 4e9 / 1.6e11 / 50e-3)  # 8e9 operations at 1.6e11 take 50 ms: all of it
    assert products.of_bandwidth == pytest.approx(0.2)  # 10 ms of 50
    assert activation.of_peak is None and activation.of_bandwidth == 0.0


def test_an_unknown_peak_is_no_share_and_never_zero():
    item = layers(record(), ("aten::mm", 1e9, 1e6, 20.0))
    item["machine"] = {"peaks": [], "bandwidth": {}}
    (only,) = shares(item)
    assert only.of_peak is None and only.of_bandwidth is None and only.of_time == 1.0


def test_layers_without_times_have_no_shares():
    item = layers(record(), ("aten::mm", 1e9, 1e6, None))
    assert shares(item) == [] and shares({**item, "layers": []}) == []
