"""NViT: one Hessian-aware score over heads, query/key, value, hidden and MLP dimensions, minus what they save in time.

Source: Yang et al. 2023, arXiv:2110.04869, sections 3 and 4. Score of a group: (sum of w dL/dw)^2 over linked weights,
sums first divided by 12 for hidden dimensions, 6 for heads, 2 for query/key; running mean 0.9; minus eta x latency
gain. The table of latencies is measured here once (`suites.pruning.latency_table`), or products stand for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, KeepRate, PositiveInt
from suites.common.finetuning import teacher_for
from suites.common.training import distillation
from suites.pruning.latency_table import measured
from suites.pruning.learning import BATCH, Pace, classification, fit, once, task_of
from suites.pruning.transformers import blocks_of, cut_hidden, cut_units, hidden_width

DIVISORS = {"hidden": 12.0, "head": 6.0, "qk": 2.0, "v": 1.0, "mlp": 1.0}
MEAN = 0.9
#: What a network with so many units of each structure costs.
Price = Callable[[Mapping[str, int]], float]


def nvit(
    model: nn.Module,
    *,
    keep: KeepRate = 0.6,
    rounds: PositiveInt = 2,
    steps: Count = 100,
    tuning: Count = 100,
    eta: float = 0.0,
    price: Literal["products", "table"] = "products",
) -> nn.Module:
    """A ViT cut by one ranking of all its structures down to a share of its cost, then fine-tuned with its teacher.

    Heads stay as many in each block's list as the ranking leaves, one at least; query/key and value dimensions are cut
    alike in all heads of a block, as the paper's groups are.

    Args:
        model: a ViT of suites.common, loaded by a task.
        keep: cost that stays, over the dense network's.
        rounds: in how many parts the cut is made.
        steps: batches before each, whose gradients score.
        tuning: batches afterwards.
        eta: weight of what a unit saves, over the largest saving of all structures; 5e-4 in the paper.
        price: of what `keep` is a share: products of the whole network, or the latency of the blocks by a table that is
            measured here.

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
        cost_of = table_price(model, blocks) if price == "table" else products_price(model, blocks)
        dense = cost_of(counts_of(model, blocks))
        for part in range(1, rounds + 1):
            running: dict[str, Tensor] = {}

            def loss(inputs: Tensor, labels: Tensor, running: dict[str, Tensor] = running) -> Tensor:
                _note(model, blocks, running)
                return plain(inputs, labels)

            cost.samples += steps * BATCH
            fit(model, task.training_batches(BATCH, max(1, steps), part), loss, Pace(max(1, steps), 1e-4))
            _note(model, blocks, running)
            target = dense * (1 - (1 - keep) * part / rounds)
            shape.update(_cut_to(model, blocks, running, target, eta, shape, cost_of))
        shape["predicted"] = torch.tensor(cost_of(counts_of(model, blocks)) / dense, dtype=torch.float64)
        if teacher is not None:
            cost.samples += tuning * BATCH
            fit(model, task.training_batches(BATCH, tuning, 9), distillation(model, teacher), Pace(tuning, 1e-3))
        return {**{f"shape.{name}": places for name, places in shape.items()}, **model.state_dict()}

    key = {"keep": keep, "rounds": rounds, "steps": [steps, tuning], "eta": eta, "price": price}
    found = once(model, nvit, key, make)
    kept = {name.removeprefix("shape."): found.pop(name) for name in list(found) if name.startswith("shape.")}
    _tell_prediction(model, price, kept.pop("predicted", None))
    if kept and not shape:
        apply_shape(model, blocks, kept)
    model.load_state_dict(found)
    model.kernel = "slim"  # type: ignore[assignment]
    return model


def _tell_prediction(model: nn.Module, price: str, predicted: Tensor | None) -> None:
    """Note beside the cost of the method what share of the dense cost its price predicts."""
    if predicted is not None:
        told = {"note": f"{price}: {float(predicted):.4f} of the dense cost is predicted"}
        model.method_cost = {**model.method_cost, **told}  # type: ignore[dict-item, assignment]


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
    found["hidden"] = sum(_hidden(block) for block in blocks)
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
    price: Price,
) -> dict[str, Tensor]:
    """Remove the lowest units of all structures until the cost is the target; the kept places of the dense net."""
    counts = {name: len(score) for name, score in scores.items()}
    saved = savings(price, counts)
    ranked = sorted(
        (float(score[i]) - eta * saved[name], name, i) for name, score in scores.items() for i in range(len(score))
    )
    floors = {name: 1 if name.startswith("head") else max(2, size // 4) for name, size in counts.items()}
    alive = {name: torch.ones(len(score), dtype=torch.bool) for name, score in scores.items()}
    for _, name, i in ranked:
        if price(counts) <= target:
            break
        if counts[name] > floors[name]:
            alive[name][i] = False
            counts[name] -= 1
    kept = {name: mask.nonzero()[:, 0] for name, mask in alive.items()}
    apply_shape(model, blocks, kept)
    return {name: before[name][kept[name]] if name in before else kept[name] for name in kept}


def savings(price: Price, counts: Mapping[str, int]) -> dict[str, float]:
    """What one unit fewer of each structure saves, over the largest such saving."""
    whole = price(counts)
    found = {name: whole - price({**counts, name: size - 1}) for name, size in counts.items()}
    most = max(found.values())
    return {name: each / most for name, each in found.items()} if most > 0 else dict.fromkeys(found, 0.0)


def counts_of(model: nn.Module, blocks: list[nn.Module]) -> dict[str, int]:
    """How many units of each structure there are; query/key and value dimensions are those of one head."""
    found = {"hidden": hidden_width(model)}
    for i, block in enumerate(blocks):
        attention = block.attn
        found[f"head.{i}"], found[f"qk.{i}"] = int(attention.heads), int(attention.qk)  # type: ignore[union-attr, arg-type]
        found[f"v.{i}"], found[f"mlp.{i}"] = int(attention.v), int(block.mlp.fc1.out_features)  # type: ignore[union-attr, arg-type]
    return found


def products_price(model: nn.Module, blocks: list[nn.Module]) -> Price:
    """Products of the network with so many units, patches and heads included."""
    n, layers = int(model.tokens), len(blocks)  # type: ignore[arg-type]
    patch = (n - int(model.protected)) * int(model.patch_embed.proj.weight[0].numel())  # type: ignore[union-attr, arg-type, index]
    classes = int(model.classes)  # type: ignore[arg-type]

    def price(count: Mapping[str, int]) -> float:
        d, total = count["hidden"], 0
        for i in range(layers):
            h, q, v, f = (count[f"{kind}.{i}"] for kind in ("head", "qk", "v", "mlp"))
            total += n * (2 * d * h * (q + v) + 2 * d * f + n * h * (q + v))
        return float(total + patch * d + d * classes)

    return price


def table_price(model: nn.Module, blocks: list[nn.Module]) -> Price:
    """Milliseconds of the blocks with so many units, by a table that is measured now."""
    first = {name.partition(".")[0]: size for name, size in counts_of(model, blocks[:1]).items()}
    table = measured(first, int(model.tokens))  # type: ignore[arg-type]

    def price(count: Mapping[str, int]) -> float:
        sizes = ({kind: count[f"{kind}.{i}"] for kind in ("head", "qk", "v", "mlp")} for i in range(len(blocks)))
        return sum(table.block({**each, "hidden": count["hidden"]}) for each in sizes)

    return price


def apply_shape(model: nn.Module, blocks: list[nn.Module], kept: dict[str, Tensor]) -> None:
    """Cut a network to the given places of every structure."""
    cut_hidden(model, kept["hidden"])
    for i, block in enumerate(blocks):
        block.attn.cut(kept[f"head.{i}"], kept[f"qk.{i}"], kept[f"v.{i}"])  # type: ignore[union-attr, operator]
        cut_units(block, torch.arange(len(kept[f"head.{i}"])), kept[f"mlp.{i}"])
