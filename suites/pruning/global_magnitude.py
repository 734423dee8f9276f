"""Global magnitude pruning: one threshold on |w| over every layer, biases and norms never.

Source: Gupta et al. 2022, "Is Complexity Required for Neural Network Pruning? A Case Study on Global Magnitude
Pruning" (Global MP), arXiv:2209.14624, section 3.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, Rate
from suites.pruning.allocation import global_masks
from suites.pruning.layers import install, install_to_train, prunable, weights_of
from suites.pruning.learning import Held, fresh, once, task_of, train
from suites.pruning.rounding import check_sparsity, exact
from suites.pruning.scores import Choice, chosen_by
from suites.pruning.structures import Pattern


def global_magnitude(
    model: nn.Module,
    *,
    sparsity: Rate = 0.9,
    min_threshold: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0,
    kernel: Literal["mask", "csr", "gather", "lscd"] = "mask",
    steps: Count = 0,
    gradual: bool = False,
    score: Literal["magnitude", "random"] = "magnitude",
    start: Literal["inherited", "fresh"] = "inherited",
    workload: str = "forward",
) -> nn.Module:
    """Any network with int(s W) of its W convolutional and linear weights zero, run by a kernel.

    Args:
        model: any network with linear or convolutional layers.
        sparsity: s.
        min_threshold: every layer keeps at least so many per cent of the whole network's weights, or stays as it is.
        kernel: zeros in dense layers, torch's CSR, gathered columns, or tiles that are unpacked.
        steps: batches of fine-tuning on the model's task with the masks held.
        gradual: raises s in five equal steps over the first half of them.
        score: |w|, or `random`, the control that keeps as many weights anywhere.
        start: weights that the steps begin with: the network's own, or `fresh` ones under the same masks, the control.
        workload: filled in from the case: no gradient of a training step reaches dropped weights.

    Raises:
        ValueError: no such layers, a sparsity that the minimum does not allow, no task to learn from, or weights
            without values.
    """
    check_sparsity(sparsity)
    layers = prunable(model, "global_magnitude")
    if start == "fresh" and not steps:
        raise ValueError("global_magnitude(start='fresh') draws new weights and has to train them: set steps")
    if any(weight.is_meta for weight in weights_of(layers).values()):
        raise ValueError(
            "global_magnitude compares values, and the meta device has none: measure it, or count by its s"
        )
    masks = _masks(layers, sparsity, min_threshold, score)
    if steps:
        key: dict[str, Any] = {"sparsity": sparsity, "least": min_threshold, "steps": steps, "gradual": gradual}
        key |= {"score": score, "start": start}
        masks = _tuned(model, layers, masks, key)
    put = install_to_train if workload == "training_step" else install
    return put(model, {name: Pattern(mask, int(mask.sum())) for name, mask in masks.items()}, kernel)


def _masks(layers: dict[str, nn.Module], sparsity: float, least: float, score: Choice) -> dict[str, Tensor]:
    return global_masks(
        {name: chosen_by(score, weight) for name, weight in weights_of(layers).items()}, sparsity, least
    )


def _tuned(
    model: nn.Module, layers: dict[str, nn.Module], masks: dict[str, Tensor], key: dict[str, Any]
) -> dict[str, Tensor]:
    """Fine-tune with the masks held; the masks at the end. `key` holds the settings that this depends on."""
    task, steps = task_of(model, "global_magnitude(steps)"), key["steps"]

    def make(cost: costs.Cost) -> dict[str, Tensor]:
        held, left = masks, steps
        if key["start"] == "fresh":
            fresh(model, 1)
        if key["gradual"]:
            left -= steps // 2
            for part in range(1, 6):
                held = _masks(layers, float(exact(key["sparsity"]) * part / 5), key["least"], key["score"])
                with Held(layers, held):
                    train(model, task, max(1, steps // 10), cost, seed=part)
        with Held(layers, held):
            train(model, task, left, cost)
        return {**{f"mask.{name}": mask for name, mask in held.items()}, **model.state_dict()}

    found = once(model, global_magnitude, key, make)
    final = {name: found.pop(f"mask.{name}").bool() for name in masks}
    model.load_state_dict(found)
    return final
