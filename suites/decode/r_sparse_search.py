"""R-Sparse's search for one rho per layer: an evolution over shares, judged by the loss on calibration text (arXiv
2504.19449).

A population of shares, one number per layer, starts around a given one. Each generation keeps the better half and adds
as many children: mixtures of two parents, moved by a little noise. The judge is the cross-entropy of single decode
steps, which is where the method is sparse. Reconstruction: sizes of population, noise and calibration text.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from suites.common.decoder import Decoder
from suites.decode.calibration import LENGTH, calibration_ids

#: Members of a generation, noise on a share, sequences and tokens that judge; of these the first are a dense prompt.
POPULATION, NOISE, SEQUENCES, TOKENS, PROMPT = 8, 0.1, 16, 48, 32
CALIBRATION = 256


#: Makes a plain decoder sparse: the decoder, one rho a layer, tokens of calibration, seed.
Sparsify = Callable[[Decoder, list[float], int, int], Decoder]


def searched(
    decoder: Decoder, sparsify: Sparsify, start: list[float], *, generations: int, seed: int = 0
) -> list[float]:
    """The best shares that were found; never worse on the calibration text than the given ones.

    Args:
        decoder: plain; it is not changed.
        sparsify: gives the sparse decoder for one rho a layer.
        start: rho per layer that the search begins at.
        generations: how often the worse half is replaced.
        seed: of noise and calibration.
    """
    ids = judging_ids(decoder, seed)
    random = torch.Generator().manual_seed(seed)
    members = [list(start)] + [moved(start, random) for _ in range(POPULATION - 1)]
    judged = [(loss_at(decoder, sparsify, member, ids, seed), member) for member in members]
    for _ in range(generations):
        best = sorted(judged, key=lambda item: item[0])[: POPULATION // 2]
        children = [child([member for _, member in best], random) for _ in range(POPULATION - len(best))]
        judged = best + [(loss_at(decoder, sparsify, member, ids, seed), member) for member in children]
    return min(judged, key=lambda item: item[0])[1]


def judging_ids(decoder: Decoder, seed: int) -> Tensor:
    """The text that shares are judged on, [16, 48]: the beginnings of as many calibration sequences."""
    return calibration_ids(decoder, SEQUENCES * LENGTH, seed)[:, :TOKENS]


def moved(shares: list[float], random: torch.Generator) -> list[float]:
    """Shares with a little noise, kept within 0 and 1."""
    noise = NOISE * torch.randn(len(shares), generator=random)
    return [min(1.0, max(0.0, share + float(step))) for share, step in zip(shares, noise, strict=True)]


def child(parents: list[list[float]], random: torch.Generator) -> list[float]:
    """Layer by layer the share of one of two parents, then a little noise."""
    first, second = (parents[int(torch.randint(len(parents), (1,), generator=random))] for _ in range(2))
    coins = torch.rand(len(first), generator=random).tolist()
    return moved([a if coin < 0.5 else b for a, b, coin in zip(first, second, coins, strict=True)], random)


@torch.no_grad()
def loss_at(decoder: Decoder, sparsify: Sparsify, shares: list[float], ids: Tensor, seed: int) -> float:
    """Cross-entropy of the tokens after a dense prompt, each predicted by a sparse step."""
    task = getattr(decoder, "task", None)
    decoder.task = None  # type: ignore[assignment]
    try:
        copied = copy.deepcopy(decoder)
    finally:
        if task is None:
            del decoder.task
        else:
            decoder.task = task
    model = sparsify(copied, shares, CALIBRATION, seed)
    prompt = min(PROMPT, ids.shape[1] - 2)
    logits, cache = model.prefill(ids[:, :prompt])
    total = F.cross_entropy(logits, ids[:, prompt])
    for place in range(prompt, ids.shape[1] - 1):
        logits, cache = model.decode(ids[:, place : place + 1], cache)
        total = total + F.cross_entropy(logits, ids[:, place + 1])
    return float(total) / (ids.shape[1] - prompt)
