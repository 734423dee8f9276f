"""Random architectures: the closed form, summed while the network is built, equals both counters."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from bench.meters import layers, macs
from tests.meters.networks import Block

CONVOLUTION = st.tuples(
    st.integers(1, 3),  # groups
    st.integers(1, 3),  # input channels per group
    st.integers(1, 3),  # output channels per group
    st.integers(1, 3),  # kernel
    st.integers(1, 2),  # stride
    st.integers(0, 2),  # padding
    st.booleans(),  # transposed
)
TAIL = st.lists(st.tuples(st.sampled_from(["linear", "block", "norm", "gelu"]), st.integers(1, 4)), max_size=5)


def _convolution(settings_: tuple[int, ...], batch: int, side: int) -> tuple[nn.Module, torch.Tensor, int]:
    groups, per_in, per_out, kernel, stride, padding, transposed = settings_
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    module = kind(
        groups * per_in, groups * per_out, kernel, stride=stride, padding=0 if transposed else padding, groups=groups
    )
    if transposed:
        taps = side * side * groups * per_in * per_out * kernel * kernel
    else:
        out = (side + 2 * padding - kernel) // stride + 1
        taps = out * out * groups * per_out * per_in * kernel * kernel
    return module, torch.randn(batch, groups * per_in, side, side), batch * taps


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONVOLUTION, st.integers(1, 2), st.integers(4, 8))
def test_any_convolution(settings_: tuple[int, ...], batch: int, side: int) -> None:
    module, image, expected = _convolution(settings_, batch, side)
    count = macs.count(module, (image,))
    assert count.macs == expected == count.second["products"]


def _tail(parts: list[tuple[str, int]], batch: int, tokens: int) -> tuple[nn.Module, int, int]:
    """A network on [B, N, 8 k] tokens, its MACs and its layer-norm elements."""
    width, total, norms = 8, 0, 0
    modules: list[nn.Module] = [nn.Identity()]
    rows = batch * tokens
    for kind, size in parts:
        if kind == "linear":
            modules.append(nn.Linear(width, 8 * size))
            total += rows * width * 8 * size
            width = 8 * size
        elif kind == "block":
            modules.append(Block(width, 4))
            total += rows * 12 * width**2 + 2 * batch * tokens**2 * width
            norms += 2 * rows * width
        elif kind == "norm":
            modules.append(nn.LayerNorm(width))
            norms += rows * width
        else:
            modules.append(nn.GELU())
    return nn.Sequential(*modules).eval(), total, norms


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TAIL, st.integers(1, 3), st.integers(1, 6))
def test_any_token_network_in_both_conventions_and_its_layer_table(
    parts: list[tuple[str, int]], batch: int, tokens: int
) -> None:
    network, expected, norms = _tail(parts, batch, tokens)
    x = torch.randn(batch, tokens, 8)
    count = macs.count(network, (x,))
    assert count.macs == expected == count.second["products"]
    assert count.value("fvcore") == expected + 5 * norms == count.fvcore_macs
    table = layers.table(network, (x,), repeats=0, counted=count)
    assert sum(row["macs"] for row in table.rows) == expected
    assert sum(row["read_bytes"] + row["write_bytes"] for row in table.rows) == count.traffic_bytes
