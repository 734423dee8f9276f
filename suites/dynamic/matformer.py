"""MatFormer: nested hidden units of the MLP, so that one network holds many (arXiv 2310.07707).

Source: Devvrit et al. 2023. Granularity g uses the first g x hidden units of an MLP: rows of its first layer, columns
of its second; attention is whole. Mix'n'Match lets every layer take its own. Training: one granularity drawn a step
(`one`), or all of them a step with summed losses and one update (`all`, as the released language model does).

A decoder can draft with a smaller granularity of itself. Weights of attention are shared; caches are not, since states
behind MLPs of another width differ: drafts keep one of their own.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, KeepRate, PositiveInt
from suites.common.decoder import Decoder
from suites.common.experts import Gated
from suites.common.speculation import Speculated, account, model_draft, speculative_greedy
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
    draft: Literal["XL", "L", "M", "S"] | KeepRate | list[KeepRate] | None = None,
    ahead: PositiveInt = 4,
    training_steps: Count = 0,
) -> nn.Module:
    """The network with a part of each MLP's hidden units.

    Args:
        model: a ViT of suites.common.vit or a decoder of suites.common.decoder.
        granularity: XL, L, M, S for 1, 1/2, 1/4, 1/8 of the units; any share; or one share per layer.
        form: `slice` runs on views of the whole, `extract` on copies.
        recipe: how further training goes: one granularity a step, all of them a step; or as controls `truncated`, the
            whole network alone, and `alone`, this sub-network alone from the plain weights.
        draft: of a decoder: the granularity that drafts what `granularity` verifies; the text is that of the latter.
        ahead: tokens of a draft.
        training_steps: of nested training on the model's task; 0 slices the plain weights.

    Raises:
        ValueError: another network, shares that do not fit its layers, a draft by more units than verify or of a
            network that writes nothing, or nothing to train on.
    """
    whole = [_hidden(mlp) for mlp in _mlps(model)]
    units = _units(granularity, whole)
    few = None if draft is None else _units(draft, whole)
    if few is not None and not isinstance(model, Decoder):
        raise ValueError(f"draft={draft}: a decoder drafts and verifies, {type(model).__name__} writes nothing")
    if few is not None and any(a > b for a, b in zip(few, units, strict=True)):
        raise ValueError(f"draft={draft} has more units than granularity={granularity}, which verifies")
    if training_steps:
        settings = {"recipe": recipe, "steps": training_steps, **({"units": units} if recipe == "alone" else {})}
        found = remembered(model, matformer, settings, lambda task: _learn(model, task, recipe, units, training_steps))
        model.load_state_dict(found)
        model.learned = {"method": "matformer", **settings}  # type: ignore[assignment]
    nest(model, units)
    made = extracted(model) if form == "extract" else model.eval()
    return made if few is None else drafted(made, few, ahead)


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


def _units(granularity: Any, whole: list[int]) -> list[int]:
    """Hidden units that run in each MLP, of those that there are."""
    return [max(1, int(share * hidden)) for share, hidden in zip(_shares(granularity, len(whole)), whole, strict=True)]


class Drafted(Decoder):
    """A decoder that writes by drafts of a part of itself; all else is the decoder's own."""

    small: Decoder
    ahead: int
    last: list[Speculated]

    def write(self, ids: Tensor, new: int) -> Tensor:
        """`new` greedy tokens after ids [batch, tokens], [batch, new], one sequence after the other."""
        self.last = [speculative_greedy(self, model_draft(self.small), row[None], new, self.ahead) for row in ids]
        return torch.cat([found.ids for found in self.last])

    def written(self) -> dict[str, float | None]:
        """Tokens per step and acceptance over the sequences of the last answer."""
        return account(self.last)


def drafted(decoder: Any, units: list[int], ahead: int) -> Drafted:
    """The decoder, in place, with drafts by the first units of its MLPs; all weights are shared."""
    small: Any = copy.copy(decoder)
    small._modules = {**decoder._modules, "blocks": nn.ModuleList(_twin(block) for block in decoder.blocks)}
    nest(small, units)
    decoder.__class__ = Drafted
    decoder.small, decoder.ahead, decoder.last = small, ahead, []
    return decoder.eval()


def _twin(block: Any) -> Any:
    """A block of the same parts with a network that can be nested apart."""
    network, twin = copy.copy(block.network), copy.copy(block)
    network._modules = dict(block.network._modules)
    twin._modules = {**block._modules, "network": network}
    return twin


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
