"""NViT: one Hessian-aware score over heads, query/key, value, hidden and MLP dimensions, minus what they save in time.

Source: Yang et al. 2023, arXiv:2110.04869, sections 3 and 4. Score of a group: (sum of w dL/dw)^2 over linked weights,
sums first divided by 12 for hidden dimensions, 6 for heads, 2 for query/key; running mean 0.9; minus eta x latency
gain. The table of latencies is ours: it is measured here once (`latency_table`), or left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, KeepRate, PositiveInt
from suites.common.finetuning import teacher_for
from suites.common.training import distillation
from suites.pruning.learning import BATCH, Pace, classification, fit, once, task_of
from suites.pruning.transformers import blocks_of, cut_hidden, cut_units

DIVISORS = {"hidden": 12.0, "head": 6.0, "qk": 2.0, "v": 1.0, "mlp": 1.0}
MEAN = 0.9


def nvit(
    model: nn.Module,
    *,
    keep: KeepRate = 0.6,
    rounds: PositiveInt = 2,
    steps: Count = 100,
    tuning: Count = 100,
    eta: float = 0.0,
) -> nn.Module:
    """A ViT cut by one ranking of all its structures down to a share of its products, then fine-tuned with its teacher.

    Heads stay as many in each block's list as the ranking leaves, one at least; query/key and value dimensions are cut
    alike in all heads of a block, as the paper's groups are.

    Args:
        model: a ViT of suites.common, loaded by a task.
        keep: products that stay, over the dense network's.
        rounds: in how many parts the cut is made.
        steps: batches before each, whose gradients score.
        tuning: batches afterwards.
        eta: weight of the products that a unit saves, over the largest; 5e-4 in the paper, of latency.

    Raises:
        ValueError: another network, or no task.
    """
    blocks = blocks_of(model, "nvit")
    shape: dict[str, Tensor] = {}

    def make(cost: costs.Cost) -> dict[str, Tensor]:
        if keep == 1 and not tuning:
            return model.state_dict()
        task = task_of(model, "nvit")
        teacher = teacher_for(model, tuning)
        plain = classification(model)
        dense = _macs(model)
        for part in range(1, rounds + 1):
            running: dict[str, Tensor] = {}

            def loss(inputs: Tensor, labels: Tensor, running: dict[str, Tensor] = running) -> Tensor:
                _note(model, blocks, running)
                return plain(inputs, labels)

            cost.samples += steps * BATCH
            fit(model, task.training_batches(BATCH, max(1, steps), part), loss, Pace(max(1, steps), 1e-4))
            _note(model, blocks, running)
            target = dense * (1 - (1 - keep) * part / rounds)
            shape.update(_cut_to(model, blocks, running, target, eta, shape))
        if teacher is not None:
            cost.samples += tuning * BATCH
            fit(model, task.training_batches(BATCH, tuning, 9), distillation(model, teacher), Pace(tuning, 1e-3))
        return {**{f"shape.{name}": places for name, places in shape.items()}, **model.state_dict()}

    found = once(model, nvit, {"keep": keep, "rounds": rounds, "steps": [steps, tuning], "eta": eta}, make)
    kept = {name.removeprefix("shape."): found.pop(name) for name in list(found) if name.startswith("shape.")}
    if kept and not shape:
        apply_shape(model, blocks, kept)
    model.load_state_dict(found)
    model.kernel = "slim"  # type: ignore[assignment]
    return model


def _macs(model: nn.Module) -> int:
    from suites.pruning.rethinking import products

    return products(model, model.example_inputs(1))  # type: ignore[operator]


def group_sums(model: nn.Module, blocks: list[nn.Module]) -> dict[str, Tensor]:
    """Sum of w dL/dw of every group, by structure and block; gradients have to be there."""
    found = {}
    for i, block in enumerate(blocks):
        attention, mlp = block.attn, block.mlp
        h, q, v = int(attention.heads), int(attention.qk), int(attention.v)  # type: ignore[union-attr, arg-type]
        rows = _products(attention.qkv).sum(1)  # type: ignore[union-attr, arg-type]
        query, key, value = (part.view(h, -1) for part in rows.split([h * q, h * q, h * v]))
        out = _products(attention.proj).sum(0).view(h, v)  # type: ignore[union-attr, arg-type]
        found[f"head.{i}"] = (query + key).sum(1) + (value + out).sum(1)
        found[f"qk.{i}"] = (query + key).sum(0)
        found[f"v.{i}"] = (value + out).sum(0)
        found[f"mlp.{i}"] = _products(mlp.fc1).sum(1) + _products(mlp.fc2).sum(0)  # type: ignore[union-attr, arg-type]
    found["hidden"] = sum(_hidden(block) for block in blocks)  # type: ignore[assignment]
    return found


def _products(layer: nn.Linear) -> Tensor:
    gradient = layer.weight.grad
    return torch.zeros_like(layer.weight) if gradient is None else (layer.weight * gradient).detach()


def _hidden(block: nn.Module) -> Tensor:
    attention, mlp = block.attn, block.mlp
    reads = _products(attention.qkv).sum(0) + _products(mlp.fc1).sum(0)  # type: ignore[union-attr, arg-type]
    return reads + _products(attention.proj).sum(1) + _products(mlp.fc2).sum(1)  # type: ignore[union-attr, arg-type]


def _note(model: nn.Module, blocks: list[nn.Module], running: dict[str, Tensor]) -> None:
    """Fold the scores of the last gradients into the running mean."""
    if next(model.parameters()).grad is None:
        return
    for name, sums in group_sums(model, blocks).items():
        score = (sums / DIVISORS[name.partition(".")[0]]).square()
        running[name] = score if name not in running else MEAN * running[name] + (1 - MEAN) * score


def _cut_to(
    model: nn.Module,
    blocks: list[nn.Module],
    scores: dict[str, Tensor],
    target: float,
    eta: float,
    before: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Remove the lowest units of all structures until the products are the target; the kept places of the dense net."""
    places = {name: torch.arange(len(score)) for name, score in scores.items()}
    ranked = sorted(
        (
            (float(score[i]) - eta * _saving(blocks, name), name, i)
            for name, score in scores.items()
            for i in range(len(score))
        )
    )
    alive = {name: torch.ones(len(score), dtype=torch.bool) for name, score in scores.items()}
    for _, name, i in ranked:
        if shape_products(model, blocks, alive) <= target:
            break
        floor = 1 if name.startswith("head") else max(2, len(alive[name]) // 4)
        if int(alive[name].sum()) > floor:
            alive[name][i] = False
    kept = {name: mask.nonzero()[:, 0] for name, mask in alive.items()}
    apply_shape(model, blocks, kept)
    return {name: before[name][kept[name]] if name in before else places[name][kept[name]] for name in kept}


def _saving(blocks: list[nn.Module], name: str) -> float:
    kind, _, at = name.partition(".")
    if kind == "hidden":
        return float(len(blocks))
    attention = blocks[int(at)].attn
    return {"head": 2.0 * attention.qk + 2 * attention.v, "mlp": 2.0}.get(kind, 2.0 * attention.heads)  # type: ignore[union-attr, operator, return-value]


def shape_products(model: nn.Module, blocks: list[nn.Module], alive: dict[str, Tensor]) -> float:
    """Products of the network with these units alone, patches and heads included."""
    count = {name: int(mask.sum()) for name, mask in alive.items()}
    d, n = count["hidden"], int(model.tokens)  # type: ignore[arg-type]
    total = 0
    for i in range(len(blocks)):
        h, q, v, f = (count[f"{kind}.{i}"] for kind in ("head", "qk", "v", "mlp"))
        total += n * (2 * d * h * (q + v) + 2 * d * f + n * h * (q + v))
    patches = (n - int(model.protected)) * model.patch_embed.proj.weight[0].numel() * d  # type: ignore[union-attr, arg-type, operator]
    return float(total + patches + d * int(model.classes))  # type: ignore[arg-type]


def apply_shape(model: nn.Module, blocks: list[nn.Module], kept: dict[str, Tensor]) -> None:
    """Cut a network to the given places of every structure."""
    cut_hidden(model, kept["hidden"])
    for i, block in enumerate(blocks):
        block.attn.cut(kept[f"head.{i}"], kept[f"qk.{i}"], kept[f"v.{i}"])  # type: ignore[union-attr, operator]
        cut_units(block, torch.arange(len(kept[f"head.{i}"])), kept[f"mlp.{i}"])
