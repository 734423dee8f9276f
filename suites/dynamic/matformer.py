"""MatFormer: nested hidden units of the MLP, so that one network holds many (arXiv 2310.07707).

Source: Devvrit et al. 2023. Granularity g uses the first g x hidden units of an MLP: rows of its first layer, columns
of its second; attention is whole. Mix'n'Match lets every layer take its own. Training: one granularity drawn a step
(`one`), or all of them a step with summed losses and one update (`all`, as the released language model does).
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, KeepRate
from suites.common.decoder import Decoder
from suites.common.experts import Gated
from suites.common.training import Pace, classification, fit
from suites.common.vit import Mlp, ViT
from suites.dynamic.elastic import SlicedLinear, extracted
from suites.dynamic.learning import BATCH, remembered

GRANULARITIES = (1.0, 0.5, 0.25, 0.125)
NAMES = {"XL": 1.0, "L": 0.5, "M": 0.25, "S": 0.125}


def matformer(
    model: nn.Module,
    *,
    granularity: Literal["XL", "L", "M", "S"] | KeepRate | list[KeepRate] = "XL",
    form: Literal["slice", "extract"] = "extract",
    recipe: Literal["one", "all", "truncated", "alone"] = "all",
    training_steps: Count = 0,
) -> nn.Module:
    """The network with a part of each MLP's hidden units.

    Args:
        model: a ViT of suites.common.vit or a decoder of suites.common.decoder.
        granularity: XL, L, M, S for 1, 1/2, 1/4, 1/8 of the units; any share; or one share per layer.
        form: `slice` runs on views of the whole, `extract` on copies.
        recipe: how further training goes: one granularity a step, all of them a step; or as controls `truncated`, the
            whole network alone, and `alone`, this sub-network alone from the plain weights.
        training_steps: of nested training on the model's task; 0 slices the plain weights.

    Raises:
        ValueError: another network, shares that do not fit its layers, or nothing to train on.
    """
    mlps = _mlps(model)
    shares = _shares(granularity, len(mlps))
    whole = [_hidden(mlp) for mlp in mlps]
    units = [max(1, int(share * hidden)) for share, hidden in zip(shares, whole, strict=True)]
    if training_steps:
        settings = {"recipe": recipe, "steps": training_steps, **({"units": units} if recipe == "alone" else {})}
        found = remembered(model, matformer, settings, lambda task: _learn(model, task, recipe, units, training_steps))
        model.load_state_dict(found)
        model.learned = {"method": "matformer", **settings}  # type: ignore[assignment]
    nest(model, units)
    return extracted(model) if form == "extract" else model.eval()


def nest(model: nn.Module, units: list[int]) -> None:
    """Have each MLP run on its first units, as views; in place, and to be called again for others."""
    for mlp, count in zip(_mlps(model), units, strict=True):
        for name in ("fc1", "fc2") if isinstance(mlp, Mlp) else ("gate", "up", "down"):
            layer = getattr(mlp, name)
            large = layer.whole if isinstance(layer, SlicedLinear) else layer
            ends = name in ("fc2", "down")
            full = large.in_features if ends else large.out_features
            inputs, outputs = (count, large.out_features) if ends else (large.in_features, count)
            setattr(mlp, name, large if count == full else SlicedLinear(large, inputs, outputs))


def _mlps(model: nn.Module) -> list[Any]:
    if isinstance(model, ViT):
        return [block.mlp for block in model.blocks]
    if isinstance(model, Decoder) and all(isinstance(block.network, Gated) for block in model.blocks):
        return [block.network for block in model.blocks]
    raise ValueError(f"matformer nests the MLPs of a ViT or a decoder, not of {type(model).__name__}")


def _hidden(mlp: Any) -> int:
    layer = mlp.fc1 if isinstance(mlp, Mlp) else mlp.gate
    return (layer.whole if isinstance(layer, SlicedLinear) else layer).out_features


def _shares(granularity: Any, layers: int) -> list[float]:
    if isinstance(granularity, list):
        if len(granularity) != layers:
            raise ValueError(f"granularity has {len(granularity)} shares for {layers} layers")
        return [float(share) for share in granularity]
    share = NAMES[granularity] if granularity in NAMES else float(granularity)
    if not 0 < share <= 1:
        raise ValueError(f"granularity={granularity}: a share in 0 < g <= 1, or XL, L, M, S")
    return [share] * layers


def combinations(layers: int, granularities: int = 4) -> tuple[int, int]:
    """Mix'n'Match: how many combinations there are, and how many that never fall with depth."""
    return granularities**layers, math.comb(layers + granularities - 1, granularities - 1)


def non_decreasing(layers: int) -> list[tuple[float, ...]]:
    """The combinations that never fall with depth, cheapest first."""
    return list(itertools.combinations_with_replacement(sorted(GRANULARITIES), layers))


def _learn(model: nn.Module, task: Any, recipe: str, units: list[int], steps: int) -> dict[str, Tensor]:
    plain = classification(model)
    mlps = _mlps(model)
    whole = [_hidden(mlp) for mlp in mlps]
    generator = torch.Generator().manual_seed(0)

    def at(share: float) -> None:
        nest(model, [max(1, int(share * hidden)) for hidden in whole])

    def loss(inputs: Tensor, wanted: Tensor) -> Tensor:
        if recipe == "alone":
            nest(model, units)
            return plain(inputs, wanted)
        if recipe == "truncated":
            return plain(inputs, wanted)
        if recipe == "one":
            at(GRANULARITIES[int(torch.randint(len(GRANULARITIES), (1,), generator=generator))])
            return plain(inputs, wanted)
        total = torch.zeros(())
        for share in GRANULARITIES:
            at(share)
            total = total + plain(inputs, wanted)
        return total

    nest(model, whole)
    fit(model, task.training_batches(BATCH, steps, 0), loss, Pace(steps, 1e-3))
    nest(model, whole)
    return model.eval().state_dict()


def training_share(attention: int, mlp: int, recipe: Literal["one", "all"] = "all") -> float:
    """Products of a step over those of a plain step, from a layer's products: `all` runs four attentions."""
    if recipe == "one":
        return (attention + mlp * sum(GRANULARITIES) / 4) / (attention + mlp)
    return (4 * attention + sum(GRANULARITIES) * mlp) / (attention + mlp)
