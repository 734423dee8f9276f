"""The search of FBNetV5: distributions over a supernet's gates for several tasks at once, by REINFORCE.

Source: Wu et al. 2021, FBNetV5, arXiv:2111.10007, section 3.3: architectures are drawn from one task's distribution at
a time; one forward gives the losses of all tasks, and each task's gradient is weighted by how much likelier its own
distribution would have drawn that architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, KeepRate, Positive, PositiveInt
from suites.common.task import learning_task
from suites.common.tasks.digit_canvas import Target, losses
from suites.common.training import Pace, fit
from suites.convnets.fbnetv5 import Gate, Supernet, fixed_macs, gate_macs

TARGETS: tuple[str, ...] = get_args(Target)
BATCH = 32
#: Weight of the products beyond the budget, as a share of the supernet's, against the loss.
BEYOND = 10.0
RATE = 0.1
#: Architectures of one step.
DRAWS = 4


class Gates:
    """Which gates a draw opens, what it costs for a task, and how likely it is, for probabilities of any task."""

    def __init__(self, network: Supernet):
        self.network, self.gates = network, network.gates()
        self._macs = gate_macs(network)

    def opened(self, draw: Tensor) -> frozenset[Gate]:
        """The gates of a draw of 0 and 1, [gates]."""
        return frozenset(gate for gate, bit in zip(self.gates, draw.tolist(), strict=True) if bit)

    def macs(self, gates: frozenset[Gate], target: str) -> int:
        """MACs of one canvas for one target: live gates alone."""
        kept, entered = self.network.live(gates, (target,))
        return sum(self._macs[gate] for gate in kept) + fixed_macs(self.network, (target,), len(entered))

    def whole(self, target: str) -> int:
        """The same with every gate open."""
        return self.macs(frozenset(self.gates), target)

    def within(self, order: list[int], target: str, budget: float) -> frozenset[Gate]:
        """All gates without the last ones of an order, as few as bring the cost to the budget; or none."""
        for kept in range(len(order), -1, -1):
            found = frozenset(self.gates[place] for place in order[:kept])
            if self.macs(found, target) <= budget * self.whole(target):
                return self.network.live(found, (target,))[0]
        return frozenset()


def log_probability(logits: Tensor, draw: Tensor) -> Tensor:
    """Log of the probability of a draw under independent gates with such logits, a scalar."""
    return -nn.functional.binary_cross_entropy_with_logits(logits, draw, reduction="sum")


def importance(all_logits: Tensor, draw: Tensor) -> Tensor:
    """pi_t(draw) / q(draw) for each task t, where q is the mean of the tasks' distributions: [tasks], mean 1."""
    each = torch.stack([log_probability(row, draw) for row in all_logits])
    return torch.exp(each - (torch.logsumexp(each, 0) - torch.log(torch.tensor(float(len(each))))))


def search(network: Supernet, batches: Iterator[tuple[Tensor, Tensor]], budget: float, steps: int, seed: int) -> Tensor:
    """Logits of every gate for every target, [targets, gates], after one forward a step that serves all targets.

    Args:
        network: trained, in evaluation mode; its weights stay as they are.
        batches: canvases and what is asked of them, `steps` of them.
        budget: share of a target's products beyond which they cost.
        steps: of four draws each.
        seed: of the draws.
    """
    table = Gates(network)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.ones(len(TARGETS), len(table.gates), requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=RATE)
    spread: Tensor | None = None
    for step, (canvases, asked) in zip(range(steps), batches, strict=False):
        chances = logits[step % len(TARGETS)].detach().sigmoid()
        draws = (torch.rand(DRAWS, len(chances), generator=generator) < chances).float()
        with torch.no_grad():
            bad = torch.stack([_badness(table, draw, canvases, asked, budget) for draw in draws])  # [draws, targets]
            weight = torch.stack([importance(logits, draw) for draw in draws])
            # of each draw against the others of its step, which leaves the gradient unbiased
            off = (bad - bad.mean(0)) * DRAWS / (DRAWS - 1)
            now = off.abs().mean(0)
            spread = now if spread is None else 0.95 * spread + 0.05 * now
            gain = weight * off / spread.clamp_min(1e-6)
        likely = torch.stack([torch.stack([log_probability(row, draw) for row in logits]) for draw in draws])
        optimizer.zero_grad()
        (gain * likely).mean(0).sum().backward()
        optimizer.step()
    return logits.detach()


def _badness(table: Gates, draw: Tensor, canvases: Tensor, asked: Tensor, budget: float) -> Tensor:
    """What one architecture is worth to every target after one forward, [targets]: loss, and products too many."""
    gates = table.opened(draw)
    found = losses(table.network.answers(canvases, gates), asked)
    shares = torch.tensor([table.macs(gates, target) / table.whole(target) for target in TARGETS])
    return torch.stack([found[target] for target in TARGETS]) + BEYOND * (shares - budget).clamp_min(0)


def fbnetv5_search(
    model: nn.Module, *, budget: KeepRate = 0.5, how: Literal["search", "random"] = "search",
    steps: PositiveInt = 150, training_steps: Count = 300, rate: Positive = 2e-3, seed: Count = 0,
) -> Supernet:  # fmt: skip
    """The network of the model's target that the search cuts out of the supernet, or that chance does at equal cost.

    Args:
        model: a supernet that was loaded by a task of canvases.
        budget: most products, as a share of those of the supernet's part for that target.
        how: `search`, or `random`: gates in a random order, the control at the same budget.
        steps: of the search, each of four draws; it serves all targets at once.
        training_steps: batches on which the network that was cut out goes on learning for its target.
        rate: of that learning.
        seed: of the draws, and of the random order.

    Raises:
        ValueError: not a supernet, or one that was loaded without its task.
    """
    if not isinstance(model, Supernet):
        raise ValueError("fbnetv5_search cuts networks out of a supernet: take the model fbnetv5_supernet")
    task: Any = None
    if how == "search" or training_steps:  # chance alone learns nothing, so it needs no task
        task = learning_task(model, "fbnetv5_search", "take fbnetv5_class, fbnetv5_place or fbnetv5_ink")
    table, place = Gates(model), TARGETS.index(model.target)

    def find() -> dict[str, Tensor]:
        return {"logits": search(model, task.training_batches(BATCH, steps, 1), budget, steps, seed)}

    with costs.recorded(model) as cost:
        if how == "search":
            order = task.remembered("fbnetv5_search", {"budget": budget, "steps": steps, "seed": seed}, find)["logits"]
            ranks = order[place].argsort(descending=True).tolist()
        else:
            ranks = torch.randperm(len(table.gates), generator=torch.Generator().manual_seed(seed)).tolist()
        gates = table.within(ranks, model.target, budget)
        model.cut(gates)
        settings = {"gates": sorted(map(list, gates), key=str), "target": model.target, "rate": rate}
        _learn_on(model, task, settings, training_steps)
    model.method_cost = cost.as_dict()  # type: ignore[assignment]
    model.learned = {"method": "fbnetv5_search", "how": how, "steps": training_steps}  # type: ignore[assignment]
    return model


def _learn_on(model: Supernet, task: Any, settings: dict[str, Any], steps: int) -> None:
    if not steps:
        return

    def learned() -> dict[str, Tensor]:
        whole = frozenset(model.gates())  # nothing of what is left is drawn any more

        def loss(canvases: Tensor, asked: Tensor) -> Tensor:
            return losses(model.answers(canvases, whole), asked)[model.target]

        fit(model, task.training_batches(BATCH, steps, 2), loss, Pace(steps, settings["rate"], weight_decay=0.01))
        return model.state_dict()

    model.load_state_dict(task.remembered("fbnetv5_network", {**settings, "steps": steps}, learned))
