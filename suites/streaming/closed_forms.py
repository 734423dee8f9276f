"""Products of a period of steps and of a clip, written down from sizes, for one stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from suites.streaming.stgcn import PARTITIONS, STRIDED
from suites.streaming.stgcn import WIDTHS as SKELETON_WIDTHS
from suites.streaming.video_resnet import BLOCKS, KERNELS
from suites.streaming.x3d import SIZES, WIDTHS, squeezed

Settings = Mapping[str, Any]
#: Products of a layer at one time, its kernel in time where it has one, and how many steps lie between its answers.
Cost = tuple[int, int, int]


def half(side: int) -> int:
    """Side after a stride of 2 with padding."""
    return (side + 1) // 2


# ---------------------------------------------------------------------------------------------- networks of clips


def _tiny(model: Settings) -> Iterator[Cost]:
    side = model.get("resolution", 32)
    for inner, outer, stride in ((1, 8, 2), (8, 16, 2), (16, 16, 1)):
        side = half(side) if stride == 2 else side
        yield 27 * inner * outer * side**2, 3, 1


def _x3d(model: Settings) -> Iterator[Cost]:
    blocks, _, usual = SIZES[model["size"]]
    side = half(model.get("resolution") or usual)
    yield 27 * 24 * side**2, 1, 1
    yield 5 * 24 * side**2, 5, 1
    inner = 24
    for (outer, middle), count in zip(WIDTHS, blocks, strict=True):
        for place in range(count):
            before, side = side, side if place else half(side)
            yield inner * middle * before**2, 1, 1
            yield 27 * middle * side**2, 3, 1
            yield middle * outer * side**2 + (0 if place else inner * outer * side**2), 1, 1
            inner = outer
    yield inner * 432 * side**2, 1, 1


def x3d_gates(model: Settings) -> int:
    """Of all gates, once."""
    blocks = SIZES[model["size"]][0]
    return sum(
        2 * middle * squeezed(middle) * ((count + 1) // 2) for (_, middle), count in zip(WIDTHS, blocks, strict=True)
    )


def _resnet(model: Settings) -> Iterator[Cost]:
    kernels, stem, halved = KERNELS[model["kind"]]
    width, usual = model.get("width", 64), {"slow": 256, "i3d": 224}[model["kind"]]
    side = half(model.get("resolution") or usual)
    yield stem * 49 * 3 * width * side**2, stem, 1
    side, inner, every = half(side), width, 1
    for stage, count in enumerate(BLOCKS):
        middle = width * 2**stage
        for place in range(count):
            kernel = kernels[stage][place % len(kernels[stage])]
            yield kernel * inner * middle * side**2, kernel, every
            side = half(side) if stage and not place else side
            outer = 4 * middle
            projected = 0 if place else inner * outer
            yield (9 * middle**2 + middle * outer + projected) * side**2, 1, every
            inner = outer
        every *= 2 if halved and not stage else 1


def _skeleton(model: Settings) -> Iterator[Cost]:
    joints, persons = model.get("joints", 25), model.get("persons", 2)
    kernel, inner, every = model.get("kernel", 9), 3, 1
    for place, outer in enumerate(SKELETON_WIDTHS):
        graph = PARTITIONS * joints * outer * (inner + joints)
        yield graph * persons, 1, every
        every *= 2 if model.get("strided", True) and place in STRIDED else 1
        yield kernel * joints * outer**2 * persons, kernel, every
        yield (joints * inner * outer * persons if place and inner != outer else 0), 1, every
        inner = outer


def _layers(model: Settings) -> list[Cost]:
    if "size" in model:
        return list(_x3d(model))
    if "kind" in model:
        return list(_resnet(model))
    return list(_skeleton(model) if "strided" in model else _tiny(model))


def _head(model: Settings) -> int:
    if "size" in model:
        return 432 * 2048 + 2048 * model.get("classes", 400)
    if "kind" in model:
        return 32 * model.get("width", 64) * model.get("classes", 400)
    return 256 * model.get("classes", 60) if "strided" in model else 16 * model.get("classes", 20)


def co3d(model: Settings, method: Settings) -> int:
    """One period of steps, of one call each; a chunk is so many frames in one call. Every form needs the same."""
    return _period(model, method, executed=False)


def executed(model: Settings, method: Settings) -> int:
    """The same with what the published library's form multiplies on zeros: each kernel as often as it is long."""
    return _period(model, method, executed=method.get("form", "inputs") == "library")


def _period(model: Settings, method: Settings, *, executed: bool) -> int:
    layers = _layers(model)
    if method.get("strides", "keep") == "drop":
        layers = [(macs, kernel, 1) for macs, kernel, _ in layers]
    period = max(every for _, _, every in layers)
    body = sum(macs * (kernel if executed else 1) * period // every for macs, kernel, every in layers)
    gates = x3d_gates(model) if "size" in model else 0
    return method.get("chunk", 1) * (body + gates * period + _head(model))


def co_stgcn(model: Settings, method: Settings) -> int:
    """One period of steps."""
    return co3d(model, {"strides": method.get("strides", "keep")})


def clip(model: Settings, method: Settings) -> int:
    """One window of a network of clips that pads with zeros: one gate for all its frames, one head."""
    del method
    usual = SIZES[model["size"]][1] if "size" in model else 300 if "strided" in model else 8
    frames = model.get("frames") or usual
    # a maximum over two frames leaves an odd one out, a padded convolution of stride 2 does not
    over = 0 if "kind" in model else 1
    body = sum(macs * ((frames + over * (every - 1)) // every) for macs, _, every in _layers(model))
    return body + (x3d_gates(model) if "size" in model else 0) + _head(model)


# ------------------------------------------------------------------------------------------------------- encoders


def co_transformer(model: Settings, method: Settings) -> int:
    """One step in steady state that makes no sums anew."""
    n, d, f = model["n"], model["d"], model["f"]
    layers, ends = model.get("layers", 1), model["d_in"] * d + d * model["classes"]
    if layers == 1:
        return ends + 4 * d**2 + 2 * n * d + 2 * d * f
    retroactive = 3 * d**2 + 4 * (n - 1) * d + 2 * n * d + n * d**2 + 2 * n * d * f
    between = 4 * n * d**2 + 2 * n**2 * d + 2 * n * d * f
    queries = n if method.get("last_q", "all") == "all" else 1
    last = (2 * n + queries) * d**2 + 2 * n * d + d**2 + 2 * d * f
    return ends + retroactive + (layers - 2) * between + last


def offline_encoder(model: Settings, *, last: bool = False) -> int:
    """The whole window; with `last` the last layer makes its newest token alone."""
    n, d, f = model["n"], model["d"], model["f"]
    whole = 4 * n * d**2 + 2 * n**2 * d + 2 * n * d * f
    newest = 2 * n * d**2 + 2 * d**2 + 2 * n * d + 2 * d * f
    layers = model.get("layers", 1)
    ends = n * model["d_in"] * d + d * model["classes"]
    return ends + (layers - 1) * whole + (newest if last else whole)
