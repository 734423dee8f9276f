"""Progressive gradient flow for N:M: the masked part, or the pattern, decays while the network learns.

Source: Bambhaniya et al. 2024, arXiv:2402.04744, section 4. MdGf: W (mask + (1 - mask) d), d falling linearly or
exponentially, gradients straight through. SdGf: M-1:M, M/2:M, M/4:M .. N:M stepwise, or 8N:8M, 4N:4M, 2N:2M, N:M. SR-
STE: d = 0 and 2e-4 (1 - mask) W added to the gradient (Zhou et al. 2021, arXiv:2102.04010).
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench import costs
from bench.config.settings import Count, Positive, PositiveInt
from suites.common.training import classification
from suites.pruning.layers import install, prunable, swap, weights_of
from suites.pruning.learning import BATCH, Pace, fit, once, task_of
from suites.pruning.scores import magnitude
from suites.pruning.structures import n_of_m

SRSTE = 2e-4
#: A moment of training at which every schedule has come to N:M: the zeros that a step could save are there.
LAST = 0.99


class Flow(nn.Module):
    """W (mask + (1 - mask) d) with a gradient that ignores it; with `pull` SR-STE's term is added to the gradient."""

    def __init__(self, n: int, m: int):
        super().__init__()
        self.n, self.m, self.decay, self.pull = n, m, 1.0, 0.0

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the layer multiplies with."""
        if self.decay == 1.0 and self.n == self.m:
            return weight
        mask = n_of_m(weight.detach().abs(), self.n, self.m).mask.to(weight.dtype)
        kept = weight * (mask + (1 - mask) * self.decay)
        through = weight + (kept - weight).detach()
        if self.pull and through.requires_grad:
            extra = self.pull * (1 - mask) * weight.detach()
            through.register_hook(lambda gradient: gradient + extra)
        return through


class FlowLinear(nn.Module):
    """A linear layer whose pattern is found anew in every forward: what a step of this training runs.

    Its weights are all there and all receive a gradient; forward and gradient of the input are N:M.
    """

    def __init__(self, layer: nn.Linear, flow: Flow):
        super().__init__()
        self.layer, self.flow = layer, flow
        every, kept = layer.weight.numel(), layer.weight.numel() // flow.m * flow.n
        self.weight_counts = {"dense": every, "nonzero": kept, "executed": every, "returned": kept}

    def forward(self, x: Tensor) -> Tensor:
        """[..., outputs] of x [..., inputs]."""
        return F.linear(x, self.flow(self.layer.weight), self.layer.bias)


def decay_at(schedule: str, progress: float, last: float = 0.2, speed: float = 5.0) -> float:
    """D at a share of training: 1 - t linearly or exp(-5 t) over all but the last fifth, then 0.

    Raises:
        ValueError: a schedule that decays a pattern.
    """
    if progress >= 1 - last:
        return 0.0
    t = progress / (1 - last)
    if schedule == "linear":
        return 1 - t
    if schedule == "exponential":
        return math.exp(-speed * t)
    raise ValueError(f"schedule={schedule!r} has no decaying factor: linear and exponential have")


def patterns_of(schedule: str, n: int, m: int) -> list[tuple[int, int]]:
    """The (n, m) that a schedule goes through, equal time each."""
    if schedule == "stepwise":
        found, kept = [(m - 1, m)], m // 2
        while kept > n:
            found.append((kept, m))
            kept //= 2
        return [*(pair for pair in found if pair[0] > n), (n, m)]
    if schedule == "geometric":
        return [(factor * n, factor * m) for factor in (8, 4, 2, 1)]
    return [(n, m)]


def nm_flow(
    model: nn.Module,
    *,
    n: PositiveInt = 2,
    m: PositiveInt = 4,
    schedule: Literal["linear", "exponential", "stepwise", "geometric", "srste", "dense"] = "exponential",
    where: Literal["ff", "qkv", "ff_qkv"] = "ff",
    steps: Count = 0,
    rate: Positive = 1e-3,
    kernel: Literal["mask", "csr", "semi24"] = "mask",
    workload: str = "forward",
) -> nn.Module:
    """A transformer that learned N:M in its MLPs or projections by one of the schedules, from its trained weights.

    Args:
        model: any network with `mlp` or `qkv` linear layers; loaded by a task where it learns.
        n: kept.
        m: of so many consecutive inputs.
        schedule: see the module; `dense` trains as long without zeros: the control.
        where: layers.
        steps: batches; 0 prunes by |w| without learning.
        rate: of learning.
        kernel: how it runs.
        workload: filled in from the case: a training step by masks finds its pattern anew, as all schedules do.

    Raises:
        ValueError: no such layers, inputs that m does not divide, or steps without a task.
    """
    if not n <= m:
        raise ValueError(f"n={n} of m={m}: n <= m is wanted")
    parts = {"ff": ("mlp",), "qkv": ("qkv",), "ff_qkv": ("mlp", "qkv")}[where]

    def chosen(name: str, layer: nn.Module) -> bool:
        return isinstance(layer, nn.Linear) and any(part in parts for part in name.split("."))

    kind = f"linear layers called {' or '.join(parts)}, or below a module of that name,"
    layers = prunable(model, f"nm_flow(where={where!r})", chosen, kind)
    widest = m * (8 if schedule == "geometric" and steps else 1)
    for name, layer in layers.items():
        if layer.in_features % widest:  # type: ignore[operator]
            raise ValueError(f"nm_flow: {name} has {layer.in_features} inputs, which groups of {widest} do not divide")
    if steps:
        key = {"n": n, "m": m, "schedule": schedule, "where": where, "steps": steps, "rate": rate}
        found = once(model, nm_flow, key, lambda cost: _learn(model, layers, n, m, schedule, steps, rate, cost))
        model.load_state_dict(found)
    if schedule == "dense":
        return model
    if workload == "training_step" and kernel == "mask":
        return _flowing(model, layers, n, m, schedule)
    return install(model, {name: n_of_m(magnitude(w), n, m) for name, w in weights_of(layers).items()}, kernel)


def _flowing(model: nn.Module, layers: dict[str, nn.Module], n: int, m: int, schedule: str) -> nn.Module:
    """The network at the end of its schedule, ready for a step of training."""
    for name, layer in layers.items():
        flow = Flow(n, m)
        flow.n, flow.m, flow.decay, flow.pull = state_at(schedule, LAST, n, m)
        swap(model, name, FlowLinear(layer, flow))  # type: ignore[arg-type]
    model.kernel = "mask"  # type: ignore[assignment]
    return model


def _learn(
    model: nn.Module,
    layers: dict[str, nn.Module],
    n: int,
    m: int,
    schedule: str,
    steps: int,
    rate: float,
    cost: costs.Cost,
) -> dict[str, Tensor]:  # fmt: skip
    task = task_of(model, "nm_flow(steps)")
    flows = []
    for layer in layers.values():
        flow = Flow(n, m)
        parametrize.register_parametrization(layer, "weight", flow)
        flows.append(flow)
    plain, done = classification(model), 0

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        nonlocal done
        for flow in flows:
            flow.n, flow.m, flow.decay, flow.pull = state_at(schedule, done / steps, n, m)
        done += 1
        with parametrize.cached():
            return plain(inputs, labels)

    cost.samples += steps * BATCH
    fit(model, task.training_batches(BATCH, steps, 4), loss, Pace(steps, rate))
    for flow in flows:
        flow.n, flow.m, flow.decay, flow.pull = (m, m, 1.0, 0.0) if schedule == "dense" else (n, m, 0.0, 0.0)
    for layer in layers.values():
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return model.state_dict()


def state_at(schedule: str, progress: float, n: int, m: int) -> tuple[int, int, float, float]:
    """(n, m, decay, pull) at a share of training."""
    if schedule == "dense":
        return m, m, 1.0, 0.0
    if schedule == "srste":
        return n, m, 0.0, SRSTE
    if schedule in ("stepwise", "geometric"):
        stages = patterns_of(schedule, n, m)
        return (*stages[min(len(stages) - 1, int(progress * len(stages)))], 0.0, 0.0)
    return n, m, decay_at(schedule, progress), 0.0
