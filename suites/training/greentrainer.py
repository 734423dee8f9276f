"""GreenTrainer: train the tensors that promise the largest drop of the loss within a budget (arXiv 2309.13192).

Importance, once per epoch on one batch: gradients g, one trial step of the real optimizer, the change dw of every
tensor, a second pass on the same batch, I_k = - sum(g_k dw_k) with the gradients after the step, divided by the largest
|I|. Weights and optimizer state are put back bit for bit (the released code puts back weights alone, so that Adam's
moments keep two trial steps). The choice then sets `requires_grad` and nothing else.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, KeepRate, PositiveInt
from suites.common.counted_run import CountedRun, executed
from suites.common.from_scratch import RATE, learned
from suites.common.gpt import Gpt, as_gpt
from suites.common.training import classification
from suites.training.costs import SCORES, backward_macs, forward_macs, gpt_tensors
from suites.training.selection import RESOLUTION, backward_budget, chosen


def greentrainer(
    model: nn.Module,
    *,
    rho: KeepRate = 0.5,
    charge_own: bool = False,
    batch: PositiveInt = 4,
    steps_per_epoch: PositiveInt = 20,
    training_steps: Count = 0,
) -> Gpt:
    """The GPT of which as many tensors train as fit into a share of the full step's products.

    Args:
        model: a GPT of suites.common.gpt with one qkv map and a tied head.
        rho: share of the products of a whole step.
        charge_own: whether the earliest chosen tensor is charged the pass through its own operator.
        batch: sequences that costs are of.
        steps_per_epoch: steps between two choices.
        training_steps: batches of 16 to fine-tune on, 20 an epoch; 0 chooses once and gives a cost.

    Raises:
        ValueError: not such a model, a budget in which nothing can train, or no task to learn from.
    """
    gpt = as_gpt(model, "greentrainer")
    if not _is_booked(gpt):
        raise ValueError(
            "greentrainer books costs of a GPT with learned positions, one qkv map three times as wide as the network "
            "and a tied head: build it with positions='learned' and fused=True, and leave kv_heads, head and tied"
        )
    gpt.detach_lookup = True  # from the first importance on: the table is judged by what it trains by
    names = [part.name for part in costs_of(gpt, batch) if not part.name.endswith(SCORES)]
    tensors = [gpt.get_parameter(name) for name in names]

    def select(module: nn.Module, optimizer: torch.optim.Optimizer, ids: Tensor, labels: Tensor) -> float:
        apply(gpt, set(selected(gpt, optimizer, ids, labels, rho, charge_own)))
        return 2 * whole_step(module, ids, labels)

    if not training_steps:
        apply(gpt, set(_without_training(gpt, tensors, rho, charge_own, batch)))
        return gpt

    loop = CountedRun(select=select, every=steps_per_epoch)
    settings = {"rho": rho, "charge_own": charge_own, "steps_per_epoch": steps_per_epoch, "names": len(names)}
    return as_gpt(learned(gpt, gpt, greentrainer, settings, training_steps, loop, from_start=False), "greentrainer")


def _is_booked(model: Gpt) -> bool:
    """Whether `suites.training.costs` has the products of this network."""
    s = model.settings
    size, groups = s["head"] or s["width"] // s["heads"], s["kv_heads"] or s["heads"]
    square = size * s["heads"] == s["width"] and groups == s["heads"]
    return s["fused"] and s["tied"] and model.places is not None and square


def costs_of(model: Gpt, batch: int) -> list[Any]:
    """Costs of the model's tensors from the input to the loss, for sequences of its context."""
    s = model.settings
    return gpt_tensors(batch, model.context, s["layers"], s["width"], s["hidden"], s["vocabulary"])


def budget_of(model: Gpt, rho: float, batch: int) -> float:
    """Products that a backward may make."""
    s = model.settings
    forward = forward_macs(batch, model.context, s["layers"], s["width"], s["vocabulary"], s["hidden"])
    parts = costs_of(model, batch)
    backward = backward_macs(parts, {part.name for part in parts})
    return backward_budget(rho, forward, backward) * backward


def select_by(model: Gpt, worth: dict[str, float], rho: float, charge_own: bool, batch: int) -> list[str]:
    """Names of the tensors that are best to train, by their importances."""
    from_loss = costs_of(model, batch)[::-1]
    found = chosen(
        [part.dy for part in from_loss],
        [part.dw for part in from_loss],
        [worth.get(part.name, 0.0) for part in from_loss],
        budget_of(model, rho, batch),
        charge_own=charge_own,
        resolution=RESOLUTION,
    )
    return [from_loss[place].name for place in found.places]


def selected(
    model: Gpt, optimizer: torch.optim.Optimizer, ids: Tensor, labels: Tensor, rho: float, charge_own: bool
) -> list[str]:
    """The choice on one batch; weights, gradients' flags and optimizer are as they were afterwards."""
    worth = importance(model, optimizer, ids, labels)
    return select_by(model, worth, rho, charge_own, len(ids))


def importance(model: nn.Module, optimizer: torch.optim.Optimizer, ids: Tensor, labels: Tensor) -> dict[str, float]:
    """- sum(g dw) of every tensor after a trial step, over the largest size; all else is put back bit for bit."""
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = copy.deepcopy(optimizer.state_dict())
    loss = classification(model)
    model.requires_grad_(True)
    try:
        optimizer.zero_grad(set_to_none=True)
        loss(ids, labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss(ids, labels).backward()
        found = {
            name: 0.0 if p.grad is None else -float((p.grad * (p.detach() - before[name])).sum())
            for name, p in model.named_parameters()
        }
    finally:
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(before[name])
                p.requires_grad_(flags[name])
        optimizer.zero_grad(set_to_none=True)
        optimizer.load_state_dict(state)
    largest = max(abs(value) for value in found.values()) or 1.0
    return {name: value / largest for name, value in found.items()}


def whole_step(model: nn.Module, ids: Tensor, labels: Tensor) -> float:
    """Products of a step on this batch in which everything trains; flags are as they were afterwards."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    model.requires_grad_(True)
    try:
        return executed(model, ids, labels)
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def apply(model: nn.Module, names: set[str]) -> None:
    """Let these tensors train and no others; the table trains as the head that it also is, as its cost says.

    Raises:
        ValueError: no tensor is chosen: the head's input gradient alone exceeds the budget.
    """
    if not names:
        raise ValueError(
            "nothing can train within the budget: passing the gradient through the head already costs more, so take a "
            "larger rho"
        )
    model.detach_lookup = True  # type: ignore[assignment]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def _without_training(model: Gpt, tensors: list[nn.Parameter], rho: float, charge_own: bool, batch: int) -> list[str]:
    """The choice of the row of a single step: by importance on the example's ids, or on the meta device by size."""
    if model.embed.weight.is_meta:
        worth = {name: float(p.numel()) for name, p in model.named_parameters()}
        return select_by(model, worth, rho, charge_own, batch)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(0)
        (ids,) = model.example_inputs(batch)
        with costs.recorded(model) as cost:
            optimizer = torch.optim.AdamW(tensors, lr=RATE)
            found = selected(model, optimizer, ids, ids.roll(-1, dims=1), rho, charge_own)
            cost.samples += batch
    model.method_cost = cost.as_dict()  # type: ignore[assignment]
    return found
