"""LAPP: a learnable threshold per layer and a penalty on products prune while the network learns; a light bypass helps.

Source: Zhai et al. 2023, arXiv:2309.14157, section 3. Reconstruction: the score (L1 norm over the layer's mean), the
temperature, the weights of the loss and the bypass (depthwise 3x3 and 1x1, one eighth of the products) are ours, and
that filters are kept to the target by how far they stand above their threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import costs
from bench.config.settings import Count, KeepRate, Positive
from suites.common.training import classification
from suites.pruning.groups import Group, groups_of, keep_channels
from suites.pruning.layers import swap
from suites.pruning.learning import BATCH, Pace, fit, once, task_of, train

TEMPERATURE = 0.1


class Bypass(nn.Module):
    """A depthwise 3x3 of the conv's stride and a 1x1 of at most an eighth of its products, in `groups` groups."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        inner, outer = conv.in_channels, conv.out_channels
        self.depthwise = nn.Conv2d(inner, inner, 3, conv.stride, 1, groups=inner, bias=False)  # type: ignore[arg-type]
        self.pointwise = nn.Conv2d(inner, outer, 1, groups=bypass_groups(inner, outer, conv.kernel_size[0]), bias=False)
        nn.init.zeros_(self.pointwise.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the conv's outputs."""
        return self.pointwise(self.depthwise(x))


def bypass_groups(inner: int, outer: int, kernel: int) -> int:
    """The fewest groups for which the 1x1 makes at most an eighth of a conv's k^2 ci co products."""
    for groups in range(1, min(inner, outer) + 1):
        fits = inner % groups == 0 and outer % groups == 0
        if fits and 8 * inner * outer // groups <= kernel**2 * inner * outer:
            return groups
    return 1


class Bypassed(nn.Module):
    """A conv whose gated outputs are summed with its bypass; removed outputs carry the bypass alone.

    Attributes:
        places: which outputs the conv still makes, [kept]; None for all.
        gate: gives what multiplies the conv's outputs while it learns.
    """

    places: Tensor | None

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv, self.bypass = conv, Bypass(conv)
        self.out_channels, self.in_channels = conv.out_channels, conv.in_channels
        self.register_buffer("places", None)
        self.gate: Callable[[], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Maps of all outputs."""
        around = self.bypass(x)
        made = self.conv(x)
        if self.gate is not None:
            made = made * self.gate()[:, None, None]
        return around + made if self.places is None else around.index_add(1, self.places, made)

    @torch.no_grad()
    def keep(self, places: Tensor) -> None:
        """Make the given outputs alone from now on."""
        made = nn.Conv2d(
            self.conv.in_channels, len(places), self.conv.kernel_size, self.conv.stride, self.conv.padding, bias=False,  # type: ignore[arg-type]
        )  # fmt: skip
        made.weight = nn.Parameter(self.conv.weight.detach()[places].clone())
        self.conv, self.places = made, places


class Threshold(nn.Module):
    """g_c = sigmoid((score_c - theta) / T), hard with a straight-through gradient; score: L1 norm over the mean."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.theta = nn.Parameter(norms(weight).min().detach() - TEMPERATURE)

    def forward(self, weight: Tensor) -> Tensor:
        """Gates of the filters, [outputs]."""
        soft = ((norms(weight) - self.theta) / TEMPERATURE).sigmoid()
        return (soft > 0.5).float() + soft - soft.detach()


def norms(weight: Tensor) -> Tensor:
    """L1 norm of each filter over the layer's mean."""
    each = weight.abs().flatten(1).sum(1)
    return each / each.mean()


def lapp(
    model: nn.Module,
    *,
    target: KeepRate = 0.6,
    weight: Positive = 20.0,
    bypass: bool = True,
    bypass_width: Literal["full", "kept"] = "full",
    steps: Count = 600,
    share: KeepRate = 0.4,
) -> nn.Module:
    """A residual network whose first convolution of each block loses filters while it trains, down to a target.

    Args:
        model: a residual network of this suite, loaded by a task.
        target: products over the dense network's, both without bypass; with a `full` bypass the first convolutions of
            the blocks alone get smaller, so that about a half stays whatever goes.
        weight: a, of max(0, products / dense - target).
        bypass: whether the light path is there.
        bypass_width: `full` leaves the next convolution its input width; `kept` cuts the bypass and it alike.
        steps: batches of training; 0 adds the bypass, which starts at zero, and removes nothing.
        share: of them during which thresholds learn; filters are removed at the end of that.

    Raises:
        ValueError: another network, a target that cannot be reached, or no task.
    """
    groups = [group for group in groups_of(model, "lapp") if not group.trunk and group.name.endswith("conv1")]
    if not groups:
        raise ValueError(f"lapp prunes the first convolution of residual blocks, and {type(model).__name__} has none")
    around = bypass and bypass_width == "full"
    if bypass:
        for group in groups:
            swap(model, group.name, Bypassed(model.get_submodule(group.name)))  # type: ignore[arg-type]
    done = False

    def make(cost: costs.Cost) -> dict[str, Tensor]:
        nonlocal done
        keeps = [torch.arange(group.size, device="cpu") for group in groups]
        if steps:
            keeps = _learn(model, groups, target, weight, int(steps * share), around, cost)
        _remove(model, groups, keeps, around)
        done = True
        if steps:
            train(model, task_of(model, "lapp(steps)"), steps - int(steps * share), cost)
        return {**{f"keep.{i}": keep for i, keep in enumerate(keeps)}, **model.state_dict()}

    key = {"target": target, "weight": weight, "bypass": bypass, "width": bypass_width, "steps": steps, "share": share}
    found = once(model, lapp, key, make)
    keeps = [found.pop(f"keep.{i}") for i in range(len(groups))]
    if not done:
        _remove(model, groups, keeps, around)
    model.load_state_dict(found)
    model.kernel = "slim"  # type: ignore[assignment]
    return model


def _conv(model: nn.Module, group: Group) -> nn.Conv2d:
    layer = model.get_submodule(group.name)
    return layer.conv if isinstance(layer, Bypassed) else layer  # type: ignore[return-value]


def _learn(
    model: nn.Module, groups: list[Group], target: float, weight: float, steps: int, around: bool, cost: costs.Cost
) -> list[Tensor]:
    """Train weights and thresholds together; the channels of each group that stay."""
    task = task_of(model, "lapp")
    thresholds = nn.ModuleList(Threshold(_conv(model, group).weight) for group in groups)
    plain = classification(model)
    sizes = products_of(model, groups, around)
    least = float(expected_share([torch.ones(1) for _ in groups], sizes))
    if target < least:
        raise ValueError(
            f"lapp(target={target}): {least:.3f} of the products stay with one filter a layer; ask for more, or take "
            "bypass_width='kept', which cuts the next convolutions as well"
        )
    gates = [_gate(_conv(model, group), threshold) for group, threshold in zip(groups, thresholds, strict=True)]
    undo = [gate_by(model, group, gate, around) for group, gate in zip(groups, gates, strict=True)]

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        share = expected_share([gate() for gate in gates], sizes)
        return plain(inputs, labels) + weight * F.relu(share - target)

    learner = nn.ModuleList([model, thresholds])
    count = max(1, steps)
    cost.samples += count * BATCH
    fit(learner, task.training_batches(BATCH, count, 1), loss, Pace(count, 1e-3, 1e-2), thresholds.parameters())
    for take_off in undo:
        take_off()
    margins = [
        (norms(_conv(model, group).weight) - threshold.theta).detach()  # type: ignore[operator]
        for group, threshold in zip(groups, thresholds, strict=True)
    ]
    return kept_to(margins, sizes, target)


def kept_to(margins: list[Tensor], sizes: list[tuple[int, int, float]], target: float) -> list[Tensor]:
    """The channels of each group that stay: the best of each, then by their margins all that the target has room for.

    Thresholds stop moving where the penalty ends, or go on where the task's own loss takes them; by the same order of
    margins the last filters before the target are kept, or go.

    Args:
        margins: scores less their layer's threshold, [channels] each.
        sizes: of each group, as `products_of` gives them.
        target: products over the dense network's.
    """
    stays = [torch.zeros_like(margin, dtype=torch.bool) for margin in margins]
    for stay, margin in zip(stays, margins, strict=True):
        stay[margin.argmax()] = True
    dense = sum(size * each + rest for size, each, rest in sizes)
    room = target * dense - sum(each + rest for _, each, rest in sizes)
    order = sorted(((float(m), i, c) for i, margin in enumerate(margins) for c, m in enumerate(margin)), reverse=True)
    for _, group, channel in order:
        each = sizes[group][1]
        if not stays[group][channel] and each <= room + 1e-6 * dense:
            stays[group][channel] = True
            room -= each
    return [stay.nonzero()[:, 0] for stay in stays]


def _gate(conv: nn.Conv2d, threshold: nn.Module) -> Callable[[], Tensor]:
    """What gives the gates of a conv's filters as they are now."""
    return lambda: threshold(conv.weight)


def gate_by(model: nn.Module, group: Group, gate: Callable[[], Tensor], around: bool) -> Callable[[], None]:
    """Multiply a group's channels by `gate()` in every forward; gives what takes it off again.

    A closed channel is what a removed one will be: `around` it goes a full bypass, which carries on; else nothing is
    left of it, so that the gate stands behind the norm, where bypass and conv are joined.
    """
    layer: nn.Module = model.get_submodule(group.name)
    if around:
        layer.gate = gate  # type: ignore[assignment]
        return lambda: setattr(layer, "gate", None)
    norm = model.get_submodule(group.outs[0][1])
    return norm.register_forward_hook(lambda _m, _i, out: out * gate()[:, None, None]).remove


def products_of(model: nn.Module, groups: list[Group], around: bool) -> list[tuple[int, int, float]]:
    """For each group (channels, products per channel, products of all other convolutions together).

    A channel has its filter's products and those of what reads it, which `around` a full bypass go on reading it.
    """
    example = model.example_inputs(1)  # type: ignore[operator]
    places: dict[str, int] = {}
    convs = {name: part for name, part in model.named_modules() if isinstance(part, nn.Conv2d) and "bypass" not in name}
    hooks = [
        conv.register_forward_hook(lambda _m, _i, out, name=name: places.__setitem__(name, out[0, 0].numel()))
        for name, conv in convs.items()
    ]
    with torch.no_grad():
        model(*example)
    for hook in hooks:
        hook.remove()
    own = {name: places[name] * conv.weight.numel() for name, conv in convs.items()}
    found = []
    for group in groups:
        layer = model.get_submodule(group.name)
        first = f"{group.name}.conv" if isinstance(layer, Bypassed) else group.name
        readers = [] if around else [path for path, _ in group.ins]
        found.append((group.size, (own.pop(first) + sum(own.pop(path) for path in readers)) // group.size, 0.0))
    rest = float(sum(own.values()))
    return [(size, each, rest if i == 0 else 0.0) for i, (size, each, _) in enumerate(found)]


def expected_share(gates: list[Tensor], sizes: list[tuple[int, int, float]]) -> Tensor:
    """Products of the gated network over those of the dense one, differentiable in the gates."""
    dense = sum(size * each + rest for size, each, rest in sizes)
    gated = [gate.sum() * each + rest for gate, (_, each, rest) in zip(gates, sizes, strict=True)]
    return torch.stack(gated).sum() / dense


def _remove(model: nn.Module, groups: list[Group], keeps: list[Tensor], around: bool) -> None:
    """Remove filters: behind a full bypass the next layer keeps its inputs, else it is cut alike."""
    for group, keep in zip(groups, keeps, strict=True):
        layer = model.get_submodule(group.name)
        if len(keep) == group.size:
            continue
        if isinstance(layer, Bypassed) and around:
            layer.keep(keep)
        elif isinstance(layer, Bypassed):
            around_it, conv = layer.bypass, layer.conv
            swap(model, group.name, conv)
            keep_channels(model, group, keep)
            wrapped = Bypassed(model.get_submodule(group.name))  # type: ignore[arg-type]
            wrapped.bypass = cut_bypass(around_it, keep)
            swap(model, group.name, wrapped)
        else:
            keep_channels(model, group, keep)


@torch.no_grad()
def cut_bypass(bypass: Bypass, keep: Tensor) -> Bypass:
    """The bypass with the given outputs alone; its groups are undone where they no longer divide what stays."""
    conv = bypass.pointwise
    weight = conv.weight.new_zeros(conv.out_channels, conv.in_channels, 1, 1)
    inner, outer = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    for group in range(conv.groups):
        rows, columns = slice(group * outer, (group + 1) * outer), slice(group * inner, (group + 1) * inner)
        weight[rows, columns] = conv.weight[rows]
    made = nn.Conv2d(conv.in_channels, len(keep), 1, bias=False)
    made.weight = nn.Parameter(weight[keep].clone())
    bypass.pointwise = made
    return bypass
