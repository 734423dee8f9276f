"""ECoFLaP: zeroth-order importance of blocks sets each block's sparsity, and Wanda prunes inside.

Source: Sung et al. 2024, arXiv:2310.02998, section 3: each weight matrix is moved by +-1e-3 z, z normal, and |L+ - L-|
over 2e-3, summed over 32 to 128 samples, is its importance; a block's is the sum over its matrices.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import costs
from bench.config.settings import PositiveInt, Rate
from suites.pruning.allocation import largest_remainder, shared_budget
from suites.pruning.layers import install, prunable
from suites.pruning.learning import calibration, once
from suites.pruning.rounding import check_sparsity
from suites.pruning.scores import wanda
from suites.pruning.structures import Pattern, smallest

STEP = 1e-3


def ecoflap(
    model: nn.Module,
    *,
    sparsity: Rate = 0.5,
    samples: PositiveInt = 32,
    score: Literal["zeroth", "first", "uniform"] = "zeroth",
    reach: Rate = 0.1,
    per_row: bool = False,
    kernel: Literal["mask", "csr", "gather"] = "mask",
) -> nn.Module:
    """A transformer whose blocks lose linear weights by their importance, Wanda inside; nothing is trained.

    Args:
        model: any network whose `blocks` hold linear layers; its task's samples calibrate, or random ones.
        sparsity: of all of them together.
        samples: of calibration.
        score: `zeroth`: forwards alone; `first`: |w g|; `uniform`: Wanda at one rate, the baseline.
        reach: how much sparser than the whole a block may be.
        per_row: Wanda compares within each output row instead of the whole matrix.
        kernel: how the sparse layers run.

    Raises:
        ValueError: no blocks with linear layers.
    """
    check_sparsity(sparsity)
    kind = "linear layers below a list called `blocks`"
    layers = prunable(
        model, "ecoflap", lambda name, layer: isinstance(layer, nn.Linear) and name.startswith("blocks."), kind
    )

    def make(cost: costs.Cost) -> dict[str, Tensor]:
        batch = calibration(model, samples, cost)
        squares = input_squares(model, layers, batch[0])
        values = importance(model, layers, batch, score)
        return {
            "importance": torch.tensor(values, dtype=torch.float64),
            **{f"x.{name}": x for name, x in squares.items()},
        }

    found = once(model, ecoflap, {"samples": samples, "score": score}, make)
    keep = kept_by_block(layers, found["importance"].tolist(), sparsity, 0.0 if score == "uniform" else reach)
    patterns = {}
    for name, layer in layers.items():
        worth = wanda(layer.weight, found[f"x.{name}"])  # type: ignore[arg-type]
        patterns[name] = _pattern(worth, keep[name], per_row)
    return install(model, patterns, kernel)


def block_of(name: str) -> str:
    """`blocks.3` of `blocks.3.mlp.fc1`."""
    return ".".join(name.split(".")[:2])


def kept_by_block(layers: dict[str, nn.Module], values: list[float], sparsity: float, reach: float) -> dict[str, int]:
    """Weights that each matrix keeps: its block's number shared in proportion to sizes; the sum is int(N (1 - s))."""
    blocks: dict[str, list[str]] = {}
    for name in layers:
        blocks.setdefault(block_of(name), []).append(name)
    size = {name: layer.weight.numel() for name, layer in layers.items()}  # type: ignore[operator]
    score = dict(zip(layers, values, strict=True))
    totals = [sum(size[name] for name in names) for names in blocks.values()]
    worth = [sum(score[name] for name in names) for names in blocks.values()]
    found: dict[str, int] = {}
    for names, kept, total in zip(blocks.values(), shared_budget(totals, worth, sparsity, reach), totals, strict=True):
        shares = [Fraction(size[name], total) for name in names]
        found.update(zip(names, largest_remainder(kept, shares), strict=True))
    return found


def _pattern(worth: Tensor, keep: int, per_row: bool) -> Pattern:
    if not per_row:
        return Pattern(smallest(worth, worth.numel() - keep), keep)
    each = keep // len(worth)
    mask = torch.zeros_like(worth, dtype=torch.bool).scatter_(1, worth.topk(each, dim=1).indices, True)
    return Pattern(mask, each * len(worth), balanced=True)


@torch.no_grad()
def input_squares(model: nn.Module, layers: dict[str, nn.Module], inputs: Tensor) -> dict[str, Tensor]:
    """Sum of squared inputs of each linear layer over all tokens, [inputs]."""
    found: dict[str, Tensor] = {}

    def note(name: str) -> object:
        return lambda _m, args: found.__setitem__(name, args[0].flatten(0, -2).square().sum(0))

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]  # type: ignore[arg-type]
    model(inputs)
    for hook in hooks:
        hook.remove()
    return found


def importance(model: nn.Module, layers: dict[str, nn.Module], batch: tuple[Tensor, Tensor], score: str) -> list[float]:
    """Importance of each matrix: 2 forwards a matrix, or one backward, or ones."""
    inputs, labels = batch
    if score == "uniform":
        return [float(layer.weight.numel()) for layer in layers.values()]  # type: ignore[operator]

    def losses() -> Tensor:
        logits = model(inputs)
        each = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
        return each.view(len(inputs), -1).mean(1)

    if score == "first":
        weights = [layer.weight for layer in layers.values()]
        with torch.enable_grad():
            gradients = torch.autograd.grad(losses().sum(), weights)  # type: ignore[arg-type]
        return [float((w.detach() * g).abs().sum()) for w, g in zip(weights, gradients, strict=True)]  # type: ignore[operator]
    found = []
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in layers.values():
            weight: Tensor = layer.weight  # type: ignore[assignment]
            kept, z = weight.clone(), torch.randn(weight.shape, generator=generator).to(weight)
            weight.copy_(kept + STEP * z)
            up = losses()
            weight.copy_(kept - STEP * z)
            down = losses()
            weight.copy_(kept)
            found.append(float((up - down).abs().sum()) / (2 * STEP))
    return found
