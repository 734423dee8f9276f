"""JEI-DNN: heads after every block of a frozen network, and gates that read how sure they are (arXiv 2310.09163).

Source: Regol, Chataoui and Coates 2023, "Jointly-Learned Exit and Inference for a Dynamic Neural Network". A gate gets
four numbers of its head's softmax: largest probability, entropy, margin, entropy of the squared and normalised
probabilities. Exit probabilities follow from the gates (`laws.exit_probabilities`); a sample leaves at the first exit
whose conditional probability passes the threshold, 0.5 in the paper.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, KeepRate, Positive, PositiveInt
from suites.common.vit import Tokens, ViT
from suites.dynamic.learning import digits_parts, remembered, with_cost_of
from suites.dynamic.staging import Staged

LAMBDA = 0.3
BATCH = 64
#: Steps of one kind before the other kind follows.
ALTERNATE = 20
#: The most that positive gate targets weigh.
HEAVIEST = 5.0


def jei_dnn(
    model: nn.Module,
    *,
    lam: Positive = LAMBDA,
    threshold: KeepRate = 0.5,
    gate: Literal["jei", "maxp"] = "jei",
    execution: Literal["compact", "masked", "until_empty", "sorted"] = "compact",
    exit: PositiveInt | None = None,
    training_steps: Count = 0,
) -> Exits:
    """The ViT with a linear head and a gate after every block but the last; its own weights stay frozen.

    Args:
        model: a ViT with a class token.
        lam: price of a sample's products, as a share of the whole network's, against its loss; it is trained with.
        threshold: conditional exit probability that a sample must pass; of `maxp`, the largest probability.
        gate: the trained one, or the threshold on the largest probability with the same heads, which is to be beaten.
        execution: how a batch runs, see `staging`.
        exit: every sample leaves there, from 1; None lets gates decide.
        training_steps: of heads, and again of gates and heads in alternation, on the model's task; 0: random ones.

    Raises:
        ValueError: not such a model, an exit that it does not have, or nothing to train on.
    """
    if not isinstance(model, ViT) or model.pool != "token" or model.head_dist is not None:
        raise ValueError("jei_dnn reads the class token of a ViT: take one with pool='token' and without distillation")
    network = Exits(model, threshold, gate, execution, exit)
    if not training_steps:
        network.untrained = "jei_dnn's heads start at random: set training_steps, on a model with a task"  # type: ignore[assignment]
        return network.eval()
    settings = {"lam": float(lam), "steps": training_steps}
    network.learnt(remembered(model, jei_dnn, settings, lambda task: _learn(network, task, float(lam), training_steps)))
    network.learned = {"method": "jei_dnn", **settings}  # type: ignore[assignment]
    with_cost_of(network, model)
    if execution == "sorted":
        network.learn_paths(model.task)
    return network.eval()


class Gate(nn.Module):
    """From a head's logits [batch, classes] to the probability to leave, [batch]; its products are the method's."""

    charged_to = "method"

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, logits: Tensor) -> Tensor:
        """See the class."""
        return self.linear(uncertainty(logits.detach())).sigmoid()[:, 0]


def uncertainty(logits: Tensor) -> Tensor:
    """Largest probability, entropy, margin, entropy of the sharpened probabilities p^2 / sum p^2, [batch, 4]."""
    p = logits.softmax(dim=-1)
    top = p.topk(2, dim=-1).values
    squared = p.square()
    sharp = squared / squared.sum(dim=-1, keepdim=True)
    return torch.stack([top[:, 0], _entropy(p), top[:, 0] - top[:, 1], _entropy(sharp)], dim=1)


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp(min=1e-12).log()).sum(dim=-1)


class Exits(Staged):
    """A ViT whose stage is a block with the head that reads its class token after the shared last norm."""

    def __init__(self, vit: ViT, threshold: float, gate: str, execution: Any, exit: int | None):
        super().__init__(vit.depth, execution, exit)
        self.vit, self.threshold, self.kind = vit.requires_grad_(False), threshold, gate
        self.resolution, self.channels, self.classes = vit.resolution, vit.channels, vit.classes
        like = vit.head.weight
        self.heads = nn.ModuleList(nn.Linear(vit.width, vit.classes).to(like) for _ in range(vit.depth - 1))
        self.gates = nn.ModuleList(Gate().to(like) for _ in range(vit.depth - 1))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images of the model's resolution."""
        return self.vit.example_inputs(batch)

    def start(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The tokens, [batch, tokens, width]."""
        return (self.vit.embed(inputs).x,)

    def stage(self, place: int, state: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Tokens after the block, and its head's logits."""
        tokens = self.vit.blocks[place](Tokens(state[0], self.vit.protected))
        if place == self.stages - 1:
            return (tokens.x,), self.vit.classify(tokens)
        return (tokens.x,), self.heads[place](self.vit.norm(tokens.x[:, 0]))

    def leaves(self, place: int, answer: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Who passes the threshold; gates remember the sum of those before them."""
        if self.kind == "maxp":
            return answer.softmax(dim=-1).amax(dim=-1) >= self.threshold, None
        own = self.gates[place](answer)
        before = torch.zeros_like(own) if memory is None else memory
        rest = (1 - before).clamp(min=0)
        conditional = torch.minimum(own, rest) / rest.clamp(min=1e-12)
        return conditional.clamp(max=1) >= self.threshold, before + own

    def learnt(self, found: dict[str, Tensor]) -> None:
        """Take the weights of heads and gates."""
        self.load_state_dict(found, strict=False)

    def costs(self) -> list[float]:
        """Products to each exit over those to the last; earlier heads have run."""
        first: Any = self.vit.blocks[0]
        block = block_macs(self.vit.tokens, self.vit.width, first.mlp.fc1.out_features)
        patches: Any = self.vit.patch_embed
        own = getattr(patches, "macs", None)  # of a front that is more than one strided convolution
        front = own(self.vit.resolution) if own else patches.proj.weight.numel() * self.vit.grid**2
        head = self.vit.width * self.classes
        costs = [front + (exit + 1) * (block + head) for exit in range(self.stages)]
        return [cost / costs[-1] for cost in costs]


def block_macs(tokens: int, width: int, hidden: int) -> int:
    """Products of one transformer block: four maps of the width, two of the MLP, scores and their sums."""
    return tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width


def _learn(network: Exits, task: Any, lam: float, steps: int) -> dict[str, Tensor]:
    """Heads, then gates and heads in alternation, on the class tokens of the frozen network."""
    (images, labels), (held, held_labels) = digits_parts(task)
    features, final = _class_tokens(network, images)
    checked, checked_final = _class_tokens(network, held)
    heads = torch.optim.AdamW(network.heads.parameters(), lr=1e-2, weight_decay=5e-4)
    gates = torch.optim.AdamW(network.gates.parameters(), lr=5e-2, weight_decay=5e-4)
    costs = torch.tensor(network.costs())
    for _ in range(steps):
        pick = torch.randint(len(labels), (BATCH,))
        losses = _losses(network, features[pick], final[pick], labels[pick])[1]
        weights = torch.arange(network.stages - 1, 0, -1)
        _step(heads, (losses[:, :-1] * weights).sum(dim=1).mean())
    with torch.no_grad():
        answers, losses = _losses(network, checked, checked_final, held_labels)
        positive = _targets(losses, costs, lam).mean(dim=0)
        weight = ((1 - positive) / positive.clamp(min=1e-6)).clamp(max=HEAVIEST)
    for step in range(steps):
        pick = torch.randint(len(labels), (BATCH,))
        answers, losses = _losses(network, features[pick], final[pick], labels[pick])
        g = torch.stack([gate(a) for gate, a in zip(network.gates, answers[:-1], strict=True)], dim=1)
        if step // ALTERNATE % 2 == 0:
            wanted = _targets(losses.detach(), costs, lam)
            by = torch.where(wanted > 0, weight, torch.ones(()))
            _step(gates, F.binary_cross_entropy(g, wanted, weight=by))
        else:
            p = exit_probabilities(g.detach())
            mixed = (p * losses).sum(dim=1)
            scale = (losses.sum(dim=1) / mixed.clamp(min=1e-6)).detach()
            _step(heads, (scale * mixed).mean())
    return {f"{kind}.{k}": v for kind in ("heads", "gates") for k, v in getattr(network, kind).state_dict().items()}


def exit_probabilities(gates: Tensor) -> Tensor:
    """Probability of each exit [batch, exits] from its gates [batch, exits - 1]; see `laws.exit_probabilities`."""
    before = gates.cumsum(dim=1) - gates
    early = torch.minimum(gates, 1 - before).clamp(min=0)
    return torch.cat([early, 1 - early.sum(dim=1, keepdim=True)], dim=1)


def _targets(losses: Tensor, costs: Tensor, lam: float) -> Tensor:
    """1 from the exit on whose loss and price are least, for each gate, [batch, exits - 1]."""
    best = (losses + lam * costs).argmin(dim=1)
    return (torch.arange(losses.shape[1] - 1) >= best[:, None]).float()


def _losses(network: Exits, features: Tensor, final: Tensor, labels: Tensor) -> tuple[list[Tensor], Tensor]:
    """Logits of every exit, and their cross-entropies [batch, exits]."""
    answers = [head(features[:, place]) for place, head in enumerate(network.heads)] + [final]
    return answers, torch.stack([F.cross_entropy(a, labels, reduction="none") for a in answers], dim=1)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.no_grad()
def _class_tokens(network: Exits, images: Tensor) -> tuple[Tensor, Tensor]:
    """Normed class tokens after each block but the last, [images, blocks - 1, width], and the last head's logits."""
    kept, final = [], []
    vit = network.vit
    for part in images.split(100):
        tokens, rows = vit.embed(part), []
        for block in vit.blocks:
            tokens = block(tokens)
            rows.append(vit.norm(tokens.x[:, 0]))
        kept.append(torch.stack(rows[:-1], dim=1))
        final.append(vit.classify(tokens))
    return torch.cat(kept), torch.cat(final)


def conformal_sets(calibration: Tensor, truth: Tensor, logits: Tensor, miss: float = 0.1) -> Tensor:
    """Classes [batch, classes] that hold the truth with probability 1 - miss, from one exit's held-back samples.

    Score 1 - p of the truth; its (1 - miss)(1 + 1/n) quantile over `calibration` [n, classes] bounds the set.
    """
    scores = 1 - calibration.softmax(dim=-1).gather(1, truth[:, None])[:, 0]
    level = min(1.0, (1 - miss) * (1 + 1 / len(scores)))
    return 1 - logits.softmax(dim=-1) <= torch.quantile(scores, level, interpolation="higher")
