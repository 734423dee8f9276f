"""AdaToken-3D: keep ratios of spatial tokens from attention statistics (Zhang et al. 2025, arXiv 2505.12782).

Offline, on a calibration set: a spatial token's contribution in a layer is the attention mass that the words behind it
pay it, mean over heads. A layer's ratio is the smallest share of its tokens that holds tau of the contribution, mean
over prompts, and never more than the layer before. Online: behind each layer the tokens stay that contribute most to
the current prompt. All of it is rebuilt from the abstract; what is known is that statistics set ratios layer by layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.settings import KeepRate, PositiveInt, Rate
from suites.common.visual_decoder import Stream, VisualDecoder
from suites.vlm_tokens import schedules
from suites.vlm_tokens.reduced import Inside, Reduced, Reduction, as_visual, best, keep, reduced
from suites.vlm_tokens.scores import TextScore


def adatoken(
    model: nn.Module,
    *,
    tau: KeepRate = 0.95,
    ratios: list[KeepRate] | None = None,
    K: PositiveInt | None = None,
    R: Rate = 0.5,
    prompts: PositiveInt = 32,
) -> Reduced:
    """The model whose layers keep as many spatial tokens as a calibration says.

    Args:
        model: reads pictures before words.
        tau: share of the contribution that a layer's tokens hold; 1 for all tokens.
        ratios: share of the tokens that enters each layer, instead of a calibration.
        K: all tokens in the first K layers and 1 - R of them behind, instead of a calibration.
        R: share that is dropped behind layer K.
        prompts: of the calibration set.

    Raises:
        ValueError: not such a model, not one ratio per layer, K beyond its layers, or nothing to calibrate with.
    """
    visual = as_visual(model, "adatoken")
    layers = len(visual.decoder.blocks)
    if ratios is None and K is not None:
        if layers < K or R >= 1:
            raise ValueError(f"K={K}, R={R}: the decoder has {layers} layers, and a share below 1 can go")
        ratios = [max(1, count) / visual.visual for count in schedules.fastv(visual.visual, layers, K, R)]
    if ratios is not None and (len(ratios) != layers or ratios[0] != 1 or min(ratios) <= 0):
        raise ValueError(f"ratios: one per layer, {layers} of them, the first of which is 1 and all above 0")
    if ratios is None:
        ratios = [1.0] * layers if tau >= 1 else _calibrated(visual, tau, prompts)
    return reduced(visual, AdaToken(ratios), "adatoken")


def _calibrated(model: VisualDecoder, tau: float, prompts: int) -> list[float]:
    if next(model.parameters()).is_meta:
        raise ValueError("adatoken calibrates on values, which meta tensors have none of: give ratios, or K and R")
    task: Any = getattr(model, "task", None)
    if task is None:
        return calibrate(model, [model.example_inputs(prompts)[0]], tau)

    def measured() -> dict[str, Tensor]:
        batches = [ids.to(model.decoder.head.weight.device) for ids, _ in task.training_batches(1, prompts, 1)]
        return {"ratios": torch.tensor(calibrate(model, batches, tau), dtype=torch.double)}

    key = {"tau": tau, "prompts": prompts}
    return task.remembered("adatoken", key, measured)["ratios"].tolist()


class _Listener(Reduction):
    """Counts, layer by layer, how many tokens hold tau of the contribution."""

    def __init__(self, tau: float, layers: int):
        super().__init__()
        self.tau, self.mass = tau, TextScore()
        self.counts, self.prompts, self.visual = [0] * layers, 0, 0

    def leave(self, layer: int, stream: Stream, inside: Inside, wanted: int) -> Stream:
        """The same tokens."""
        held = tokens_that_hold(self.mass(inside, stream), self.tau)
        self.counts[layer] += int(held.sum())
        self.visual = stream.count
        if layer == 0:
            self.prompts += len(held)
        return stream


def tokens_that_hold(contribution: Tensor, tau: float) -> Tensor:
    """The smallest number of tokens that hold tau of each row's contribution [batch, tokens], [batch]."""
    share = contribution.double().sort(dim=-1, descending=True).values.cumsum(dim=-1)
    return ((share < tau * share[:, -1:]).sum(dim=-1) + 1).clamp(max=contribution.shape[1])


@torch.no_grad()
def calibrate(model: VisualDecoder, batches: Iterable[Tensor], tau: float) -> list[float]:
    """Ratio of every layer: what layer l - 1 needs on average enters layer l, and never more than before; layer 0: 1.

    Numbers of tokens are added as whole numbers, so that their order does not matter.
    """
    layers = len(model.decoder.blocks)
    listener = _Listener(tau, layers)
    reading = Reduced(model, listener).eval()
    for ids in batches:
        reading.prefill(ids)
    ratios = [1.0]
    for count in listener.counts[: layers - 1]:
        ratios.append(min(ratios[-1], count / (listener.prompts * listener.visual)))
    return ratios


class AdaToken(Reduction):
    """Tokens by their contribution, as many as the ratios say."""

    def __init__(self, ratios: list[float]):
        super().__init__()
        self.ratios, self.mass = ratios, TextScore()

    def plan(self, visual: int, layers: int, text: int) -> list[int]:
        """ceil(ratio v)."""
        return schedules.from_ratios(visual, self.ratios)

    def leave(self, layer: int, stream: Stream, inside: Inside, wanted: int) -> Stream:
        """The tokens that contribute most."""
        if wanted >= stream.count:
            return stream
        return keep(stream, best(self.mass(inside, stream), wanted), renumber=False)
