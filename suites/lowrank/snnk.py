"""Scalable neural network kernels: layers as dot products of random features of input and weights (arXiv 2310.13225).

The layer is `suites.lowrank.snnk_layer`. With a linear map after it the two bundle into B Psi. Fully bundled, a network
is R Phi(x), and R is the ridge regression in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, Positive, PositiveInt
from suites.common.bert import Bert
from suites.common.cut_attention import CutMlp
from suites.common.finetuning import finetuned, teacher_for
from suites.common.mlp import Mlp
from suites.common.task import learning_task
from suites.common.training import classification
from suites.lowrank.adapters import parameters_of, train_only, with_adapters
from suites.lowrank.digits_bert import layers_of
from suites.lowrank.random_features import Features, Kind
from suites.lowrank.snnk_layer import SnnkLayer, snnk_from

RIDGE_BATCH, RIDGE_BATCHES = 400, 6


def snnk(
    model: nn.Module,
    *,
    m: PositiveInt = 128,
    features: Literal["relu", "cos", "sin", "gauss"] = "relu",
    where: Literal["hidden", "pooler", "adapters", "ffn"] = "hidden",
    bundled: Literal["none", "last", "fully"] = "none",
    orthogonal: bool = False,
    top: PositiveInt = 1,
    bottleneck: PositiveInt = 48,
    ridge: Positive = 1.0,
    training_steps: Count = 0,
) -> nn.Module:
    """The model with layers replaced by dot products of random features, which are new layers and have to learn.

    Args:
        model: digits_mlp for `hidden`, a BERT for the others.
        m: random features of a layer.
        features: ReLU, or universal ones for cos, sin, exp(-u^2/2).
        where: hidden layers of a perceptron, the pooler, the first maps of adapters, or those of the last networks.
        bundled: of `hidden`: not at all, the last layer with the head, or the whole network as one ridge regression.
        orthogonal: whether rows of the projection are orthogonal.
        top: of `ffn`: how many of the last layers.
        bottleneck: of `adapters`.
        ridge: of `bundled="fully"`: weight of the penalty.
        training_steps: batches of 32 to learn from; 0 gives a cost and no quality.

    Raises:
        ValueError: a model that has not what `where` names, or no task to learn from.
    """
    settings = {"m": m, "features": features, "where": where, "bundled": bundled, "orthogonal": orthogonal,
                "top": top, "bottleneck": bottleneck}  # fmt: skip
    if bundled != "none" and where != "hidden":
        raise ValueError(f'bundled="{bundled}" is for where="hidden": elsewhere no linear map follows alone')
    if bundled == "fully":
        return _fully_bundled(model, m, features, orthogonal, ridge)
    teacher = teacher_for(model, training_steps)
    made = _REPLACE[where](model, m=m, kind=features, orthogonal=orthogonal, top=top, bottleneck=bottleneck)
    if where in ("pooler", "adapters"):
        train_only(model, made)
    learned = finetuned(
        model, teacher, snnk, settings, training_steps, loss=classification(model), fresh=parameters_of(made)
    )
    if not training_steps:
        learned.untrained = "SNNK layers start as new layers and were not trained: set training_steps"  # type: ignore[assignment]
    if bundled == "last":
        _bundle_head(learned)
    return learned.eval()


def _of_hidden(model: nn.Module, m: int, kind: Kind, orthogonal: bool, **_: Any) -> list[nn.Module]:
    """Features bring their own non-linearity, so that the ReLU behind a map goes."""
    mlp = _mlp(model)
    for place, act in enumerate(mlp.acts):
        layer = mlp.layers[place]
        if not isinstance(layer, nn.Linear) or not isinstance(act, nn.ReLU):
            raise ValueError("the hidden layers are replaced already: start from the plain model")
        mlp.layers[place], mlp.acts[place] = snnk_from(layer, m, kind, orthogonal), nn.Identity()
    return list(mlp.layers[:-1])


def _of_pooler(model: nn.Module, m: int, kind: Kind, orthogonal: bool, **_: Any) -> list[nn.Module]:
    if not isinstance(model, Bert) or not isinstance(model.pooler, nn.Linear):
        raise ValueError('where="pooler" needs a BERT that has one, as bert_base does')
    model.pooler, model.squash = snnk_from(model.pooler, m, kind, orthogonal), nn.Identity()
    return [model.pooler]


def _of_adapters(model: nn.Module, m: int, kind: Kind, orthogonal: bool, bottleneck: int, **_: Any) -> list[nn.Module]:
    made = with_adapters(model, bottleneck)
    for part in made:
        part.down = snnk_from(part.down[0], m, kind, orthogonal)  # type: ignore[index]
    return list(made)


def _of_networks(model: nn.Module, m: int, kind: Kind, orthogonal: bool, top: int, **_: Any) -> list[nn.Module]:
    layers = layers_of(model)
    if top > len(layers):
        raise ValueError(f"top={top}: the model has {len(layers)} layers")
    made: list[nn.Module] = []
    for layer in layers[-top:]:
        if not isinstance(layer.mlp, CutMlp):
            raise ValueError("a network is replaced already or cut away: start from the plain model")
        made.append(snnk_from(layer.mlp.fc1, m, kind, orthogonal))
        layer.mlp = nn.Sequential(made[-1], layer.mlp.fc2)
    return made


_REPLACE: dict[str, Callable[..., list[nn.Module]]] = {
    "hidden": _of_hidden,
    "pooler": _of_pooler,
    "adapters": _of_adapters,
    "ffn": _of_networks,
}


def _mlp(model: nn.Module) -> Mlp:
    if not isinstance(model, Mlp):
        raise ValueError(f'where="hidden" replaces the layers of digits_mlp, not of {type(model).__name__}')
    return model


def _bundle_head(model: nn.Module) -> None:
    """Melt the head of the perceptron into its last hidden layer."""
    mlp = _mlp(model)
    *before, last, head = mlp.layers
    assert isinstance(last, SnnkLayer) and isinstance(head, nn.Linear)
    mlp.layers, mlp.acts = nn.ModuleList([*before, last.bundled(head)]), mlp.acts[:-1]


def _fully_bundled(model: nn.Module, m: int, kind: Kind, orthogonal: bool, ridge: float) -> nn.Module:
    """The perceptron as R Phi(x) + c, R by ridge regression on the training images, without back-propagation."""
    mlp = _mlp(model)
    first = mlp.layers[0]
    if not isinstance(first, nn.Linear):
        raise ValueError("the hidden layers are replaced already: start from the plain model")
    features = Features(first.in_features, m, kind, orthogonal)
    layer = SnnkLayer(features, first.in_features, mlp.classes).to(first.weight)
    if getattr(mlp, "task", None) is None:
        mlp.untrained = "the ridge regression had no data: give the model a task"  # type: ignore[assignment]
    else:
        _regress(mlp, layer, ridge)
        mlp.learned = {"method": "snnk", "bundled": "fully", "m": m, "ridge": ridge}  # type: ignore[assignment]
    mlp.layers, mlp.acts = nn.ModuleList([layer]), nn.ModuleList()
    return mlp.eval()


def _regress(mlp: Mlp, layer: SnnkLayer, ridge: float) -> None:
    """Set Psi and bias by ridge regression on training images, charged to the method."""
    task = learning_task(mlp, "snnk(bundled='fully')", "take digits_mlp with task=digits")
    with torch.no_grad(), costs.recorded(mlp) as cost:
        seen = [
            (layer.features.of_inputs(layer.small(images.flatten(1))), labels)
            for images, labels in task.training_batches(RIDGE_BATCH, RIDGE_BATCHES, 0)
        ]
        phi, labels = torch.cat([part for part, _ in seen]), torch.cat([part for _, part in seen])
        cost.samples += len(labels)
        weight, bias = ridge_regression(phi, F.one_hot(labels, mlp.classes).to(phi), ridge)
        layer.psi.copy_(weight)
        layer.bias.copy_(bias)
    mlp.method_cost = cost.as_dict()  # type: ignore[assignment]


def ridge_regression(phi: Tensor, wanted: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """R [outputs, features] and c [outputs] that make sum |R phi + c - y|^2 + ridge |R|^2 smallest; c is not penalised.

    Args:
        phi: features, [samples, features].
        wanted: [samples, outputs].
        ridge: above 0.
    """
    x, y = phi.double(), wanted.double()
    middle_x, middle_y = x.mean(dim=0), y.mean(dim=0)
    x, y = x - middle_x, y - middle_y
    gram = x.mT @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, x.mT @ y).mT
    return weight.to(phi.dtype), (middle_y - weight @ middle_x).to(phi.dtype)
