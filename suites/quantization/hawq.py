"""HAWQ: bits by the top Hessian eigenvalue of a block per parameter (Dong et al. 2019, arXiv 1905.03696, section 3).

S_i = lambda_i / n_i orders the blocks; a given multiset of bits is handed out in descending order. The order is what
the method gives, the multiset is the user's. Omega_i = lambda_i ||Q(W_i) - W_i||^2 orders fine-tuning: a block at a
time, the largest first. A block is a layer here. Formulas as recalled.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Blocks, Count, PositiveInt
from suites.common.kept_cost import parted, told
from suites.common.task import learning_task
from suites.common.training import Pace, distillation, fit
from suites.quantization.cost import costed, samples_given, told_elsewhere
from suites.quantization.hessian import Closure, top_eigenvalue
from suites.quantization.network import (
    Layer,
    calibration_batches,
    folded,
    learning_loss,
    needs_layers,
    on_meta,
    without_task,
)
from suites.quantization.rounding import rounded_network
from suites.quantization.whitepaper import activation_grids, rounded_weight, static

BITS, BATCH = (8, 4, 3, 2), 32


def handed_out(sensitivity: list[float], bits: list[int]) -> list[int]:
    """Bits of each block: the multiset in descending order to blocks in descending sensitivity.

    Args:
        sensitivity: of each block.
        bits: one a block, or fewer, each of which then goes to an equal share of the blocks.

    Raises:
        ValueError: more bits than blocks.
    """
    count = len(sensitivity)
    if len(bits) > count:
        raise ValueError(f"{len(bits)} widths for {count} blocks: give at most one a block")
    ordered = sorted(bits, reverse=True)
    multiset = [ordered[place * len(ordered) // count] for place in range(count)]
    order = sorted(range(count), key=lambda place: (-sensitivity[place], place))
    found = [0] * count
    for width, place in zip(multiset, order, strict=True):
        found[place] = width
    return found


@costed
def hawq(
    model: nn.Module,
    *,
    bits: Blocks = [8, 4, 3, 2],  # noqa: B006  (a list for the planner; never changed)
    activation_bits: PositiveInt = 8,
    iterations: PositiveInt = 20,
    samples: PositiveInt = 64,
    training_steps: Count = 0,
    seed: Count = 0,
) -> nn.Module:
    """The network with bits by layer, symmetric per output channel; all 32 leave it as it is.

    Args:
        model: of linear layers and convolutions.
        bits: the multiset that is handed out.
        activation_bits: of every activation; 32 leaves them.
        iterations: of the power method at most.
        samples: that the loss is taken over.
        training_steps: batches of fine-tuning, shared among the layers.
        seed: of the first vectors and of the samples.

    Raises:
        ValueError: widths outside 2..8, beside 32.
    """
    if any(width not in (2, 3, 4, 5, 6, 7, 8, 32) for width in [*bits, activation_bits]):
        raise ValueError(f"bits={bits}, activation_bits={activation_bits}: widths of 2 to 8, or 32 for none")
    if set(bits) == {32} and activation_bits == 32:
        return model
    teacher = without_task(model).requires_grad_(False) if training_steps else None
    folded(model)
    layers = needs_layers(model, "hawq")
    eigenvalues = _eigenvalues(model, layers, iterations, samples, seed)
    sensitivity = [eigenvalues[path] / layer.weight.numel() for path, layer in layers.items()]
    widths = dict(zip(layers, handed_out(sensitivity, list(bits)), strict=True))
    if training_steps:
        _tuned(model, teacher, layers, eigenvalues, widths, training_steps)
    batches = [] if on_meta(model) else calibration_batches(model, 128, seed)
    grids = activation_grids(model, layers, batches, activation_bits)
    model.sensitivity = dict(zip(layers, sensitivity, strict=True))  # type: ignore[assignment]
    model.widths = widths  # type: ignore[assignment]
    return rounded_network(
        model,
        layers,
        lambda path, weight: rounded_weight(weight, widths[path], "channel", True),
        lambda path, _: static(grids[path]),
        {path: float(width) for path, width in widths.items()},
        activation_bits,
    )


def loss_closure(model: nn.Module, samples: int, seed: int) -> Closure:
    """The loss of a network on samples of its task; of its own answers where it has none."""
    task: Any = getattr(model, "task", None)
    own = learning_loss(model)
    if task is not None and hasattr(task, "training_batches"):
        samples_given(samples)
        inputs, wanted = next(iter(task.training_batches(samples, 1, seed)))
        if own is not None:
            return lambda: own(inputs, wanted)
        return lambda: F.cross_entropy(model(inputs), wanted)
    args = calibration_batches(model, min(16, samples), seed)[0]
    with torch.no_grad():
        answer = model(*args)
    if hasattr(model, "velocity"):
        return lambda: (model(*args) - answer - 0.1).square().mean()
    labels = answer.argmax(dim=-1)
    return lambda: F.cross_entropy(model(*args).flatten(0, -2), labels.flatten())


def _eigenvalues(
    model: nn.Module, layers: dict[str, Layer], iterations: int, samples: int, seed: int
) -> dict[str, float]:
    if on_meta(model):
        return {path: float(len(layers) - place) for place, path in enumerate(layers)}
    with torch.inference_mode(False):
        closure = loss_closure(model, samples, seed)
        return {
            path: top_eigenvalue(closure, [layer.weight], iterations=iterations, seed=seed)
            for path, layer in layers.items()
        }


def perturbation(eigenvalue: float, weight: Tensor, bits: int) -> float:
    """Omega = lambda ||Q(W) - W||^2."""
    return eigenvalue * float((rounded_weight(weight, bits, "channel", True) - weight).square().sum())


def _tuned(
    model: nn.Module,
    teacher: nn.Module | None,
    layers: dict[str, Layer],
    eigenvalues: dict[str, float],
    widths: dict[str, int],
    steps: int,
) -> None:
    """Layer by layer in descending Omega: the layer is rounded and frozen, those still floating learn on."""
    task = learning_task(model, "hawq(training_steps)", "set training_steps=0 or take a digits model")
    omega = {p: perturbation(eigenvalues[p], layer.weight.detach(), widths[p]) for p, layer in layers.items()}
    order = sorted(layers, key=lambda path: -omega[path])
    each = max(1, steps // len(order))
    loss = learning_loss(model) or distillation(model, teacher)  # type: ignore[arg-type]

    def hawq_tuned() -> dict[str, Tensor]:
        with costs.recorded(model) as cost:
            for place, path in enumerate(order[:-1]):
                with torch.no_grad():
                    layers[path].weight.copy_(rounded_weight(layers[path].weight, widths[path], "channel", True))
                layers[path].weight.requires_grad_(False)
                fit(model, task.training_batches(BATCH, each, place), loss, Pace(each, 3e-4))
                cost.samples += BATCH * each
        return {**model.state_dict(), **told(cost)}

    key = {"widths": widths, "order": order, "steps": steps}
    with torch.inference_mode(False), torch.enable_grad(), told_elsewhere():
        weights, cost = parted(task.remembered("hawq", key, hawq_tuned))
    model.load_state_dict(weights)
    model.method_cost = cost  # type: ignore[assignment]
    for layer in layers.values():
        layer.weight.requires_grad_(True)
