"""Structured pruning adapters: a task is a mask and a low-rank adapter on frozen source weights, and both melt away.

Source: Hedegaard et al. 2022, arXiv:2211.10155, section 3 (SPLoRA, SPPaRA). W' = W + U V on linear layers; on k x k
convolutions the product is added to the centre tap. V starts Kaiming-uniform, U uniform in +-1e-4; biases and norms
learn, W never. Pruning takes rows of U, columns of V and channels of W together.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, KeepRate, PositiveInt
from suites.common.training import classification
from suites.pruning.groups import groups_of, keep_channels
from suites.pruning.layers import prunable, swap
from suites.pruning.learning import BATCH, Pace, fit, once, task_of
from suites.pruning.rethinking import keeps_by
from suites.pruning.rounding import exact
from suites.pruning.scores import filter_l1

Kind = Literal["full", "splora", "sppara"]


class Adapted(nn.Module):
    """A frozen linear or convolutional layer with an adapter that can be added in.

    `down` is V [rank, inputs / groups] and `up` is U [outputs, rank]; a pointwise adapter is `full` [outputs, inputs].
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, pointwise: bool, form: str = "fused"):
        super().__init__()
        self.layer, self.form = layer, form
        layer.weight.requires_grad_(False)
        outputs, inputs = layer.weight.shape[:2]
        self.full: nn.Parameter | None = None
        if pointwise:
            self.full = nn.Parameter(torch.zeros(outputs, inputs))
            return
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.empty(outputs, rank).uniform_(-1e-4, 1e-4))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def added(self) -> Tensor:
        """What is added to W or to its centre tap, [outputs, inputs / groups]."""
        return self.full if self.full is not None else self.up @ self.down

    def weight(self) -> Tensor:
        """W'."""
        if isinstance(self.layer, nn.Linear):
            return self.layer.weight + self.added()
        high, wide = self.layer.kernel_size
        before = (wide // 2, wide - 1 - wide // 2, high // 2, high - 1 - high // 2)
        return self.layer.weight + F.pad(self.added()[:, :, None, None], before)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs with W'."""
        if isinstance(self.layer, nn.Conv2d):
            how = self.layer
            return F.conv2d(x, self.weight(), how.bias, how.stride, how.padding, how.dilation, how.groups)
        if self.form == "parallel" and self.full is None:
            return self.layer(x) + F.linear(F.linear(x, self.down), self.up)
        return F.linear(x, self.weight(), self.layer.bias)

    @torch.no_grad()
    def fused(self) -> nn.Module:
        """The plain layer with the adapter added in."""
        self.layer.weight.copy_(self.weight())
        self.layer.weight.requires_grad_(True)
        return self.layer


def learned_numbers(inputs: int, outputs: int, rank: int, kernel: int = 1, groups: int = 1, bias: bool = False) -> int:
    """SPLoRA's learned numbers of a layer: r (in / groups + out), and its bias; the kernel's size does not matter."""
    assert kernel > 0
    return rank * (inputs // groups + outputs) + (outputs if bias else 0)


def pointwise_numbers(inputs: int, outputs: int) -> int:
    """SPPaRA's: in x out."""
    return inputs * outputs


def full_numbers(shapes: list[tuple[int, int, int]], keep: float) -> int:
    """Learned weights of full fine-tuning at one kept share: sum of k^2 round(c c_in) round(c c_out)."""
    return sum(k * k * round(keep * inputs) * round(keep * outputs) for inputs, outputs, k in shapes)


def task_bytes(shapes: list[tuple[int, int, int]], rank: int, others: int, value: int = 4) -> float:
    """Bytes of one more task: mask bits (in + out) / 8, adapters, and `others` numbers of biases and norms."""
    bits = sum(inputs + outputs for inputs, outputs, _ in shapes) / 8
    adapters = sum(learned_numbers(inputs, outputs, rank) for inputs, outputs, _ in shapes)
    return bits + value * (adapters + others)


def spa(
    model: nn.Module,
    *,
    keep: KeepRate = 0.5,
    method: Literal["full", "splora", "sppara"] = "splora",
    rank: PositiveInt = 4,
    form: Literal["fused", "parallel"] = "fused",
    merged: bool = True,
    steps: Count = 0,
) -> nn.Module:
    """A convolutional network pruned to a share of its inner channels, adapted, and plain again.

    The reading `kept_bytes` is what one more task takes: its mask and all that it learns.

    Args:
        model: a convolutional network of this suite.
        keep: share of every group's channels, by the L1 norm of the source's filters: the same mask for all methods.
        method: `full` fine-tunes all kept weights; `splora` a product of rank r; `sppara` a pointwise matrix.
        rank: r.
        form: of linear layers while they learn: W x + U (V x), or (W + U V) x.
        merged: adapters are added in: the slim network; False leaves them, for a training step.
        steps: batches on the model's task.

    Raises:
        ValueError: another network, or steps without a task.
    """
    groups = [group for group in groups_of(model, "spa") if not group.trunk]
    scores = [filter_l1(model, group) for group in groups]
    scores = [torch.arange(len(s), 0, -1, device="cpu").float() if s.is_meta else s for s in scores]
    bits = mask_bits(model)
    for group, places in zip(groups, keeps_by(scores, [float(1 - exact(keep))] * len(groups)), strict=True):
        if len(places) < group.size:
            keep_channels(model, group, places)
    adapters = attach(model, method, rank, form)
    model.kept_bytes = learned_bytes(model, bits)  # type: ignore[assignment]
    if steps:
        key = {"keep": keep, "method": method, "rank": rank, "form": form, "steps": steps}
        model.load_state_dict(once(model, spa, key, lambda cost: _learn(model, steps, cost)))
    if merged:
        for name in adapters:
            swap(model, name, model.get_submodule(name).fused())  # type: ignore[operator]
    model.kernel = "slim"  # type: ignore[assignment]
    return model


def mask_bits(model: nn.Module) -> int:
    """A bit for each input and each output of every convolution and linear layer."""
    layers = [part for part in model.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    return sum(sum(layer.weight.shape[:2]) for layer in layers)


def learned_bytes(model: nn.Module, bits: int) -> float:
    """Bytes of a task: its mask, and everything that it learns."""
    return bits / 8 + sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def attach(model: nn.Module, method: str, rank: int, form: str = "fused") -> list[str]:
    """Put adapters on every linear and convolutional layer; their names. `full` needs none."""
    if method == "full":
        return []
    torch.manual_seed(0)
    layers = prunable(model, "spa", lambda _, layer: isinstance(layer, nn.Linear | nn.Conv2d))
    for name, layer in layers.items():
        swap(model, name, Adapted(layer, rank, method == "sppara", form).to(layer.weight.device))  # type: ignore[arg-type]
    return list(layers)


def _learn(model: nn.Module, steps: int, cost: costs.Cost) -> dict[str, Tensor]:
    task: Any = task_of(model, "spa(steps)")
    cost.samples += steps * BATCH
    fit(model, task.training_batches(BATCH, steps, 5), classification(model), Pace(steps, 1e-3))
    return model.state_dict()
