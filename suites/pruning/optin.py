"""OPTIN: one-shot ranking of heads and hidden features by how far masking one bends what later layers make.

Source: Khaki and Plataniotis 2024, "The Need for Speed: Pruning Transformers with One Recipe", arXiv:2403.17921,
section 3. One unlabelled batch, no training: ||G_t - G_s||^2 over later layers, G the Gram matrix of normalised tokens
of which 768 are sampled, plus KL of the logits (T = 4) at 1/10; the last layer counts itself at one half.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import costs
from bench.config.settings import Counts, KeepRate, PositiveInt
from suites.pruning.learning import calibration, once
from suites.pruning.rounding import exact
from suites.pruning.transformers import blocks_of, cut_units, unit_macs

SAMPLED = 768
TEMPERATURE = 4.0
LOGITS = 0.1


def gram(x: Tensor, pick: Tensor) -> Tensor:
    """Inner products of the picked tokens at length one, [picked, picked]."""
    tokens = F.normalize(x.flatten(0, 1)[pick], dim=-1)
    return tokens @ tokens.t()


def optin(
    model: nn.Module,
    *,
    budget: KeepRate = 0.6,
    samples: PositiveInt = 128,
    chunk: PositiveInt = 8,
    index_prior: bool = False,
    heads: Counts | None = None,
    ffn: Counts | None = None,
) -> nn.Module:
    """A transformer without the heads and hidden features whose loss later layers notice least.

    Args:
        model: a ViT, BERT or GPT; scored on its task's inputs, or on random ones where it has none.
        budget: products of heads and hidden features that stay, over those of all.
        samples: of the one batch.
        chunk: hidden features that are masked at a time; 1 is the paper's exact ranking.
        index_prior: multiplies scores by a factor that falls with the unit's index, as the authors' code does.
        heads: kept heads of each block, by number; with `ffn` the shape is given and nothing is scored.
        ffn: kept hidden features of each block.

    Raises:
        ValueError: another network, lists that do not fit, or a budget that leaves nothing.
    """
    blocks = blocks_of(model, "optin")
    if heads is not None or ffn is not None:
        chosen = _given(blocks, heads, ffn)
    else:
        chosen = _scored(model, blocks, budget, samples, chunk, index_prior)
    for block, (kept_heads, kept_neurons) in zip(blocks, chosen, strict=True):
        cut_units(block, kept_heads, kept_neurons)
    model.kernel = "slim"  # type: ignore[assignment]
    return model


def _given(blocks: list[nn.Module], heads: list[int] | None, ffn: list[int] | None) -> list[tuple[Tensor, Tensor]]:
    full = [(int(b.attn.heads), int(b.mlp.fc1.out_features)) for b in blocks]  # type: ignore[union-attr, arg-type]
    heads = [h for h, _ in full] if heads is None else heads
    ffn = [f for _, f in full] if ffn is None else ffn
    if len(heads) != len(blocks) or len(ffn) != len(blocks):
        raise ValueError(f"heads and ffn have {len(heads)} and {len(ffn)} entries; {len(blocks)} blocks want one each")
    for given, own in zip(zip(heads, ffn, strict=True), full, strict=True):
        if given[0] > own[0] or given[1] > own[1]:
            raise ValueError(f"a block of {own[0]} heads and {own[1]} features cannot keep {given[0]} and {given[1]}")
    return [(torch.arange(h, device="cpu"), torch.arange(f, device="cpu")) for h, f in zip(heads, ffn, strict=True)]


def _scored(
    model: nn.Module, blocks: list[nn.Module], budget: float, samples: int, chunk: int, prior: bool
) -> list[tuple[Tensor, Tensor]]:
    def make(cost: costs.Cost) -> dict[str, Tensor]:
        images, _ = calibration(model, samples, cost)
        head_scores, neuron_scores = distortions(model, blocks, images, chunk)
        return {"heads": head_scores, "neurons": neuron_scores}

    found = once(model, optin, {"samples": samples, "chunk": chunk}, make)
    head_scores, neuron_scores = found["heads"], found["neurons"]
    if prior:
        head_scores = head_scores * torch.linspace(10, 1, head_scores.shape[1])
        neuron_scores = neuron_scores * torch.linspace(100, 1, neuron_scores.shape[1])
    tokens = tokens_of(model)
    each = unit_macs(blocks[0], tokens)
    return selected(head_scores, neuron_scores, each, budget)


def tokens_of(model: nn.Module) -> int:
    """Tokens of a sample as the network runs it: on them depends what a head costs beside a feature."""
    return int(model.tokens if hasattr(model, "tokens") else model.example_inputs(1)[0].shape[1])  # type: ignore[arg-type, operator]


def selected(heads: Tensor, neurons: Tensor, each: tuple[int, int], budget: float) -> list[tuple[Tensor, Tensor]]:
    """Kept heads and features per block: for every number of heads the rest of the budget goes to the best features.

    Args:
        heads: scores, [blocks, heads].
        neurons: scores, [blocks, features].
        each: products of a head and of a feature.
        budget: share of all products that stay.
    """
    total = int(exact(budget) * (heads.numel() * each[0] + neurons.numel() * each[1]))
    by_head, by_neuron = heads.flatten().sort(descending=True), neurons.flatten().sort(descending=True)
    sums = [F.pad(order.values.double().cumsum(0), (1, 0)) for order in (by_head, by_neuron)]
    best, chosen = -1.0, (0, 0)
    for count in range(heads.numel() + 1):
        left = total - count * each[0]
        if left < 0:
            break
        others = min(neurons.numel(), left // each[1])
        value = float(sums[0][count] + sums[1][others])
        if value > best:
            best, chosen = value, (count, others)
    masks = [torch.zeros(scores.numel(), dtype=torch.bool) for scores in (heads, neurons)]
    masks[0][by_head.indices[: chosen[0]]] = True
    masks[1][by_neuron.indices[: chosen[1]]] = True
    rows = zip(masks[0].view(heads.shape), masks[1].view(neurons.shape), strict=True)
    return [(head.nonzero()[:, 0], neuron.nonzero()[:, 0]) for head, neuron in rows]


@torch.no_grad()
def distortions(model: nn.Module, blocks: list[nn.Module], batch: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Scores of heads [blocks, heads] and of hidden features [blocks, features]; a chunk shares its score evenly."""
    trail = _Trail(blocks)
    logits = model(batch)
    plain = trail.take()
    count = plain[0].shape[0] * plain[0].shape[1]
    pick = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:SAMPLED]
    wanted = [gram(x, pick) for x in plain]
    target = (logits.flatten(0, -2) / TEMPERATURE).softmax(-1)

    def score(at: int) -> float:
        own = model(batch)
        seen = trail.take()
        bent = sum(float((gram(seen[i], pick) - wanted[i]).square().sum()) for i in range(at + 1, len(blocks)))
        if at == len(blocks) - 1:
            bent = 0.5 * float((gram(seen[at], pick) - wanted[at]).square().sum())
        said = (own.flatten(0, -2) / TEMPERATURE).log_softmax(-1)
        return bent + LOGITS * float(F.kl_div(said, target, reduction="batchmean"))

    heads, neurons = [], []
    for at, block in enumerate(blocks):
        heads.append([0.5 * _masked(block.attn, "head_gate", [h], score, at) for h in range(block.attn.heads)])  # type: ignore
        size = int(block.mlp.fc1.out_features)  # type: ignore[union-attr, arg-type]
        row: list[float] = []
        for start in range(0, size, chunk):
            places = list(range(start, min(start + chunk, size)))
            row += [_masked(block.mlp, "gate", places, score, at) / len(places)] * len(places)  # type: ignore[arg-type]
        neurons.append(row)
    trail.close()
    return torch.tensor(heads), torch.tensor(neurons)


def _masked(part: nn.Module, name: str, places: list[int], score: object, at: int) -> float:
    size = int(part.heads if name == "head_gate" else part.fc1.out_features)  # type: ignore[union-attr, arg-type]
    weight: Tensor = part.proj.weight if name == "head_gate" else part.fc1.weight  # type: ignore[union-attr, assignment]
    gate = torch.ones(size, dtype=weight.dtype, device=weight.device)
    gate[places] = 0
    setattr(part, name, gate)
    value = score(at)  # type: ignore[operator]
    setattr(part, name, None)
    return float(value)


class _Trail:
    """What leaves each block in one forward."""

    def __init__(self, blocks: list[nn.Module]):
        self._seen: list[Tensor] = []
        self._hooks = [block.register_forward_hook(self._note) for block in blocks]

    def _note(self, _module: nn.Module, _inputs: object, output: object) -> None:
        self._seen.append(output.x if hasattr(output, "x") else output)  # type: ignore[arg-type]

    def take(self) -> list[Tensor]:
        """The blocks' outputs since the last time."""
        seen, self._seen = self._seen, []
        return seen

    def close(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
