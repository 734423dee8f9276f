"""Fire Together Wire Together: a linear predictor says which filters of a layer will fire (arXiv 2110.08232).

Source: Elkerdawy et al. 2022. For each convolution the maximum over places of its *input* goes through one linear
layer; a filter runs where the sigmoid exceeds one half. Targets are the largest responses |output| until they make a
share `r` of the sum over channels, or a fixed share of them (`keep`, the paper's uniform variant). In a residual block
both convolutions are masked, the second before the addition. The released code pools by the mean (`pool="average"`);
the input may be pooled to d x d places instead of one, d = round(sqrt(target / channels)).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, KeepRate, PositiveInt
from suites.common.training import Pace, fit
from suites.dynamic.learning import BATCH, digits_parts, remembered

#: At r = 1 every channel with more than this share of the sum fires.
DEAD = 1e-5


def ftwt(
    model: nn.Module,
    *,
    r: KeepRate = 0.9,
    keep: KeepRate | None = None,
    static: bool = False,
    coupling: Literal["decoupled", "joint"] = "decoupled",
    gt_after_block: bool = False,
    pool: Literal["max", "average"] = "max",
    target: PositiveInt | None = None,
    execution: Literal["gather", "masked"] = "gather",
    training_steps: Count = 0,
) -> nn.Module:
    """The network whose convolutions run only the filters that are predicted to fire.

    Args:
        model: a VGG (`features` of convolution, norm, ReLU and pools) or a network of basic residual blocks.
        r: share of the sum of responses that the filters which shall fire make up.
        keep: a fixed share of the filters by largest prediction instead, at least one; so cost does not vary. Targets
            are as many of the largest responses, and `r` is of no account.
        static: the filters that fire for most validation digits, for every input: the control by plain pruning.
        coupling: whether predictors' loss also reaches the network (`joint`) or not.
        gt_after_block: targets of a block's second convolution from the block's output, after the addition.
        pool: what predictors are given of each place or part of the input: its maximum or its mean.
        target: about as many numbers are given to a predictor: each channel is pooled to d x d, d = round(sqrt(target /
            channels)), at least 1; None for one number a channel.
        execution: `gather` collects the weights of each sample's filters; `masked` computes all and sets to zero.
        training_steps: of network and predictors together on the model's task; 0 leaves predictors random.

    Raises:
        ValueError: no such network, nothing to train on, or a static choice without training.
    """
    gates = _install(model, Form(keep, pool, target), gt_after_block)
    if not gates:
        raise ValueError(f"ftwt found no convolutions with norms that it knows in {type(model).__name__}")
    if static and not training_steps:
        raise ValueError("static=True chooses filters by what was learned: set training_steps")
    network: Any = model
    network.input_dependent = keep is None and not static
    settings = {"r": r, "keep": keep, "coupling": coupling, "after": gt_after_block, "steps": training_steps,
                "pool": pool, "target": target}  # fmt: skip
    if training_steps:
        joint = coupling == "joint"
        found = remembered(model, ftwt, settings, lambda task: _learn(model, gates, task, r, joint, training_steps))
        model.load_state_dict(found)
        network.learned = {"method": "ftwt", **settings}
        if static:
            _fix(model, gates, network.task)
    elif keep != 1.0:
        network.untrained = "ftwt's predictors start at random: set training_steps, on a model with a task"
    for gate in gates:
        gate.way = execution
    return model.eval()


@dataclass(frozen=True)
class Form:
    """What all gates of a network have in common: see `ftwt`."""

    keep: float | None
    pool: str = "max"
    target: int | None = None

    def side(self, channels: int) -> int:
        """D: parts of a side that each channel is pooled to."""
        return 1 if self.target is None else max(1, round(math.sqrt(self.target / channels)))


class Predictor(nn.Module):
    """Logits of a layer's filters [batch, outputs] from the pooled input, [batch, inputs d^2]."""

    charged_to = "method"

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        """See the class."""
        return self.linear(pooled)


class Gated(nn.Module):
    """A convolution with its norm, and the predictor of its filters; in training `seen` holds logits and output."""

    fixed: Tensor | None

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, form: Form, relu: bool):
        super().__init__()
        self.conv, self.norm, self.keep, self.relu = conv, norm, form.keep, relu
        self.side, self.pool = form.side(conv.in_channels), form.pool
        self.predictor = Predictor(conv.in_channels * self.side**2, conv.out_channels).to(conv.weight)
        self.way, self.detach = "gather", True
        self.register_buffer("fixed", None)
        self.seen: tuple[Tensor, Tensor] | None = None

    def logits(self, x: Tensor, active: Tensor | None) -> Tensor:
        """What the predictor says of maps that hold the `active` input channels alone; others are zero."""
        pooled = self.pooled(x.detach() if self.detach else x)
        if active is not None:
            whole = pooled.new_zeros(len(x), self.conv.in_channels, pooled.shape[2])
            pooled = whole.index_copy(1, active, pooled)
        return self.predictor(pooled.flatten(1))

    def pooled(self, x: Tensor) -> Tensor:
        """What the predictor is given of each channel, [batch, channels, d^2]."""
        if self.side == 1:
            return (x.amax(dim=(2, 3)) if self.pool == "max" else x.mean(dim=(2, 3)))[..., None]
        by = F.adaptive_max_pool2d if self.pool == "max" else F.adaptive_avg_pool2d
        return by(x, self.side).flatten(2)

    def chosen(self, logits: Tensor) -> Tensor:
        """Which filters run, [batch, outputs]; always the likeliest."""
        best = logits.topk(self.kept, dim=1).indices
        wanted = torch.zeros_like(logits, dtype=torch.bool).scatter(1, best, True)
        return wanted if self.keep is not None else wanted | (logits > 0)

    @property
    def kept(self) -> int:
        """Filters that run whatever is predicted."""
        return 1 if self.keep is None else max(1, round(self.keep * self.conv.out_channels))

    def whole(self, x: Tensor) -> Tensor:
        """All outputs, those of filters that do not fire set to zero."""
        y = self.norm(self.conv(x))
        y = F.relu(y) if self.relu else y
        if self.fixed is not None:
            return y * self.fixed[:, None, None]
        logits = self.logits(x, None)
        if self.training:
            self.seen = (logits, y)
        return y * self.chosen(logits)[:, :, None, None]

    def part(self, x: Tensor, active: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs of the filters that fire for one sample, and which they are; `active` are the inputs that x holds."""
        if self.fixed is not None:  # the control needs no prediction and does not pay for one
            out = self.fixed.nonzero()[:, 0]
        elif self.keep is not None:  # their number is known, so this also runs without values
            out = self.logits(x, active)[0].topk(self.kept).indices.sort().values
        else:
            out = self.chosen(self.logits(x, active))[0].nonzero()[:, 0]
        weight = self.conv.weight.index_select(0, out)
        weight = weight if active is None else weight.index_select(1, active)
        bias = None if self.conv.bias is None else self.conv.bias.index_select(0, out)
        y = F.conv2d(x, weight, bias, self.conv.stride, self.conv.padding)
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        mean, var = (t.index_select(0, out) for t in (norm.running_mean, norm.running_var))
        scale, shift = (t.index_select(0, out) for t in (norm.weight, norm.bias))
        y = F.batch_norm(y, mean, var, scale, shift, training=False, eps=norm.eps)
        return (F.relu(y) if self.relu else y), out


class GatedChain(nn.Module):
    """Gated convolutions and pools one after another: maps of all channels, zeros where nothing fired."""

    def __init__(self, parts: list[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        first: Any = self.parts[0]
        if self.training or first.way == "masked":
            for part in self.parts:
                x = part.whole(x) if isinstance(part, Gated) else part(x)
            return x
        return torch.cat([self._one(sample[None]) for sample in x.unbind()])

    def _one(self, x: Tensor) -> Tensor:
        active, channels = None, x.shape[1]
        for part in self.parts:
            if isinstance(part, Gated):
                x, active = part.part(x, active)
                channels = part.conv.out_channels
            else:
                x = part(x)
        return x if active is None else x.new_zeros(1, channels, *x.shape[2:]).index_copy(1, active, x)


class GatedBlock(nn.Module):
    """A basic residual block with both of its convolutions gated; the shortcut is whole."""

    def __init__(self, block: Any, form: Form, after: bool):
        super().__init__()
        self.first = Gated(block.conv1, block.bn1, form, relu=True)
        self.second = Gated(block.conv2, block.bn2, form, relu=False)
        self.shortcut, self.after = block.shortcut, after

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the block's outputs."""
        if self.training or self.first.way == "masked":
            inside = self.second.whole(self.first.whole(x))
            y = F.relu(inside + self.shortcut(x))
            if self.after and self.second.seen is not None:
                self.second.seen = (self.second.seen[0], y)
            return y
        return torch.cat([self._one(sample[None]) for sample in x.unbind()])

    def _one(self, x: Tensor) -> Tensor:
        inside, out = self.second.part(*self.first.part(x, None))
        return F.relu(self.shortcut(x).index_add(1, out, inside))


def _install(model: nn.Module, form: Form, after: bool) -> list[Gated]:
    """Put gates in place of what they gate; the gates."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if all(hasattr(child, part) for part in ("conv1", "bn1", "conv2", "bn2", "shortcut")):
                setattr(module, name, GatedBlock(child, form, after))
    features: Any = getattr(model, "features", None)
    if isinstance(features, nn.Sequential):
        model.features = GatedChain(_chain(list(features), form))
    return [module for module in model.modules() if isinstance(module, Gated)]


def _chain(layers: list[nn.Module], form: Form) -> list[nn.Module]:
    parts: list[nn.Module] = []
    left: Iterator[nn.Module] = iter(layers)
    for layer in left:
        if not isinstance(layer, nn.Conv2d):
            parts.append(layer)
            continue
        norm, act = next(left), next(left)
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(act, nn.ReLU):
            raise ValueError("ftwt gates a convolution that is followed by a batch norm and a ReLU")
        parts.append(Gated(layer, norm, form, relu=True))
    return parts


def targets(output: Tensor, r: float, count: int | None = None) -> Tensor:
    """Filters that shall fire, [batch, channels]: the largest responses until their share exceeds r, or `count`."""
    response = output.detach().abs().amax(dim=(2, 3))
    if count is not None:
        best = response.topk(count, dim=1).indices
        return torch.zeros_like(response, dtype=torch.bool).scatter(1, best, True)
    share = response / response.sum(dim=1, keepdim=True).clamp(min=1e-12)
    if r >= 1:
        return share > DEAD
    order = share.argsort(dim=1, descending=True)
    ranked = share.gather(1, order)
    before = ranked.cumsum(dim=1) - ranked
    return torch.zeros_like(share, dtype=torch.bool).scatter(1, order, before <= r)


def balanced(logits: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross-entropy in which filters that fire and those that do not weigh the same in sum."""
    positive = wanted.float().mean().clamp(1e-3, 1 - 1e-3)
    weight = torch.where(wanted, 0.5 / positive, 0.5 / (1 - positive))
    return F.binary_cross_entropy_with_logits(logits, wanted.float(), weight=weight)


def _learn(model: nn.Module, gates: list[Gated], task: Any, r: float, joint: bool, steps: int) -> dict[str, Tensor]:
    for gate in gates:
        gate.detach = not joint

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        total = F.cross_entropy(model(images), labels)
        for gate in gates:
            assert gate.seen is not None
            logits, output = gate.seen
            wanted = targets(output, r, None if gate.keep is None else gate.kept)
            total = total + balanced(logits, wanted) / len(gates)
            gate.seen = None
        return total

    fresh = [p for gate in gates for p in gate.predictor.parameters()]
    fit(model, task.training_batches(BATCH, steps, 0), loss, Pace(steps, 1e-3, 1e-2), fresh)
    return model.state_dict()


@torch.no_grad()
def firing(model: nn.Module, images: Tensor) -> list[Tensor]:
    """For each gate the share of the images for which each filter fires, [outputs]; 0 or 1 is a constant mask."""
    gates = [module for module in model.modules() if isinstance(module, Gated)]
    shares = {place: gate.fixed.float() for place, gate in enumerate(gates) if gate.fixed is not None}
    kinds = [gate.way for gate in gates]
    hooks = []
    for place, gate in enumerate(gates):
        gate.way = "masked"

        def note(module: nn.Module, args: Any, logits: Tensor, place: int = place, gate: Gated = gate) -> None:
            shares[place] = gate.chosen(logits).float().mean(dim=0)

        hooks.append(gate.predictor.register_forward_hook(note))
    model(images)
    for hook in hooks:
        hook.remove()
    for gate, kind in zip(gates, kinds, strict=True):
        gate.way = kind
    return [shares[place] for place in range(len(gates))]


def _fix(model: nn.Module, gates: list[Gated], task: Any) -> None:
    """Let the filters that fire for most validation digits run for every input."""
    _, (images, _) = digits_parts(task)
    for gate, share in zip(gates, firing(model, images), strict=True):
        gate.fixed = share > 0.5
        gate.fixed[share.argmax()] = True
