"""Sparse spectral training of a decoder, and the low-rank trainings that it is set beside.

`sst` (arXiv 2405.15481), `lora` end to end (2106.09685), `relora`, which melts its product into the weight every so
many steps and starts another (2307.05695), and `galore`, AdamW on gradients projected to rank r (2403.03507). Linear
maps of the blocks change; embeddings, norms and head train fully. With `training_steps` the network is built anew and
learns from its start, as long as the plain one at 150.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from suites.common.counted_run import CountedRun
from suites.common.from_scratch import RATE, learned
from suites.common.gpt import Gpt
from suites.common.lora import LoraLinear, is_inside, lora_everywhere, replace_linears
from suites.common.optimizer_maker import OptimizerMaker
from suites.lowrank.spectral import SpectralAdamW, SpectralLinear

#: Learning rate of the row of a single step.
STEP_RATE = 1e-3


def sst(
    model: nn.Module, *, rank: PositiveInt = 16, iteration: PositiveInt = 10, training_steps: Count = 0
) -> nn.Module:
    """The decoder under sparse spectral training; what has learned is merged to plain weights.

    Args:
        model: a decoder.
        rank: r, triplets of a layer that train in an iteration.
        iteration: steps of an iteration.
        training_steps: batches of 16 to learn from; 0 gives the step and no quality.

    Raises:
        ValueError: a rank above a side of a weight, or no task to learn from.
    """
    changed = _start(model, training_steps)
    replace_linears(changed, lambda linear: SpectralLinear(linear, rank), is_inside)
    changed.make_optimizer = OptimizerMaker(changed, SpectralAdamW, rate=STEP_RATE, iteration=iteration)  # type: ignore[assignment]
    settings = {"rank": rank, "iteration": iteration}

    loop = CountedRun(lambda module: _begun(module, iteration))
    found = learned(changed, model, sst, settings, training_steps, loop, from_start=bool(training_steps))
    if training_steps:
        _replace(found, SpectralLinear, lambda part: part.merged())
    return found.eval()


def _begun(model: nn.Module, iteration: int) -> SpectralAdamW:
    """The optimizer of a run, whose first iteration samples its triplets as all others do."""
    optimizer = SpectralAdamW(model, 2 * RATE, iteration)
    optimizer.begin()
    return optimizer


def lora(
    model: nn.Module,
    *,
    rank: PositiveInt = 16,
    alpha: Positive = 32.0,
    freeze: bool = False,
    training_steps: Count = 0,
) -> nn.Module:
    """The decoder whose linear maps are frozen at their start and train products of rank r, end to end.

    Args:
        model: a decoder.
        rank: of the products.
        alpha: over rank, what they are multiplied with.
        freeze: whether embeddings, norms and head are frozen as well, as in fine-tuning; what learns then begins from
            the weights that the task gave, not from a random start.
        training_steps: batches of 16 to learn from; 0 gives the step and no quality.

    Raises:
        ValueError: a model without linear maps, or no task to learn from.
    """
    return _with_products(model, lora, rank, alpha, training_steps, melt_every=0, freeze=freeze)


def relora(
    model: nn.Module, *, rank: PositiveInt = 16, alpha: Positive = 32.0, melt_every: PositiveInt = 30,
    training_steps: Count = 0,
) -> nn.Module:  # fmt: skip
    """LoRA whose products are melted into the weights every so many steps, the optimizer's state of them forgotten.

    Args:
        model: a decoder.
        rank: of the products.
        alpha: over rank, what they are multiplied with.
        melt_every: steps between two melts.
        training_steps: batches of 16 to learn from; 0 gives the step and no quality.

    Raises:
        ValueError: a model without linear maps, or no task to learn from.
    """
    return _with_products(model, relora, rank, alpha, training_steps, melt_every=melt_every)


def galore(
    model: nn.Module, *, rank: PositiveInt = 16, refresh: PositiveInt = 30, scale: Positive = 0.25,
    training_steps: Count = 0,
) -> nn.Module:  # fmt: skip
    """The decoder under AdamW whose moments live in a projection of each gradient to rank r.

    Args:
        model: a decoder.
        rank: of the projection.
        refresh: steps between two projections, each the leading singular vectors of a gradient.
        scale: factor on projected updates, the paper's alpha.
        training_steps: batches of 16 to learn from; 0 gives the step and no quality.

    Raises:
        ValueError: no task to learn from.
    """
    changed = _start(model, training_steps)
    settings: dict[str, Any] = {"rank": rank, "refresh": refresh, "scale": scale}
    changed.make_optimizer = OptimizerMaker(changed, GaLore, rate=STEP_RATE, **settings)  # type: ignore[assignment]

    loop = CountedRun(lambda module: GaLore(module, 4 * RATE, **settings))
    return learned(changed, model, galore, settings, training_steps, loop, from_start=bool(training_steps)).eval()


def _with_products(
    model: nn.Module,
    method: Callable[..., Any],
    rank: int,
    alpha: float,
    steps: int,
    melt_every: int,
    freeze: bool = False,
) -> nn.Module:
    changed = model if freeze else _start(model, steps)
    lora_everywhere(changed, rank, alpha, freeze=freeze)

    def make(module: nn.Module) -> torch.optim.Optimizer:
        trained = [value for value in module.parameters() if value.requires_grad]
        return torch.optim.AdamW(trained, lr=2 * RATE, betas=(0.9, 0.98), weight_decay=0.05)

    loop = CountedRun(make, after=_melting(melt_every))
    settings = {"rank": rank, "alpha": alpha, "melt_every": melt_every, "freeze": freeze}
    found = learned(changed, model, method, settings, steps, loop, from_start=bool(steps) and not freeze)
    if steps:
        _replace(found, LoraLinear, _molten)
    return found.eval()


def _start(model: nn.Module, training_steps: int) -> nn.Module:
    """The plain network at its random start where it is to learn from there, else as it is."""
    if not training_steps:
        return model
    if not isinstance(model, Gpt):
        raise ValueError(f"training_steps={training_steps} builds byte_gpt anew, not a {type(model).__name__}")
    return model.again()


def _melting(every: int) -> Callable[[nn.Module, torch.optim.Optimizer, int], None] | None:
    """What melts all products every so many steps, the optimizer's state of them forgotten; None for never."""
    if not every:
        return None

    def after(module: nn.Module, optimizer: torch.optim.Optimizer, taken: int) -> None:
        if taken % every:
            return
        for part in module.modules():
            if isinstance(part, LoraLinear):
                part.melt()
                optimizer.state.pop(part.a, None)
                optimizer.state.pop(part.b, None)

    return after


def _molten(part: Any) -> nn.Linear:
    """The plain map that a frozen weight and its product are."""
    part.melt()
    plain = nn.Linear(part.weight.shape[1], part.weight.shape[0], bias=part.bias is not None).to(part.weight)
    with torch.no_grad():
        plain.weight.copy_(part.weight)
        if part.bias is not None:
            plain.bias.copy_(part.bias)
    return plain


def _replace(module: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> None:
    for name, part in list(module.named_modules()):
        if isinstance(part, kind):
            owner, _, own = name.rpartition(".")
            setattr(module.get_submodule(owner), own, make(part))


class GaLore(torch.optim.Optimizer):
    """AdamW in a subspace: a gradient G [out, in] is P^T G (or G P), P [., r] the leading singular vectors of one side.

    The smaller side is projected; moments are [r, n]. Vectors, embeddings and what is not wider than r learn by plain
    AdamW. Source: Zhao et al. 2024, algorithm 2.
    """

    def __init__(self, model: nn.Module, rate: float, rank: int, refresh: int, scale: float):
        inside = [part.weight for name, part in model.named_modules() if isinstance(part, nn.Linear)
                  and is_inside(name, part) and min(part.weight.shape) > rank]  # fmt: skip
        known = {id(weight) for weight in inside}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
        super().__init__([{"params": inside, "rank": rank}, {"params": others, "rank": 0}], {"lr": rate})
        self.refresh, self.scale = refresh, scale

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; projections are made anew when they are due."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._one(parameter, group["lr"], group["rank"])

    def _one(self, parameter: Tensor, rate: float, rank: int) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        state.setdefault("step", torch.zeros(()))
        tall = parameter.dim() == 2 and parameter.shape[0] > parameter.shape[1]
        if rank:
            if int(state["step"]) % self.refresh == 0:
                state["projection"] = _leading(gradient.mT if tall else gradient, rank)
            gradient = gradient @ state["projection"] if tall else state["projection"].mT @ gradient
        if "first" not in state:
            state["first"], state["second"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] += 1
        count = int(state["step"])
        first = state["first"].lerp_(gradient, 1 - 0.9)
        second = state["second"].mul_(0.98).addcmul_(gradient, gradient, value=1 - 0.98)
        update = (first / (1 - 0.9**count)) / ((second / (1 - 0.98**count)).sqrt() + 1e-8)
        if rank:
            update = self.scale * (update @ state["projection"].mT if tall else state["projection"] @ update)
        parameter.mul_(1 - 0.05 * rate).sub_(update, alpha=rate)


def _leading(gradient: Tensor, rank: int) -> Tensor:
    """Left singular vectors [rows, r] of a gradient whose rows are its smaller side."""
    if gradient.is_meta:
        return gradient.new_empty(len(gradient), rank)
    exact = gradient.double()
    return torch.linalg.eigh(exact @ exact.mT).eigenvectors[:, -rank:].to(gradient.dtype)
