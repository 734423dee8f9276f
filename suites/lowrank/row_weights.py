"""Weights of the rows of each matrix of a BERT layer: FWSVD's of gradients, ASVD's of inputs, from a task's batches.

Source: Hsu et al. 2022, FWSVD (arXiv 2207.00112); Yuan et al. 2023, ASVD (arXiv 2312.05821), its alpha = 1/2.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import costs
from suites.common.bert import BertLayer
from suites.common.task import learning_task

BATCH, BATCHES = 32, 8
#: Matrices of a layer by path, and the names that stand for them; queries, keys and values are one map.
_MATRICES = {"attn.qkv": ("q", "k", "v"), "attn.proj": ("proj",), "mlp.fc1": ("fc1",), "mlp.fc2": ("fc2",)}


def row_weights(model: nn.Module, layers: list[BertLayer], how: str, cost: costs.Cost) -> list[dict[str, Tensor]]:
    """Per layer the weights of the rows of each of its matrices, [in]; empty of plain factors.

    Args:
        model: loaded by a task.
        layers: of it.
        how: svd, fwsvd or asvd.
        cost: is charged the samples that are looked at.

    Raises:
        ValueError: data is needed and there is no task to learn from.
    """
    if how == "svd":
        return [{} for _ in layers]
    task = learning_task(model, f'factors="{how}"', 'take factors="svd", or digits_bert with task=digits')
    parts = [_matrices(layer) for layer in layers]
    sums = [
        {name: torch.zeros(part.in_features) for path, part in own.items() for name in _MATRICES[path]} for own in parts
    ]
    hooks = []
    if how == "asvd":
        for own, into in zip(parts, sums, strict=True):
            hooks += [part.register_forward_pre_hook(_sizes(into, path)) for path, part in own.items()]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            for inputs, labels in task.training_batches(BATCH, BATCHES, 0):
                cost.samples += len(labels)
                model.zero_grad(set_to_none=True)
                F.cross_entropy(model(inputs), labels).backward()
                if how == "fwsvd":
                    for own, into in zip(parts, sums, strict=True):
                        _add_gradients(own, into)
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad(set_to_none=True)
    return [{name: value.sqrt() for name, value in own.items()} for own in sums]


def _matrices(layer: BertLayer) -> dict[str, nn.Linear]:
    """Linear maps of a plain layer by path."""
    found = {path: layer.get_submodule(path) for path in _MATRICES}
    return {path: part for path, part in found.items() if isinstance(part, nn.Linear)}


def _add_gradients(parts: dict[str, nn.Linear], into: dict[str, Tensor]) -> None:
    """Add the squared gradients of each matrix, summed over its outputs."""
    for path, part in parts.items():
        gradient = part.weight.grad
        assert isinstance(gradient, Tensor)
        names = _MATRICES[path]
        for name, rows in zip(names, gradient.square().chunk(len(names)), strict=True):
            into[name] += rows.sum(dim=0)


def _sizes(into: dict[str, Tensor], path: str) -> Any:
    """A hook that adds up mean sizes of each input."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        size = inputs[0].detach().abs().flatten(0, -2).mean(dim=0)
        for name in _MATRICES[path]:
            into[name] += size

    return hook
