"""LPViT: whole blocks of linear weights go, at layer sparsities from curves of distortion and power.

Source: arXiv:2407.02068, section 3: block score mean |w g|; D(s) = mean (dw g)^2 + 1/2 dw' (g g' + 1e-7 I) dw over 101
sparsities, smoothed (0.9); power = surviving blocks x int(tokens / 16); the layers' slopes d(D + beta P)/ds are equal,
beta is the ratio of the mean peak slopes. Then the network is tuned with soft distillation.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, PositiveInt, Rate
from suites.common.finetuning import teacher_for
from suites.common.training import Pace, distillation, fit
from suites.pruning.layers import install, prunable, weights_of
from suites.pruning.learning import BATCH, RATE, Held, calibration, once, task_of
from suites.pruning.rounding import check_sparsity, dropped
from suites.pruning.structures import Pattern, block_scores, blocks

POINTS = 101
SMOOTH = 0.9
LEAST = 0.05
#: Calibration samples of one backward.
CHUNK = 64


def lpvit(
    model: nn.Module,
    *,
    sparsity: Rate = 0.5,
    block: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None = None,
    allocation: Literal["curves", "uniform"] = "curves",
    power: bool = True,
    samples: PositiveInt = 256,
    balanced: bool = False,
    steps: Count = 0,
    kernel: Literal["mask", "csr", "bsr", "gather"] = "gather",
) -> nn.Module:
    """A ViT whose linear layers and patch projection lose whole blocks of weights.

    Args:
        model: any network with layers that the blocks divide (of a convolution filters x inputs); its task's samples
            calibrate, or random ones.
        sparsity: share of the blocks of those layers that goes, together.
        block: output rows and input columns; None for 16 and 16.
        allocation: `curves` by distortion and power; `uniform` the same everywhere, which needs no data with random
            weights and is scored by |w| then.
        power: whether the power term takes part.
        samples: of calibration.
        balanced: every row of blocks keeps equally many, to whole blocks, so that the total may be a little above.
        steps: batches of tuning with the dense network's answers, masks held; 0 is one shot.
        kernel: gather runs groups of `block[0]` rows.

    Raises:
        ValueError: no such layers, or steps without a task.
    """
    check_sparsity(sparsity)
    size = (16, 16) if block is None else (block[0], block[1])

    def divided(_: str, layer: nn.Module) -> bool:
        if not isinstance(layer, nn.Linear | nn.Conv2d) or getattr(layer, "groups", 1) != 1:
            return False
        rows, columns = layer.weight.flatten(1).shape
        return not (rows % size[0] or columns % size[1])

    kind = f"linear layers or ungrouped convolutions that blocks of {size[0]} x {size[1]} divide"
    layers = prunable(model, f"lpvit(block={list(size)})", divided, kind)
    scores = {name: weight.abs() for name, weight in weights_of(layers).items()}
    whole = {name: score.numel() // (size[0] * size[1]) for name, score in scores.items()}
    rates = dict.fromkeys(layers, sparsity)
    gone = {name: dropped(number, sparsity) for name, number in whole.items()}
    if allocation == "curves" or getattr(model, "task", None) is not None:
        gradients = _gradients(model, layers, samples)
        scores = {name: score * gradients[name].abs() for name, score in scores.items()}
        if allocation == "curves":
            rates = _allocated(layers, gradients, scores, size, sparsity, power, _tokens(model))
            gone = whole_blocks(rates, whole, dropped(sum(whole.values()), sparsity))
    patterns = {
        name: blocks(score, size, rates[name], True) if balanced else blocks(score, size, 0.0, gone=gone[name])
        for name, score in scores.items()
    }
    if steps:
        key: dict[str, Any] = {"sparsity": sparsity, "block": list(size), "allocation": allocation, "power": power}
        key |= {"samples": samples, "balanced": balanced, "steps": steps}
        _tuned(model, layers, patterns, key)
    return install(model, patterns, kernel)


def _tokens(model: nn.Module) -> int:
    return int(getattr(model, "tokens", 128))


def _gradients(model: nn.Module, layers: dict[str, nn.Module], samples: int) -> dict[str, Tensor]:
    """Gradient of mean(logits^2) over calibration samples for each layer's weight."""

    def make(cost: costs.Cost) -> dict[str, Tensor]:
        inputs, _ = calibration(model, samples, cost)
        weights = [layer.weight for layer in layers.values()]
        found = [torch.zeros_like(weight) for weight in weights]  # type: ignore[arg-type]
        for part in inputs.split(CHUNK):
            with torch.enable_grad():
                value = model(part).square().mean() * (len(part) / len(inputs))
                for total, one in zip(found, torch.autograd.grad(value, weights), strict=True):  # type: ignore[arg-type]
                    total.add_(one)
        return dict(zip(layers, found, strict=True))

    return once(model, lpvit, {"samples": samples, "layers": list(layers)}, make)


def _tuned(model: nn.Module, layers: dict[str, nn.Module], patterns: dict[str, Pattern], key: dict[str, Any]) -> None:
    """Tune the network in place under held masks, with what its dense self answers."""
    steps = int(key["steps"])
    teacher = teacher_for(model, steps)
    masks = {name: pattern.mask for name, pattern in patterns.items()}

    def make(cost: costs.Cost) -> dict[str, Tensor]:
        assert teacher is not None
        task = task_of(model, "lpvit(steps)")
        cost.samples += steps * BATCH + int(key["samples"])  # those of calibration as well
        with Held(layers, masks):
            batches = task.training_batches(BATCH, steps, 0)
            fit(model, batches, distillation(model, teacher), Pace(steps, RATE))
        return model.state_dict()

    model.load_state_dict(once(model, lpvit, key, make))


def curve(weight: Tensor, gradient: Tensor, score: Tensor, size: tuple[int, int]) -> Tensor:
    """Distortion at 101 sparsities 0 .. 1, smoothed by an exponential mean; blocks leave by their score."""
    order = block_scores(score, size).flatten().argsort()
    per_block = size[0] * size[1]
    both = weight.detach().flatten(1) * gradient.flatten(1)
    first = (block_scores(both.square(), size).flatten() * per_block)[order].double().cumsum(0)
    along = (block_scores(both, size).flatten() * per_block)[order].double().cumsum(0)
    square = (block_scores(weight.detach().flatten(1).square(), size).flatten() * per_block)[order].double().cumsum(0)
    found, smooth = [], 0.0
    for point in range(POINTS):
        count = dropped(len(order), point / (POINTS - 1))
        value = 0.0
        if count:
            at = count - 1
            value = float(first[at]) / weight.numel() + 0.5 * (float(along[at]) ** 2 + 1e-7 * float(square[at]))
        smooth = value if point == 0 else SMOOTH * smooth + (1 - SMOOTH) * value
        found.append(smooth)
    return torch.tensor(found, dtype=torch.float64)


def _allocated(
    layers: dict[str, nn.Module], gradients: dict[str, Tensor], scores: dict[str, Tensor], size: tuple[int, int],
    sparsity: float, power: bool, tokens: int,
) -> dict[str, float]:  # fmt: skip
    bends = [curve(layers[name].weight, gradients[name], scores[name], size) for name in layers]  # type: ignore[arg-type]
    sizes = [scores[name].numel() for name in layers]
    per = size[0] * size[1]
    slopes = [number / per * (tokens // 16) / (POINTS - 1) for number in sizes]
    rates = equal_slopes(bends, slopes if power else [0.0] * len(slopes), sizes, sparsity)
    return dict(zip(layers, rates, strict=True))


def equal_slopes(bends: list[Tensor], power: list[float], sizes: list[int], sparsity: float) -> list[float]:
    """A sparsity for each layer so that d(D + beta P)/ds is the same and `sparsity` of all weights goes.

    beta is the ratio of the mean peak slopes of D and P. P falls linearly, so its slope is a constant of the layer.
    Every layer keeps 5 % at least. The common slope is found by bisection.

    Args:
        bends: D of each layer at 101 sparsities.
        power: fall of P between two of those sparsities, for each layer.
        sizes: weights of each layer.
        sparsity: of all together.
    """
    steps = [bend.diff() for bend in bends]
    peak, fall = sum(float(step.max()) for step in steps), sum(power)
    beta = peak / fall if fall else 0.0
    most = int((1 - LEAST) * (POINTS - 1))
    slopes = [step - beta * each for step, each in zip(steps, power, strict=True)]
    rising = [slope.cummax(0).values for slope in slopes]  # so that a larger common slope never prunes less

    def rates(common: float) -> list[float]:
        return [min(most, int((slope <= common).sum())) / (POINTS - 1) for slope in rising]

    def reached(common: float) -> float:
        return sum(size * rate for size, rate in zip(sizes, rates(common), strict=True)) / sum(sizes)

    low, high = min(float(slope.min()) for slope in rising) - 1e-12, max(float(slope.max()) for slope in rising)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < sparsity else (low, middle)
    return _exactly(rates(high), rates(low), sizes, sparsity)


def _exactly(above: list[float], below: list[float], sizes: list[int], sparsity: float) -> list[float]:
    """Between the two settings on either side of the target, so that the total is the target."""
    totals = [sum(s * r for s, r in zip(sizes, rates, strict=True)) / sum(sizes) for rates in (below, above)]
    share = 1.0 if totals[1] <= totals[0] else min(1.0, max(0.0, (sparsity - totals[0]) / (totals[1] - totals[0])))
    return [b + share * (a - b) for a, b in zip(above, below, strict=True)]


def whole_blocks(rates: dict[str, float], blocks: dict[str, int], wanted: int) -> dict[str, int]:
    """How many blocks of each layer go, `wanted` in all: int(rate x blocks), the rest to the largest remainders.

    Args:
        rates: sparsity of each layer.
        blocks: of each layer.
        wanted: in all.
    """
    ideal = {name: rates[name] * number for name, number in blocks.items()}
    found = {name: min(int(value + 1e-9), blocks[name]) for name, value in ideal.items()}
    for name in sorted(ideal, key=lambda name: found[name] - ideal[name]):
        if sum(found.values()) >= wanted:
            break
        found[name] += found[name] < blocks[name]
    return found
