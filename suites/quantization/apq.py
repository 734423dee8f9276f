"""APQ: architecture, widths and bits searched together with a predictor that is transferred (arXiv 2006.08509).

The predictor is a network of 520-400-400-400-1 with ReLU that learns accuracy of full-precision networks; then a branch
252-400 for the bits joins after the first layer, the rest is kept, and few quantised pairs tune it (section 4.2). The
search is evolutionary: a population of 100, the best quarter are parents, half of the next are mutants (a block with
probability 0.1), half are crossed, those over the limit of cost are rejected. Here: a space of digits with shared
weights, quality on training digits that the score never sees, cost in bit operations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, Positive, PositiveInt
from suites.quantization.apq_net import ApqNet, layer_bits
from suites.quantization.apq_space import (
    Architecture,
    Space,
    bit_operations,
    code_length,
    crossed,
    encoded,
    mutated,
    random_architecture,
    uniform,
)
from suites.quantization.grids import Affine
from suites.quantization.layers import Static
from suites.quantization.network import calibration_batches, layers_of, on_meta
from suites.quantization.rounding import rounded_network
from suites.quantization.whitepaper import activation_grids, rounded_weight

HIDDEN = 400


class Predictor(nn.Module):
    """Accuracy of an architecture from its code; with `bits`, of its quantised form."""

    def __init__(self, plain: int, bits: int, hidden: int = HIDDEN):
        super().__init__()
        self.plain, self.bits = plain, bits
        self.first = nn.Linear(plain, hidden)
        self.second, self.third = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)
        self.branch = nn.Linear(bits, hidden) if bits else None

    def forward(self, code: Tensor) -> Tensor:
        """Predicted scores, [batch], of codes [batch, plain] or [batch, plain + bits]."""
        x = F.relu(self.first(code[:, : self.plain]))
        if self.branch is not None:
            x = x + self.branch(code[:, self.plain :])
        return self.out(F.relu(self.third(F.relu(self.second(x)))))[:, 0]

    def with_bits(self, bits: int) -> Predictor:
        """The same predictor with a branch for bits that says nothing yet."""
        made = Predictor(self.plain, bits, self.first.out_features)
        made.load_state_dict(self.state_dict(), strict=False)
        assert made.branch is not None
        nn.init.zeros_(made.branch.weight)
        nn.init.zeros_(made.branch.bias)
        return made


def learned(predictor: Predictor, codes: Tensor, wanted: Tensor, steps: int, rate: float = 1e-3) -> Predictor:
    """The predictor after so many steps on all pairs."""
    with torch.inference_mode(False), torch.enable_grad():
        optimizer = torch.optim.Adam(predictor.parameters(), lr=rate)
        for _ in range(steps):
            loss = F.mse_loss(predictor(codes), wanted)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return predictor.eval()


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Kendall's tau-b of two lists of numbers."""
    from scipy.stats import kendalltau

    return float(kendalltau(a.detach().numpy(), b.detach().numpy()).statistic)


@dataclass(frozen=True)
class Judge:
    """Scores architectures of a shared network by its loss on some training samples."""

    net: ApqNet
    images: Tensor
    labels: Tensor

    def plain(self, one: Architecture) -> float:
        """Minus the loss in full precision."""
        with torch.no_grad():
            return -float(F.cross_entropy(self.net.run(self.images, one), self.labels))

    def quantised(self, one: Architecture) -> float:
        """Minus the loss with its bits."""
        made = quantised_net(self.net.taken_out(one), one, [(self.images[:16],)])
        with torch.no_grad():
            return -float(F.cross_entropy(made(self.images), self.labels))


def quantised_net(net: ApqNet, one: Architecture, batches: list[tuple[Tensor, ...]]) -> nn.Module:
    """A network that was taken out with its bits: rounded floats."""
    layers, widths = layers_of(net), layer_bits(net, one)
    grids: dict[int, dict[str, Affine | None]] = {}
    for width in sorted({a for _, a in widths.values()}):
        grids[width] = activation_grids(net, layers, batches, width)
    return rounded_network(
        net,
        layers,
        lambda path, weight: rounded_weight(weight, widths[path][0], "channel", True),
        lambda path, _: Static(grids[widths[path][1]][path]),  # type: ignore[arg-type]
        {path: float(w) for path, (w, _) in widths.items()},
        {path: float(a) for path, (_, a) in widths.items()},
    )


def evolved(
    score: Any, space: Space, limit: float, *, population: int = 100, generations: int = 50, seed: int = 0
) -> tuple[Architecture, int]:
    """The best architecture found below a limit of bit operations, and how many were scored.

    Args:
        score: of a list of architectures, a tensor; larger is better.
        space: that is searched.
        limit: most bit operations of one sample.
        population: of a generation.
        generations: after the first.
        seed: of every draw.

    Raises:
        ValueError: nothing in the space is below the limit.
    """
    least = bit_operations(uniform(space, depth=1, kernel=3, expansion=space.expansions[0], bits=4), space)
    if least > limit:
        raise ValueError(f"a limit of {limit:g} bit operations is below the smallest network's {least:g}")
    random = Random(seed)

    def allowed(draw: Any) -> Architecture:
        for _ in range(200):
            one = draw()
            if bit_operations(one, space) <= limit:
                return one
        return uniform(space, depth=1, kernel=3, expansion=space.expansions[0], bits=4)

    members = [allowed(lambda: random_architecture(space, random)) for _ in range(population)]
    values, seen = score(members), len(members)
    for _ in range(generations):
        order = torch.as_tensor(values).argsort(descending=True).tolist()
        parents = [members[place] for place in order[: max(2, population // 4)]]
        pick = partial(random.choice, parents)
        half = population // 2
        made = [allowed(partial(_mutant, pick, space, random)) for _ in range(half)]
        made += [allowed(partial(_child, pick, random)) for _ in range(population - half)]
        members = parents + made
        values, seen = score(members), seen + len(made)
    return members[int(torch.as_tensor(values).argmax())], seen


def _mutant(pick: Any, space: Space, random: Random) -> Architecture:
    return mutated(pick(), space, random)


def _child(pick: Any, random: Random) -> Architecture:
    return crossed(pick(), pick(), random)


def apq(
    model: nn.Module,
    *,
    budget: Positive = 0.25,
    pairs: PositiveInt = 100,
    quantised_pairs: PositiveInt = 30,
    transfer: bool = True,
    population: PositiveInt = 32,
    generations: Count = 10,
    predictor_steps: PositiveInt = 200,
    held_out: Count = 0,
    calibration_samples: PositiveInt = 64,
    seed: Count = 0,
) -> nn.Module:
    """The network and bits that the joint search finds, taken out of a shared network; budget 1 leaves that.

    Args:
        model: `apq_supernet`.
        budget: most bit operations, over those of the largest network at 8 bits.
        pairs: architectures whose full-precision score teaches the predictor.
        quantised_pairs: architectures with bits that tune it.
        transfer: whether the full-precision predictor is kept; else it starts at random on the quantised pairs.
        population: of the evolutionary search.
        generations: of the search.
        predictor_steps: of each learning.
        held_out: architectures with bits on which the predictor's rank correlation is taken afterwards; it stands in
            the note of the method's cost. 0 for none.
        calibration_samples: training samples that networks are scored on.
        seed: of all draws.

    Raises:
        ValueError: not such a model, or a budget that nothing meets.
    """
    if not isinstance(model, ApqNet) or not model.shared:
        raise ValueError(f"apq searches in apq_supernet, and this is {type(model).__name__}")
    if budget >= 1:
        return model
    space = model.space
    limit = budget * bit_operations(uniform(space, kernel=7), space)
    if on_meta(model):
        one = uniform(space, depth=1, kernel=3, expansion=space.expansions[0], bits=4)
        return quantised_net(model.taken_out(one).to("meta"), one, [])
    batches = calibration_batches(model, calibration_samples, seed)
    images = torch.cat([args[0] for args in batches])
    judge = Judge(model, images, _labels(model, images, seed))
    with costs.recorded(model) as cost:
        predictor = taught(judge, space, pairs if transfer else 0, quantised_pairs, predictor_steps, seed)

        def score(members: list[Architecture]) -> Tensor:
            with torch.no_grad():
                return predictor(torch.tensor([encoded(each, space) for each in members]))

        one, seen = evolved(score, space, limit, population=population, generations=generations, seed=seed)
        cost.samples += len(images)
        cost.note = f"{pairs if transfer else 0} + {quantised_pairs} networks scored, {seen} predicted"
    if held_out > 1:
        tau = correlation(judge, space, predictor, held_out, seed)
        said = "no rank correlation, as predictions are equal," if math.isnan(tau) else f"rank correlation {tau:.3f}"
        cost.note += f"; {said} on {held_out} networks that were not learned from"
    made = quantised_net(model.taken_out(one), one, batches)
    made.method_cost = cost.as_dict()  # type: ignore[assignment]
    return made


def _labels(model: ApqNet, images: Tensor, seed: int) -> Tensor:
    """Labels of the calibration samples; the shared network's own answers where there is no task."""
    task: Any = getattr(model, "task", None)
    if task is not None and hasattr(task, "training_batches"):
        batch = min(16, len(images))
        return torch.cat([labels for _, labels in task.training_batches(batch, len(images) // batch, seed)])
    with torch.no_grad():
        return model(images).argmax(dim=1)


def taught(judge: Judge, space: Space, pairs: int, quantised_pairs: int, steps: int, seed: int) -> Predictor:
    """A predictor of quantised scores, by transfer from full precision where there are pairs for it."""
    random = Random(seed + 1)
    plain, bits = code_length(space)
    predictor = Predictor(plain, 0)
    if pairs:
        known = [random_architecture(space, random, quantised=False) for _ in range(pairs)]
        codes = torch.tensor([encoded(each, space, with_bits=False) for each in known])
        predictor = learned(predictor, codes, torch.tensor([judge.plain(each) for each in known]), steps)
    drawn = [random_architecture(space, random) for _ in range(quantised_pairs)]
    codes = torch.tensor([encoded(each, space) for each in drawn])
    wanted = torch.tensor([judge.quantised(each) for each in drawn])
    return learned(predictor.with_bits(bits), codes, wanted, steps)


def transfer_correlation(
    judge: Judge, space: Space, quantised_pairs: int, *, pairs: int, held_out: int = 50, steps: int = 200, seed: int = 0
) -> float:
    """Rank correlation of predicted and true quantised scores on architectures that were not learned from."""
    return correlation(judge, space, taught(judge, space, pairs, quantised_pairs, steps, seed), held_out, seed)


def correlation(judge: Judge, space: Space, predictor: Predictor, held_out: int, seed: int = 0) -> float:
    """The same of a predictor that has learned."""
    random = Random(seed + 1_000)
    others = [random_architecture(space, random) for _ in range(held_out)]
    with torch.no_grad():
        said = predictor(torch.tensor([encoded(each, space) for each in others]))
    return rank_correlation(said, torch.tensor([judge.quantised(each) for each in others]))
