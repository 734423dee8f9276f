"""Channels that have to go together, for the convolutional networks of this suite, and their removal.

A group is a set of channels that several layers make and several read: the inner channels of a block, or the trunk of a
stage, whose residual sums tie all its members. Removing keeps each member's rows or columns; the result equals the
network in which the channel's convolution, gain and bias were zeroed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from suites.common.cut_attention import linear_cut
from suites.common.digits_resnet import DigitsResnet
from suites.pruning.layers import swap
from suites.pruning.nets.mobilenet import MobileNetV1
from suites.pruning.nets.resnet_cifar import ResnetCifar
from suites.pruning.nets.resnet_imagenet import ResnetImage
from suites.pruning.nets.vgg import Vgg
from suites.pruning.nets.yolov8 import C2f, Conv, YoloV8


@dataclass(frozen=True)
class Group:
    """Channels that go together.

    Attributes:
        name: of the layer that makes them first.
        size: how many there are.
        outs: (layer, its norm or empty, first of its outputs that belong here).
        ins: (layer, first of its inputs that belong here).
        shortcuts: (shortcut without parameters, whether its inputs, its outputs are these channels).
        trunk: they run through residual sums of a stage.
    """

    name: str
    size: int
    outs: tuple[tuple[str, str, int], ...]
    ins: tuple[tuple[str, int], ...]
    shortcuts: tuple[tuple[str, bool, bool], ...] = field(default=())
    trunk: bool = False


def groups_of(model: nn.Module, method: str) -> list[Group]:
    """The groups of a network of this suite, trunk groups last.

    Raises:
        ValueError: a network whose channels are not described here.
    """
    for kind, describe in DESCRIBED.items():
        if isinstance(model, kind):
            return sorted(describe(model), key=lambda group: group.trunk)
    known = ", ".join(kind.__name__ for kind in DESCRIBED)
    raise ValueError(
        f"{method} removes channels, and which of {type(model).__name__}'s channels go together is not described here "
        f"({known}); channel_slim follows any network through torch-pruning's dependency graph"
    )


def keep_channels(model: nn.Module, group: Group, keep: Tensor) -> None:
    """Go on with the given channels of a group alone, in place.

    Raises:
        ValueError: none is kept.
    """
    if not len(keep):
        raise ValueError(f"group {group.name}: one channel at least has to stay")
    for path in dict.fromkeys(path for path, _, _ in group.outs):
        offsets = [offset for other, _, offset in group.outs if other == path]
        layer = model.get_submodule(path)
        rows = _kept_places(_outputs(layer), group.size, offsets, keep)
        swap(model, path, _cut(layer, outputs=rows))
    for path in dict.fromkeys(norm for _, norm, _ in group.outs if norm):
        offsets = [offset for _, norm, offset in group.outs if norm == path]
        norm = model.get_submodule(path)
        swap(model, path, _cut_norm(norm, _kept_places(norm.num_features, group.size, offsets, keep)))  # type: ignore[arg-type]
    for path in dict.fromkeys(path for path, _ in group.ins):
        offsets = [offset for other, offset in group.ins if other == path]
        layer = model.get_submodule(path)
        swap(model, path, _cut(layer, inputs=_kept_places(_inputs(layer), group.size, offsets, keep)))
    for path, reads, writes in group.shortcuts:
        shortcut = model.get_submodule(path)
        inner, outer = (torch.arange(int(n), device="cpu") for n in (shortcut.inner, shortcut.outer))  # type: ignore[arg-type]
        shortcut.keep(keep if reads else inner, keep if writes else outer)  # type: ignore[operator]


@torch.no_grad()
def zero_channels(model: nn.Module, group: Group, drop: Tensor) -> None:
    """Zero the given channels where they are made: filters, biases, gains and shifts; the slow form of removal."""
    for path, norm, offset in group.outs:
        for part in (model.get_submodule(path), *([model.get_submodule(norm)] if norm else [])):
            part.weight[drop + offset] = 0  # type: ignore[operator]
            if part.bias is not None:
                part.bias[drop + offset] = 0  # type: ignore[operator]
    for path, _, writes in group.shortcuts:
        if writes:
            model.get_submodule(path).silence(drop)  # type: ignore[operator]


def _kept_places(total: int, size: int, offsets: Sequence[int], keep: Tensor) -> Tensor:
    """Places of `total` that stay where each stretch of `size` from an offset keeps `keep`."""
    stays = torch.ones(total, dtype=torch.bool, device="cpu")
    for offset in offsets:
        stays[offset : offset + size] = False
        stays[offset + keep.cpu()] = True
    return stays.nonzero()[:, 0]


def _outputs(layer: nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def _inputs(layer: nn.Module) -> int:
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)  # type: ignore[arg-type]


def _cut(layer: nn.Module, outputs: Tensor | None = None, inputs: Tensor | None = None) -> nn.Module:
    """A layer with the given outputs or inputs alone; a depthwise convolution keeps both alike."""
    if isinstance(layer, nn.Linear):
        return linear_cut(layer, outputs=outputs, inputs=inputs)
    assert isinstance(layer, nn.Conv2d)
    weight = layer.weight.detach()
    depthwise = layer.groups > 1
    if outputs is not None:
        weight = weight.index_select(0, outputs.to(weight.device))
    if inputs is not None and not depthwise:
        weight = weight.index_select(1, inputs.to(weight.device))
    channels = (weight.shape[0], weight.shape[0]) if depthwise else (weight.shape[1], weight.shape[0])
    made = nn.Conv2d(
        *channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,  # type: ignore[arg-type]
        groups=channels[0] if depthwise else 1, bias=layer.bias is not None, device="meta",
    )  # fmt: skip
    made.weight = nn.Parameter(weight.clone())
    if layer.bias is not None:
        bias = layer.bias.detach()
        made.bias = nn.Parameter((bias if outputs is None else bias.index_select(0, outputs.to(bias.device))).clone())
    return made.train(layer.training)


def _cut_norm(norm: nn.BatchNorm2d, keep: Tensor) -> nn.Module:
    made = type(norm)(len(keep), norm.eps, norm.momentum)
    state = norm.state_dict()
    made.to(norm.weight.device, norm.weight.dtype)
    made.load_state_dict(
        {name: value[keep.to(value.device)] if value.ndim else value for name, value in state.items()}, assign=True
    )
    made.requires_grad_(norm.weight.requires_grad)
    return made.train(norm.training)


# ------------------------------------------------------------------------------------------------- the networks


def _resnet_cifar(model: ResnetCifar) -> list[Group]:
    blocks = [f"blocks.{i}" for i in range(len(model.blocks))]
    found = [_mid(model, block) for block in blocks]
    each = len(blocks) // 3
    for stage in range(3):
        own = blocks[stage * each : (stage + 1) * each]
        after = blocks[(stage + 1) * each : (stage + 1) * each + 1]
        outs = [("conv1", "bn1", 0)] if stage == 0 else []
        outs += [(f"{block}.conv2", f"{block}.bn2", 0) for block in own]
        readers = [*(own if stage == 0 else own[1:]), *after]
        ins = [(f"{block}.conv1", 0) for block in readers] + ([] if after else [("head", 0)])
        shortcuts = [(f"{block}.shortcut", stage == 0 or i > 0, True) for i, block in enumerate(own)]
        shortcuts += [(f"{block}.shortcut", True, False) for block in after]
        size = model.blocks[stage * each].conv2.out_channels  # type: ignore[union-attr]
        name = f"{own[0]}.conv2"
        found.append(Group(name, int(size), tuple(outs), tuple(ins), tuple(shortcuts), trunk=True))  # type: ignore[arg-type]
    return found


def _mid(model: nn.Module, block: str, first: str = "conv1", norm: str = "bn1", second: str = "conv2") -> Group:
    size = _outputs(model.get_submodule(f"{block}.{first}"))
    return Group(f"{block}.{first}", size, ((f"{block}.{first}", f"{block}.{norm}", 0),), ((f"{block}.{second}", 0),))


def _residual(
    model: nn.Module, stages: Sequence[Sequence[str]], stem: tuple[str, str], head: str, last: str, norm: str
) -> list[Group]:
    """Trunk groups of a network whose shortcuts are 1x1 convolutions where shapes change."""
    found, before = [], [(*stem, 0)]
    reading: list[tuple[str, int]] = []
    for blocks in stages:
        for block in blocks:
            reading.append((f"{block}.conv1", 0))
            shortcut = model.get_submodule(f"{block}.shortcut")
            if isinstance(shortcut, nn.Sequential):
                reading.append((f"{block}.shortcut.0", 0))
                found.append(_trunk(model, before, reading))
                before, reading = [(f"{block}.shortcut.0", f"{block}.shortcut.1", 0)], []
            before.append((f"{block}.{last}", f"{block}.{norm}", 0))
    return [*found, _trunk(model, before, [(head, 0), *reading])]


def _trunk(model: nn.Module, outs: list[tuple[str, str, int]], ins: list[tuple[str, int]]) -> Group:
    size = _outputs(model.get_submodule(outs[0][0]))
    return Group(outs[0][0], size, tuple(outs), tuple(ins), trunk=True)


def _digits_resnet(model: DigitsResnet) -> list[Group]:
    names = [[f"stage{i}.{j}" for j in range(len(getattr(model, f"stage{i}")))] for i in (1, 2, 3)]
    mids = [_mid(model, block) for stage in names for block in stage]
    return mids + _residual(model, names, ("stem", "bn"), "head", "conv2", "bn2")


def _resnet_image(model: ResnetImage) -> list[Group]:
    blocks = [f"blocks.{i}" for i in range(len(model.blocks))]
    bottleneck = bool(model.blocks[0].bottleneck)
    mids = [_mid(model, block) for block in blocks]
    if bottleneck:
        mids += [_mid(model, block, "conv2", "bn2", "conv3") for block in blocks]
    last, norm = ("conv3", "bn3") if bottleneck else ("conv2", "bn2")
    return mids + _residual(model, [blocks], ("conv1", "bn1"), "head", last, norm)


def _vgg(model: Vgg) -> list[Group]:
    places = [i for i, layer in enumerate(model.features) if isinstance(layer, nn.Conv2d)]
    found = []
    for place, following in zip(places, [*places[1:], None], strict=True):
        norm = isinstance(model.features[place + 1], nn.BatchNorm2d)
        head = "head" if isinstance(model.head, nn.Linear) else "head.0"
        if following is None and not model.pooled:
            continue  # the flattened map is read place by place: its channels stay
        reader = head if following is None else f"features.{following}"
        size = _outputs(model.features[place])
        out = (f"features.{place}", f"features.{place + 1}" if norm else "", 0)
        found.append(Group(out[0], size, (out,), ((reader, 0),)))
    return found


def _mobilenet(model: MobileNetV1) -> list[Group]:
    count, found = len(model.blocks), []
    for i in range(count + 1):
        makes = ("stem", "bn") if i == 0 else (f"blocks.{i - 1}.pointwise", f"blocks.{i - 1}.bn2")
        size = _outputs(model.get_submodule(makes[0]))
        outs = [(*makes, 0)]
        if i < count:
            outs.append((f"blocks.{i}.depthwise", f"blocks.{i}.bn1", 0))
        ins = [(f"blocks.{i}.pointwise", 0)] if i < count else [("head", 0)]
        found.append(Group(makes[0], size, tuple(outs), tuple(ins)))
    return found


def _yolo(model: YoloV8) -> list[Group]:
    """Inner channels of C2f (one mask for its halves and bottlenecks), of bottlenecks, of SPPF and of the branches."""
    found = []
    for name, part in model.named_modules():
        if isinstance(part, C2f):
            half, count = part.cv1.conv.out_channels // 2, len(part.m)
            outs = [(f"{name}.cv1.conv", f"{name}.cv1.bn", half * i) for i in (0, 1)]
            outs += [(f"{name}.m.{i}.cv2.conv", f"{name}.m.{i}.cv2.bn", 0) for i in range(count)]
            ins = [(f"{name}.cv2.conv", half * i) for i in range(count + 2)]
            ins += [(f"{name}.m.{i}.cv1.conv", 0) for i in range(count)]
            found.append(Group(f"{name}.cv1.conv", half, tuple(outs), tuple(ins)))
            found += [_mid(model, f"{name}.m.{i}", "cv1.conv", "cv1.bn", "cv2.conv") for i in range(count)]
    size = model.sppf.cv1.conv.out_channels
    inner = ((("sppf.cv1.conv", "sppf.cv1.bn", 0),), tuple(("sppf.cv2.conv", size * i) for i in range(4)))
    found.append(Group("sppf.cv1.conv", size, *inner))
    for kind in ("boxes", "kinds"):
        for i, branch in enumerate(getattr(model.head, kind)):
            for j in (0, 1):
                path, conv = f"head.{kind}.{i}.{j}", branch[j].conv
                reader = f"head.{kind}.{i}.1.conv" if j == 0 else f"head.{kind}.{i}.2"
                found.append(
                    Group(f"{path}.conv", conv.out_channels, ((f"{path}.conv", f"{path}.bn", 0),), ((reader, 0),))
                )
    return found + _yolo_maps(model)


def _yolo_maps(model: YoloV8) -> list[Group]:
    """Maps between the parts of the backbone and the neck, with where each begins in what reads it joined.

    A map that stands behind another one in a joined input comes before it here, so that its place still holds when it
    is cut.
    """

    def width(path: str) -> int:
        conv = model.get_submodule(path)
        assert isinstance(conv, Conv)
        return conv.conv.out_channels

    w3, w4, w5 = width("c3.cv2"), width("c4.cv2"), width("sppf.cv2")
    n4, lower4, lower5 = width("n4.cv2"), width("lower4"), width("lower5")
    branches = [[f"head.{kind}.{i}.0.conv" for kind in ("boxes", "kinds")] for i in range(3)]
    table: list[tuple[str, list[tuple[str, int]]]] = [
        ("stem", [("down2", 0)]), ("down2", [("c2.cv1", 0)]), ("c2.cv2", [("down3", 0)]), ("down3", [("c3.cv1", 0)]),
        ("c3.cv2", [("down4", 0), ("n3.cv1", n4)]), ("down4", [("c4.cv1", 0)]),
        ("c4.cv2", [("down5", 0), ("n4.cv1", w5)]), ("down5", [("c5.cv1", 0)]), ("c5.cv2", [("sppf.cv1", 0)]),
        ("sppf.cv2", [("n4.cv1", 0), ("p5.cv1", lower5)]), ("n4.cv2", [("n3.cv1", 0), ("p4.cv1", lower4)]),
        ("n3.cv2", [("lower4", 0)]), ("lower4", [("p4.cv1", 0)]), ("p4.cv2", [("lower5", 0)]),
        ("lower5", [("p5.cv1", 0)]), ("p5.cv2", []),
    ]  # fmt: skip
    assert w3 and w4
    heads = {"n3.cv2": branches[0], "p4.cv2": branches[1], "p5.cv2": branches[2]}
    found = []
    for path, readers in table:
        ins = [(f"{reader}.conv", offset) for reader, offset in readers] + [(b, 0) for b in heads.get(path, [])]
        found.append(Group(f"{path}.conv", width(path), ((f"{path}.conv", f"{path}.bn", 0),), tuple(ins)))
    return found


DESCRIBED: dict[type[nn.Module], Callable[[Any], list[Group]]] = {
    ResnetCifar: _resnet_cifar,
    ResnetImage: _resnet_image,
    DigitsResnet: _digits_resnet,
    Vgg: _vgg,
    MobileNetV1: _mobilenet,
    YoloV8: _yolo,
}
