"""SPDF: a static random mask while a decoder is pre-trained, none while it is fine-tuned.

Source: Thangarasa et al. 2023, arXiv:2303.10464, section 2: uniform sparsity in every linear layer of the blocks;
embeddings, norms, biases and head stay dense; gradients and optimizer state only for kept weights.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, Rate
from suites.pruning.layers import install, install_to_train, prunable
from suites.pruning.learning import Held, fresh, once, task_of, train
from suites.pruning.rounding import check_sparsity
from suites.pruning.structures import Pattern, unstructured

PRETRAIN_RATE, FINETUNE_RATE = 3e-3, 1e-3


def spdf(
    model: nn.Module,
    *,
    sparsity: Rate = 0.75,
    phase: Literal["pretrain", "finetuned"] = "pretrain",
    steps: Count = 0,
    finetune: Count = 0,
    kernel: Literal["mask", "csr"] = "mask",
    workload: str = "forward",
) -> nn.Module:
    """A decoder under a random mask that never changes, or the dense one that came out of it.

    Args:
        model: any network whose `blocks` hold linear layers.
        sparsity: of each of them.
        phase: what is left: the sparse network of pre-training, or the dense one after fine-tuning.
        steps: batches of pre-training from new weights on the model's task; 0 keeps its own weights.
        finetune: batches of dense training afterwards.
        kernel: how the masked layers run; `mask` is what a training step on dense hardware does.
        workload: filled in from the case: no gradient of a training step reaches dropped weights.

    Raises:
        ValueError: no such layers, or steps without a task.
    """
    check_sparsity(sparsity)
    kind = "linear layers below a list called `blocks`"
    layers = prunable(
        model, "spdf", lambda name, layer: isinstance(layer, nn.Linear) and name.startswith("blocks."), kind
    )
    patterns = random_masks(layers, sparsity)
    masks = {name: pattern.mask for name, pattern in patterns.items()}
    if steps or finetune:

        def make(cost: costs.Cost) -> dict[str, Tensor]:
            task = task_of(model, "spdf")
            if steps:
                fresh(model, 0)
            with Held(layers, masks):
                train(model, task, steps, cost, rate=PRETRAIN_RATE)
            train(model, task, finetune, cost, rate=FINETUNE_RATE, seed=1)
            return model.state_dict()

        model.load_state_dict(once(model, spdf, {"sparsity": sparsity, "steps": [steps, finetune]}, make))
    if phase == "finetuned":
        return model
    put = install_to_train if workload == "training_step" else install
    return put(model, patterns, kernel)


def random_masks(layers: dict[str, nn.Module], sparsity: float, seed: int = 0) -> dict[str, Pattern]:
    """A random mask of int(s n) dropped weights for each layer, the same on every machine."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, layer in layers.items():
        weight: Tensor = layer.weight  # type: ignore[assignment]
        scores = (
            torch.empty(weight.shape, device="meta")
            if weight.is_meta
            else torch.rand(weight.shape, generator=generator)
        )
        found[name] = unstructured(scores.to(weight.device), sparsity)
    return found
