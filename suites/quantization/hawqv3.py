"""HAWQV3: integer-only inference with dyadic rescaling, bits by an integer programme (Yao et al. 2021, 2011.10680).

Bits: minimise the sum over layers of trace/n ||W - Q_b(W)||^2 over 4 and 8 bits within a budget of bytes, bit
operations or time (`suites.quantization.allocate`); the first convolution and the classifier keep 8 bits; the shortcut
of a unit shares the bits of one of its convolutions. `integer_only` makes the network of
`suites.quantization.integer_net`, which is 8 bits throughout: no CPU multiplies 4-bit numbers, so mixed rows are
simulated. A budget of time needs the time of every layer at 4 bits too, which therefore only a printed table has.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt, Rate
from suites.common.digits_resnet import DigitsResnet
from suites.quantization import hawqv3_tables
from suites.quantization.allocate import Allocation, allocate
from suites.quantization.cost import costed
from suites.quantization.hawq import loss_closure
from suites.quantization.hessian import trace
from suites.quantization.integer_net import IntegerResnet
from suites.quantization.layers import IntLayer
from suites.quantization.network import (
    Layer,
    calibration_batches,
    folded,
    needs_layers,
    on_meta,
    own_inputs,
    shown,
    watched,
)
from suites.quantization.packing import code_bytes
from suites.quantization.rounding import rounded_network
from suites.quantization.whitepaper import activation_grids, rounded_weight, static

#: Shortcuts that share bits with a convolution of their unit, by places among the inner convolutions, in execution
#: order with the shortcut after the last convolution of its unit.
RESNET18_TIES = ((4, 6), (9, 11), (14, 16))
ENDS = 2


@costed
def hawqv3(
    model: nn.Module,
    *,
    bits: str = "",
    budget: Rate = 0.5,
    constraint: Literal["bytes", "bit_operations", "latency"] = "bytes",
    table: Literal["", "resnet18"] = "",
    integer_only: bool = False,
    samples: PositiveInt = 64,
    probes: PositiveInt = 20,
    seed: Count = 0,
) -> nn.Module:
    """The network with 4 or 8 bits a layer, or integer-only at 8; bits "off" leave it as it is.

    Args:
        model: of convolutions and linear layers in execution order, the classifier last.
        bits: of the inner layers, a digit each ("8884..."), or one digit for all; empty: by the integer programme.
        budget: r, the share of the budget between uniform 4 and uniform 8.
        constraint: what is budgeted; latency needs a table, as no CPU has a product of 4 bits to be timed.
        table: `resnet18` takes the paper's traces, errors and times of a T4 instead of this network's own.
        integer_only: no float operator between input and logits; a `digits_resnet*` at 8 bits.
        samples: that ranges and curvature are taken from.
        probes: vectors of a trace at most.
        seed: of samples and probes.

    Raises:
        ValueError: bits or a table that do not fit the network, or an integer-only network that is none of ours.
        NotImplementedError: a budget of time without a table.
    """
    if bits == "off":
        return model
    if integer_only:
        if not isinstance(model, DigitsResnet) or set(bits) - {"8"}:
            raise ValueError(
                "integer_only=True builds a digits_resnet20 (or digits_resnet) at 8 bits: leave bits empty"
            )
        folded(model)
        batches = [] if on_meta(model) else calibration_batches(model, samples, seed)
        return IntegerResnet(model, batches).eval()
    folded(model)
    layers = needs_layers(model, "hawqv3")
    inner = _inner(layers)
    if bits:
        word = bits * len(inner) if len(bits) == 1 else bits
        if len(word) != len(inner) or set(word) - {"4", "8"}:
            raise ValueError(f'bits="{bits}": {len(inner)} inner layers need as many digits of 4 and 8, or one for all')
    elif table:
        word = programme_of_tables(model, layers, budget, constraint).text
    elif constraint == "latency":
        raise NotImplementedError(_no_times(model, layers, samples, seed))
    elif on_meta(model):
        word = "8" * len(inner)
    else:
        word = programme(model, layers, budget, constraint, samples, probes, seed).text
    widths = dict.fromkeys(layers, 8.0) | {p: float(w) for p, w in zip(inner, word, strict=True)}
    model.widths = widths  # type: ignore[assignment]
    batches = [] if on_meta(model) else calibration_batches(model, samples, seed)
    eight, four = (activation_grids(model, layers, batches, width) for width in (8, 4))
    return rounded_network(
        model,
        layers,
        lambda path, weight: rounded_weight(weight, int(widths[path]), "channel", True),
        lambda path, _: static(eight[path] if widths[path] == 8 else four[path]),
        widths,
        widths,
    )


def _inner(layers: dict[str, Layer]) -> list[str]:
    """Layers between the first and the classifier.

    Raises:
        ValueError: there are none.
    """
    if len(layers) <= ENDS:
        raise ValueError(f"{len(layers)} layers have none between the first and the classifier")
    return list(layers)[1:-1]


def tied_pairs(inner: list[str]) -> list[tuple[int, int]]:
    """Each shortcut with the first convolution of its unit, by places."""
    found = []
    for place, path in enumerate(inner):
        for mark in ("shortcut", "downsample"):
            unit, _, rest = path.partition(f".{mark}")
            if rest:
                first = next(i for i, other in enumerate(inner) if other.startswith(f"{unit}."))
                found.append((first, place))
    return found


def programme(
    model: nn.Module, layers: dict[str, Layer], budget: float, constraint: str, samples: int, probes: int, seed: int
) -> Allocation:
    """The integer programme's bits of the inner layers."""
    inner = _inner(layers)
    with torch.inference_mode(False):
        closure = loss_closure(model, samples, seed)
        traces = [trace(closure, [layers[p].weight], samples=probes, seed=seed) for p in inner]
    sensitivity = []
    for path, found in zip(inner, traces, strict=True):
        weight = layers[path].weight.detach()
        errors = {b: float((rounded_weight(weight, b, "channel", True) - weight).square().sum()) for b in (4, 8)}
        sensitivity.append(found / weight.numel() * (errors[8] - errors[4]))
    return allocate(sensitivity, *_costs(model, layers, constraint), tied_pairs(inner), budget)


def programme_of_tables(model: nn.Module, layers: dict[str, Layer], budget: float, constraint: str) -> Allocation:
    """The integer programme's bits of a ResNet-18 by the paper's own sensitivities and times.

    Raises:
        ValueError: the network does not have the layers of a ResNet-18.
    """
    inner, printed = _inner(layers), hawqv3_tables.sensitivity()
    if len(inner) != len(printed) or tuple(tied_pairs(inner)) != RESNET18_TIES:
        raise ValueError(
            f'table="resnet18" holds {len(printed)} inner layers of a ResNet-18, and this network has {len(inner)}'
        )
    if constraint == "latency":
        return allocate(printed, hawqv3_tables.MS_4, hawqv3_tables.MS_8, RESNET18_TIES, budget)
    return allocate(printed, *_costs(model, layers, constraint), RESNET18_TIES, budget)


def _costs(model: nn.Module, layers: dict[str, Layer], constraint: str) -> tuple[list[float], list[float]]:
    """Bytes of the inner layers' weights, or bit operations of one sample, at 4 and at 8 bits."""
    inner = _inner(layers)
    if constraint == "bytes":
        return [layers[p].weight.numel() / 2 for p in inner], [float(layers[p].weight.numel()) for p in inner]
    macs = _macs(model, layers)
    return [16.0 * macs[p] for p in inner], [64.0 * macs[p] for p in inner]


def _no_times(model: nn.Module, layers: dict[str, Layer], samples: int, seed: int) -> str:
    """Why there is no budget of time here: what could be timed, and what could not."""
    found = {} if on_meta(model) else int8_ms(model, layers, calibration_batches(model, samples, seed)[:1])
    said = f" (in 8 bits the inner layers took {sum(found[p] for p in _inner(layers)):.3g} ms)" if found else ""
    return (
        f"a budget of time needs each layer's time in 4 bits, and no CPU multiplies 4-bit numbers{said}: take "
        'constraint="bytes" or "bit_operations", or table="resnet18" with a ResNet-18'
    )


def int8_ms(
    model: nn.Module, layers: dict[str, Layer], batches: list[tuple[Tensor, ...]], runs: PositiveInt = 5
) -> dict[str, float]:
    """Milliseconds of each layer as a whole-number layer on what it is given of the batches: the least of some runs."""
    grids, seen = activation_grids(model, layers, batches, 8), dict[str, Tensor]()

    def see(path: str, x: Tensor) -> None:
        seen[path] = x.detach()

    with watched(layers, see):
        shown(model, batches[:1])
    found = {}
    with torch.no_grad():
        for path, x in seen.items():
            made, taken = IntLayer(layers[path], grids[path]), []
            for _ in range(runs):
                start = time.perf_counter_ns()
                made(x)
                taken.append((time.perf_counter_ns() - start) / 1e6)
            found[path] = min(taken)
    return found


def _macs(model: nn.Module, layers: dict[str, Layer]) -> dict[str, int]:
    """MACs of each layer of one sample."""
    found = dict.fromkeys(layers, 0)

    def hook(path: str, layer: Layer) -> Callable[..., None]:
        def see(_: nn.Module, __: object, out: Tensor) -> None:
            each = out[0].numel() * layer.weight[0].numel()
            found[path] += each

        return see

    handles = [layer.register_forward_hook(hook(path, layer)) for path, layer in layers.items()]
    with torch.no_grad():
        model(*own_inputs(model, 1))
    for handle in handles:
        handle.remove()
    return found


# ---------------------------------------------------------------------------------------------- closed forms


def assigned_bytes(weights: list[int], bits: str) -> int:
    """Bytes of all weights, of each layer whole ones: the first and the last at 8 bits, the others by their digit."""
    inner = sum(code_bytes(count, int(width)) for count, width in zip(weights[1:-1], bits, strict=True))
    return weights[0] + weights[-1] + inner


def assigned_bit_operations(macs: list[int], bits: str) -> int:
    """Bit operations: MACs x w x a, activations as wide as weights, the ends at 8."""
    inner = sum(count * int(width) ** 2 for count, width in zip(macs[1:-1], bits, strict=True))
    return 64 * (macs[0] + macs[-1]) + inner


def resnet_layers(depth: Literal[18, 50], resolution: int = 224, classes: int = 1000) -> tuple[list[int], list[int]]:
    """Weights and MACs of each layer of ResNet-18 or -50, in execution order (stride in a unit's first convolution).

    Raises:
        ValueError: another depth.
    """
    blocks = {18: [2, 2, 2, 2], 50: [3, 4, 6, 3]}.get(depth)
    if blocks is None:
        raise ValueError(f"depth={depth}: 18 or 50")
    side = -(-resolution // 2)
    shapes = [(3, 64, 7, side)]
    side, width = -(-side // 2), 64
    for stage, count in enumerate(blocks):
        narrow = 64 * 2**stage
        wide = narrow * (1 if depth == 18 else 4)
        for unit in range(count):
            stride = 2 if unit == 0 and stage else 1
            out = -(-side // stride)
            if depth == 18:
                shapes += [(width, narrow, 3, out), (narrow, narrow, 3, out)]
            else:
                shapes += [(width, narrow, 1, out), (narrow, narrow, 3, out), (narrow, wide, 1, out)]
            if width != wide:
                shapes.append((width, wide, 1, out))
            side, width = out, wide
    weights = [a * b * k * k for a, b, k, _ in shapes] + [width * classes]
    macs = [a * b * k * k * s * s for a, b, k, s in shapes] + [width * classes]
    return weights, macs
