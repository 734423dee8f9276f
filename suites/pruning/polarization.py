"""A consensus sub-network: gates that depend on the input are pushed to agree over all inputs, then they go.

Source: arXiv:2302.10798, section 3 (the loss as recalled: check). Per residual block a gate head: mean over places,
linear to 16, ReLU, linear to 1 (or to a gate for each channel), hard step with the straight-through gradient of a
sigmoid. The loss is cross-entropy + a (mean_l m_l - target)^2 + p mean_l m_l (1 - m_l), m_l the mean of a gate over the
batch.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import costs
from bench.config.settings import Count, KeepRate, Positive
from suites.common.training import classification
from suites.pruning.layers import swap
from suites.pruning.learning import BATCH, Pace, fit, once, task_of, train


class Gate(nn.Module):
    """1 or 0 for each input, and for each of `gates` channels, [batch, gates, 1, 1]."""

    charged_to = "method"

    def __init__(self, channels: int, gates: int = 1):
        super().__init__()
        self.first, self.second = nn.Linear(channels, 16), nn.Linear(16, gates)
        nn.init.constant_(self.second.bias, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        """The gates of a batch of maps."""
        soft = self.second(F.relu(self.first(x.mean(dim=(2, 3))))).sigmoid()
        hard = (soft > 0.5).float()
        return (hard + soft - soft.detach())[:, :, None, None]


class Gated(nn.Module):
    """relu(x + g(x) F(x)) of a residual block whose shortcut changes nothing; `mean` is that of each gate, [gates]."""

    def __init__(self, block: nn.Module, per: str):
        super().__init__()
        self.block = block
        width = int(block.conv1.in_channels)  # type: ignore[union-attr, arg-type]
        self.gate = Gate(width, 1 if per == "block" else width)
        self.mean: Tensor = torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        gate = self.gate(x)
        self.mean = gate.mean(dim=(0, 2, 3))
        b = self.block
        inside = b.bn2(b.conv2(F.relu(b.bn1(b.conv1(x)))))  # type: ignore[operator]
        return F.relu(x + gate * inside)


def polarity(means: Tensor) -> Tensor:
    """mean_l m_l (1 - m_l): zero if and only if every gate is constant over the batch; of means [gates]."""
    return (means * (1 - means)).mean()


def polarization(
    model: nn.Module,
    *,
    target: KeepRate = 0.5,
    per: Literal["block", "channel"] = "block",
    weight: Positive = 4.0,
    polar: Positive = 4.0,
    frozen: bool = True,
    steps: Count = 400,
    tuning: Count = 200,
) -> nn.Module:
    """A residual network without the blocks that its gates agreed to close.

    Blocks that change the shape stay. The largest strength of the polar term is reached at the end of training.

    Args:
        model: a residual network of basic blocks, loaded by a task.
        target: share of the gates that stay open.
        per: a gate for each residual block, or for each output channel of its inner path.
        weight: a.
        polar: p at the end; it rises from 0.
        frozen: gates go and closed blocks or channels with them; False keeps them, whose time is the method's overhead.
        steps: batches with gates; 0 leaves every block open.
        tuning: batches afterwards, without.

    Raises:
        ValueError: a network without such blocks, or without a task.
    """
    names = gated_blocks(model)
    if not names:
        raise ValueError(f"polarization gates residual blocks that keep their shape; {type(model).__name__} has none")
    for name in names:
        swap(model, name, Gated(model.get_submodule(name), per))
    settled = False

    def make(cost: costs.Cost) -> dict[str, Tensor]:
        nonlocal settled
        gates = sum(model.get_submodule(name).gate.second.out_features for name in names)  # type: ignore[union-attr, misc]
        means = torch.ones(gates, device="cpu")
        if steps:
            means = _learn(model, names, target, weight, polar, steps, cost)
        if frozen:
            freeze(model, names, means)
            settled = True
            if tuning:
                train(model, task_of(model, "polarization(tuning)"), tuning, cost)
        return {"gate.means": means, **model.state_dict()}

    key = {"target": target, "per": per, "weight": weight, "polar": polar, "frozen": frozen, "steps": [steps, tuning]}
    found = once(model, polarization, key, make)
    means = found.pop("gate.means")
    if frozen and not settled:
        freeze(model, names, means)
    model.load_state_dict(found)
    model.kernel = "slim" if frozen else "mask"  # type: ignore[assignment]
    return model


def gated_blocks(model: nn.Module) -> list[str]:
    """Names of residual blocks of two convolutions whose shortcut changes nothing."""
    found = []
    for name, part in model.named_modules():
        if not all(hasattr(part, each) for each in ("conv1", "bn1", "conv2", "bn2", "shortcut")) or hasattr(
            part, "conv3"
        ):
            continue
        short = part.shortcut
        same = getattr(short, "inner", 0) == getattr(short, "outer", 1) and getattr(short, "stride", 2) == 1
        if isinstance(short, nn.Identity) or same:
            found.append(name)
    return found


def _learn(
    model: nn.Module, names: list[str], target: float, weight: float, polar: float, steps: int, cost: costs.Cost
) -> Tensor:
    """Train network and gates; the mean of each gate over the training images of the last batches."""
    task = task_of(model, "polarization")
    gates = [model.get_submodule(name) for name in names]
    plain = classification(model)
    done = 0

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        nonlocal done
        done += 1
        value = plain(inputs, labels)
        means = torch.cat([gate.mean for gate in gates])  # type: ignore[misc]
        return value + weight * (means.mean() - target) ** 2 + polar * done / max(1, steps) * polarity(means)

    cost.samples += steps * BATCH
    fresh = [p for gate in gates for p in gate.gate.parameters()]  # type: ignore[union-attr]
    fit(model, task.training_batches(BATCH, steps, 2), loss, Pace(steps, 1e-3, 3e-3), fresh)
    return agreement(model, names, task.training_batches(BATCH, 8, 3))


def agreement(model: nn.Module, names: list[str], batches: object) -> Tensor:
    """Mean of each gate over batches, [gates of all blocks]; 0 or 1 where all inputs agree."""
    gates, seen = [model.get_submodule(name) for name in names], []
    with torch.no_grad():
        for images, _ in batches:  # type: ignore[attr-defined]
            model(images)
            seen.append(torch.cat([gate.mean.detach() for gate in gates]))  # type: ignore[operator]
    return torch.stack(seen).mean(0)


class Closed(nn.Module):
    """What is left of a closed block: the ReLU behind its residual, which leaves maps from zero up as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """The same maps."""
        return x


class Partial(nn.Module):
    """A block whose inner path adds to the given channels alone: the others pass."""

    places: Tensor

    def __init__(self, block: Any, places: Tensor):
        super().__init__()
        self.conv1, self.bn1 = block.conv1, block.bn1
        plain, norm = block.conv2, block.bn2
        how = (plain.kernel_size, plain.stride, plain.padding)
        self.conv2 = nn.Conv2d(plain.in_channels, len(places), *how, bias=False)
        self.bn2 = nn.BatchNorm2d(len(places), eps=norm.eps)
        self.to(plain.weight)
        with torch.no_grad():
            self.conv2.weight.copy_(plain.weight[places])
            for name, value in self.bn2.state_dict().items():
                if value.ndim:
                    value.copy_(getattr(norm, name)[places])
        self.register_buffer("places", places)
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        inside = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(x.index_add(1, self.places, inside))


def freeze(model: nn.Module, names: list[str], means: Tensor) -> None:
    """Round each gate's mean: open blocks lose their gate, closed ones go whole, closed channels leave their block."""
    at = 0
    for name in names:
        gated = model.get_submodule(name)
        size = int(gated.gate.second.out_features)  # type: ignore[union-attr, arg-type]
        open_ = means[at : at + size].round() > 0
        at += size
        if bool(open_.all()):
            swap(model, name, gated.block)  # type: ignore[arg-type]
        elif not bool(open_.any()):
            swap(model, name, Closed())
        else:
            swap(model, name, Partial(gated.block, open_.nonzero()[:, 0]))
