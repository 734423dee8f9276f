"""Structured pruning adapters: a task is a mask and a low-rank adapter on frozen source weights, and both melt away.

Source: Hedegaard et al. 2022, arXiv:2211.10155, section 3 (SPLoRA, SPPaRA). W' = W + U V on linear layers; on k x k
convolutions the product is added to the centre tap. V starts Kaiming-uniform, U uniform in +-1e-4; biases and norms
learn, W never. Pruning takes rows of U, columns of V and channels of W together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, KeepRate, PositiveInt
from suites.common.training import classification
from suites.pruning.groups import Group, groups_of, keep_channels
from suites.pruning.layers import prunable, swap
from suites.pruning.learning import BATCH, Pace, calibration, fit, once, task_of
from suites.pruning.rethinking import keeps_by
from suites.pruning.rounding import exact
from suites.pruning.scores import filter_l1, filter_sums, gains, taylor

Kind = Literal["full", "splora", "sppara"]
#: Scores that a batch of data is needed for.
BY_GRADIENT = ("gradient", "taylor")


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


def whole_rank(rank: float, outputs: int) -> int:
    """R: the rank itself, or below one its share of a layer's outputs, to the nearest and one at least."""
    return int(rank) if rank >= 1 else max(1, round(exact(rank) * outputs))


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
    rank: PositiveInt | Annotated[float, Field(gt=0.0, lt=1.0)] = 4,
    score: Literal["l1", "gain", "gradient", "taylor"] = "l1",
    form: Literal["fused", "parallel"] = "fused",
    merged: bool = True,
    steps: Count = 0,
) -> nn.Module:
    """A convolutional network pruned to a share of its inner channels, adapted, and plain again.

    The reading `kept_bytes` is what one more task takes: its mask and all that it learns.

    Args:
        model: a convolutional network of this suite.
        keep: share of every group's channels, by a score of the source's filters: the same mask for all methods.
        method: `full` fine-tunes all kept weights; `splora` a product of rank r; `sppara` a pointwise matrix.
        rank: r; below 1 a share of the source layer's outputs.
        score: sum of |w|, gain of the norm behind them, or sum of |g| or |w g| of one batch of the task, or of random
            inputs.
        form: of linear layers while they learn: W x + U (V x), or (W + U V) x.
        merged: adapters are added in: the slim network; False leaves them, for a training step.
        steps: batches on the model's task.

    Raises:
        ValueError: another network, or steps without a task.
    """
    groups = [group for group in groups_of(model, "spa") if not group.trunk]
    scores = channel_scores(model, groups, score)
    bits, outputs = mask_bits(model), {name: layer.weight.shape[0] for name, layer in _weighted(model).items()}
    for group, places in zip(groups, keeps_by(scores, [float(1 - exact(keep))] * len(groups)), strict=True):
        if len(places) < group.size:
            keep_channels(model, group, places)
    adapters = attach(model, method, rank, form, outputs)
    model.kept_bytes = learned_bytes(model, bits)  # type: ignore[assignment]
    if steps:
        key = {"keep": keep, "method": method, "rank": rank, "score": score, "form": form, "steps": steps}
        scored = BATCH if score in BY_GRADIENT else 0
        model.load_state_dict(once(model, spa, key, lambda cost: _learn(model, steps, scored, cost)))
    if merged:
        for name in adapters:
            swap(model, name, model.get_submodule(name).fused())  # type: ignore[operator]
    model.kernel = "slim"  # type: ignore[assignment]
    return model


def channel_scores(model: nn.Module, groups: list[Group], score: str) -> list[Tensor]:
    """How much each channel of every group is worth, [size] each; the first ones most where weights have no values."""
    if next(model.parameters()).is_meta:
        return [torch.arange(group.size, 0, -1, device="cpu").float() for group in groups]
    if score not in BY_GRADIENT:
        return [(filter_l1 if score == "l1" else gains)(model, group) for group in groups]

    def make(cost: costs.Cost) -> dict[str, Tensor]:
        inputs, labels = calibration(model, BATCH, cost)
        weights: dict[str, Tensor] = {}
        for path in dict.fromkeys(path for group in groups for path, _, _ in group.outs):
            weights[path] = model.get_submodule(path).weight  # type: ignore[assignment]
        with torch.enable_grad():
            found = torch.autograd.grad(classification(model)(inputs, labels), list(weights.values()))
        gradients = dict(zip(weights, found, strict=True))
        worth = {path: g.abs() if score == "gradient" else taylor(weights[path], g) for path, g in gradients.items()}
        return {f"score.{place}": filter_sums(worth, group) for place, group in enumerate(groups)}

    found = once(model, spa, {"score": score, "groups": [group.name for group in groups]}, make)
    return [found[f"score.{place}"] for place in range(len(groups))]


def _weighted(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)}


def mask_bits(model: nn.Module) -> int:
    """A bit for each input and each output of every convolution and linear layer."""
    return sum(sum(layer.weight.shape[:2]) for layer in _weighted(model).values())


def learned_bytes(model: nn.Module, bits: int) -> float:
    """Bytes of a task: its mask, and everything that it learns."""
    return bits / 8 + sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def attach(
    model: nn.Module, method: str, rank: float, form: str = "fused", outputs: Mapping[str, int] | None = None
) -> list[str]:
    """Put adapters on every linear and convolutional layer; their names. `full` needs none.

    Args:
        model: cut already.
        method: `full`, `splora` or `sppara`.
        rank: r, or below 1 a share of a layer's outputs.
        form: of linear layers.
        outputs: those outputs by name; None for the layers' own.
    """
    if method == "full":
        return []
    torch.manual_seed(0)
    layers = prunable(model, "spa", lambda _, layer: isinstance(layer, nn.Linear | nn.Conv2d))
    for name, layer in layers.items():
        wide = layer.weight.shape[0] if outputs is None else outputs[name]  # type: ignore[index]
        adapted = Adapted(layer, whole_rank(rank, int(wide)), method == "sppara", form)  # type: ignore[arg-type]
        swap(model, name, adapted.to(layer.weight.device))  # type: ignore[arg-type]
    return list(layers)


def _learn(model: nn.Module, steps: int, scored: int, cost: costs.Cost) -> dict[str, Tensor]:
    task: Any = task_of(model, "spa(steps)")
    cost.samples += steps * BATCH + scored  # those of the scores as well
    fit(model, task.training_batches(BATCH, steps, 5), classification(model), Pace(steps, 1e-3))
    return model.state_dict()
