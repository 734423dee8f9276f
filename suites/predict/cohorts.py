"""The cohorts: rows of the look-up table stage by stage, rows of MobileNetV2, and whole networks of every family.

Names of entries are those of `suites.predict.networks`, which says what they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

from torch import nn

from bench.config.settings import Count, PositiveInt
from suites.common import fbnet
from suites.common.conv_blocks import PooledHead, conv_norm
from suites.common.inverted import InvertedBottleneck
from suites.predict import networks
from suites.predict.cohort import Cohort, settled

Made = tuple[nn.Module, tuple[int, ...]]
#: Networks that are measured by width in per cent where none is named.
WIDTHS = [50, 100, 140]


def fbnet_rows(
    *,
    stage: Count = 1,
    resolution: PositiveInt = 224,
    inputs: Literal["warm", "cold"] = "warm",
    form: Literal["plain", "folded", "channels_last"] = "plain",
) -> Cohort:
    """Every distinct row of one stage of the table; stage 0 has the stem and the heads, 8 the skips that are a layer.

    Args:
        stage: 1 to 7 as in the paper's table 1, or 0 or 8.
        resolution: side of the picture that the table is for.
        inputs: whether a row finds caches as its last run left them, or cold.
        form: as the rows are, with norms folded, or with channels last in memory.

    Raises:
        ValueError: there is no such stage.
    """
    if stage > 8:
        raise ValueError(f"stage={stage}: a table has stages 0 to 8")
    return settled(fbnet_modules(stage, resolution), form, inputs)


def fbnet_modules(stage: int, resolution: int) -> dict[str, Made]:
    """The rows of a stage by their keys, each with the shape of its input."""
    if stage == 0:
        return _ends(resolution)
    found: dict[str, Made] = {}
    for place in fbnet.places(resolution):
        for candidate in fbnet.CANDIDATES:
            row = place.row(candidate)
            skips = row is not None and not row[3]
            if row is None or skips != (stage == 8) or stage not in (8, place.stage):
                continue
            key = networks.fbnet_block(place.inputs, place.side, row).key
            found.setdefault(key, (fbnet.block(place.inputs, row), (place.inputs, place.side, place.side)))
    return found


def _ends(resolution: int) -> dict[str, Made]:
    """The stem and the two heads of the released networks."""
    final = fbnet.places(resolution)[-1]
    side = -(-final.side // final.stride)
    found: dict[str, Made] = {
        networks.stem(fbnet.STEM, resolution).key: (
            conv_norm(3, fbnet.STEM, 3, 2, act=nn.ReLU),
            (3, resolution, resolution),
        )
    }
    for last, _ in fbnet.RELEASED.values():
        key = networks.head(final.outputs, last, side).key
        found[key] = (_head(final.outputs, last, nn.ReLU), (final.outputs, side, side))
    return found


def _head(inputs: int, last: int, act: type[nn.Module], classes: int = networks.CLASSES) -> nn.Sequential:
    return nn.Sequential(conv_norm(inputs, last, act=act), PooledHead(last, classes))


def mobile_rows(
    *,
    width: PositiveInt = 100,
    resolution: PositiveInt = 224,
    inputs: Literal["warm", "cold"] = "warm",
    form: Literal["plain", "folded", "channels_last"] = "plain",
) -> Cohort:
    """Every distinct row of a MobileNetV2, its stem and its head.

    Args:
        width: in per cent; 100 is the plain one.
        resolution: side of the picture.
        inputs: see `fbnet_rows`.
        form: see `fbnet_rows`.
    """
    layers = _mobile_layers(width, resolution)
    rows = networks.mobilenetv2(width, resolution).rows
    found: dict[str, Made] = {}
    for row, (module, shape) in zip(rows, layers, strict=True):
        found.setdefault(row.key, (module, shape))
    return settled(found, form, inputs)


def _mobile_layers(percent: int, resolution: int) -> list[Made]:
    """The layers of a MobileNetV2 from its stem to its head, each with the shape of its input."""
    blocks = networks.mobile_blocks(percent / 100, resolution)
    found: list[Made] = [(conv_norm(3, blocks[0].inputs, 3, 2, act=nn.ReLU6), (3, resolution, resolution))]
    for block in blocks:
        made = InvertedBottleneck(
            block.inputs, block.outputs, hidden=block.inputs * block.expansion, stride=block.stride, act=nn.ReLU6,
            widen=block.expansion > 1,
        )  # fmt: skip
        found.append((made, (block.inputs, block.side, block.side)))
    final = blocks[-1]
    side = -(-final.side // final.stride)
    last = networks.mobile_last(percent / 100)
    return [*found, (_head(final.outputs, last, nn.ReLU6), (final.outputs, side, side))]


def fbnet_networks(
    *,
    released: bool = False,
    first: Count = 0,
    count: Count = 1,
    resolution: PositiveInt = 224,
    inputs: Literal["warm", "cold"] = "warm",
    form: Literal["plain", "folded", "channels_last"] = "plain",
) -> Cohort:
    """FBNet-A, -B and -C, or random networks of the search space, whole.

    Args:
        released: the three instead of random ones.
        first: number of the first random network.
        count: of random networks.
        resolution: side of the picture.
        inputs: see `fbnet_rows`.
        form: see `fbnet_rows`.

    Raises:
        ValueError: no network at all.
    """
    names = [f"fbnet_{plan}" for plan in fbnet.RELEASED] if released else _numbered("fbnet_random", first, count)
    picture = (3, resolution, resolution)
    return settled({name: (_fbnet(name, resolution), picture) for name in names}, form, inputs)


def _numbered(kind: str, first: int, count: int) -> list[str]:
    if count < 1:
        raise ValueError("count=0: a cohort has a network at least")
    return [f"{kind}_{number}" for number in range(first, first + count)]


def _fbnet(name: str, resolution: int) -> nn.Sequential:
    plan = name.removeprefix("fbnet_")
    if plan in fbnet.PLANS:
        return fbnet.fbnet(plan=plan, resolution=resolution)  # type: ignore[arg-type]
    rows = fbnet.rows_of(fbnet.drawn(int(plan.removeprefix("random_"))))
    return fbnet.from_rows(rows, fbnet.RELEASED["c"][0], networks.CLASSES, resolution)


def mobile_networks(
    *,
    widths: list[PositiveInt] = WIDTHS,
    resolution: PositiveInt = 224,
    inputs: Literal["warm", "cold"] = "warm",
    form: Literal["plain", "folded", "channels_last"] = "plain",
) -> Cohort:
    """MobileNetV2s of these widths, whole.

    Args:
        widths: in per cent.
        resolution: side of the picture.
        inputs: see `fbnet_rows`.
        form: see `fbnet_rows`.

    Raises:
        ValueError: no width.
    """
    if not widths:
        raise ValueError("widths=[]: a cohort has a network at least")
    picture = (3, resolution, resolution)
    made: dict[str, Made] = {
        f"mobilenetv2_{width}": (nn.Sequential(*(layer for layer, _ in _mobile_layers(width, resolution))), picture)
        for width in widths
    }
    return settled(made, form, inputs)


def dense_networks(
    *, first: Count = 0, count: Count = 50, exemplars: bool = False, inputs: Literal["warm", "cold"] = "warm"
) -> Cohort:
    """Generated dense networks, or the seven exemplars of wa-hls4ml.

    Args:
        first: number of the first.
        count: of generated ones.
        exemplars: the seven instead.
        inputs: see `fbnet_rows`.

    Raises:
        ValueError: no network at all.
    """
    names: Iterable[str] = networks.EXEMPLARS if exemplars else _numbered("dense", first, count)
    made: dict[str, Made] = {}
    for name in names:
        widths = networks.EXEMPLARS[name] if exemplars else networks.dense_widths(int(name.removeprefix("dense_")))
        made[name] = (dense_layers(widths), (widths[0],))
    return settled(made, "plain", inputs)


def dense_layers(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def conv_networks(*, first: Count = 0, count: PositiveInt = 50, inputs: Literal["warm", "cold"] = "warm") -> Cohort:
    """Generated convolutional networks.

    Args:
        first: number of the first.
        count: of networks.
        inputs: see `fbnet_rows`.

    Raises:
        ValueError: no network at all.
    """
    made: dict[str, Made] = {}
    for name in _numbered("conv", first, count):
        plan = networks.conv_plan(int(name.removeprefix("conv_")))
        made[name] = (conv_layers(plan), (3, plan.side, plan.side))
    return settled(made, "plain", inputs)


def conv_layers(plan: networks.ConvPlan) -> nn.Sequential:
    """Convolutions with norm and ReLU, the mean over the map, a classifier."""
    pairs = zip(plan.channels, plan.channels[1:], plan.strides, strict=False)
    layers = [conv_norm(a, b, networks.CONV_KERNEL, stride, act=nn.ReLU) for a, b, stride in pairs]
    return nn.Sequential(*layers, PooledHead(plan.channels[-1], networks.CONV_CLASSES))
