"""Scalable neural network kernels: layers as dot products of random features of input and weights (arXiv 2310.13225).

A layer of l outputs with its activation becomes y = Phi_m(x) Psi^T + c: Psi [l, m] starts as features of the old
weights, is a free matrix afterwards and trains; the projection is random, fixed and stored. With a linear map after it
the two bundle into B Psi. Fully bundled, a network is R Phi(x), and R is the ridge regression in closed form.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, Positive, PositiveInt
from suites.common.digits_data import CLASSES
from suites.common.finetuning import finetuned, teacher_for
from suites.common.initial import draw
from suites.common.task import learning_task
from suites.common.training import classification
from suites.lowrank.bert import BertLayer
from suites.lowrank.random_features import COMPLEX, Features, Kind

RIDGE_BATCH, RIDGE_BATCHES = 400, 6


class SnnkLayer(nn.Module):
    """Phi(x) Psi^T + c.

    The variance of complex features grows like exp(|z|^2): there inputs and weights are divided by d^(1/4) and then
    brought into the unit ball.
    """

    def __init__(self, features: Features, inner: int, outer: int):
        super().__init__()
        self.features = features
        self.scale = inner**-0.25 if features.kind in COMPLEX else 1.0
        self.psi = nn.Parameter(torch.zeros(outer, features.size))
        self.bias = nn.Parameter(torch.zeros(outer))

    @torch.no_grad()
    def start_from(self, weight: Tensor) -> None:
        """Psi as the features of a weight [l, d]."""
        self.psi.copy_(self.features.of_weights(self.small(weight)))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [..., l]."""
        return F.linear(self.features.of_inputs(self.small(x)), self.psi, self.bias)

    def small(self, z: Tensor) -> Tensor:
        """What features are taken of."""
        if self.features.kind not in COMPLEX:
            return z
        z = z * self.scale
        return z / z.norm(dim=-1, keepdim=True).clamp(min=1)

    @torch.no_grad()
    def bundled(self, after: nn.Linear) -> SnnkLayer:
        """This layer and a linear map behind it as one: B Psi and B c + b."""
        whole = SnnkLayer(self.features, 1, after.out_features).to(self.psi)
        whole.scale = self.scale
        whole.psi.copy_(after.weight @ self.psi)
        whole.bias.copy_(after.weight @ self.bias + (0 if after.bias is None else after.bias))
        return whole


def snnk_from(linear: nn.Linear, m: int, kind: Kind, orthogonal: bool) -> SnnkLayer:
    """The layer that stands for a linear map and its activation."""
    like = linear.weight
    layer = SnnkLayer(Features(linear.in_features, m, kind, orthogonal), linear.in_features, linear.out_features)
    layer.to(like.device, like.dtype).start_from(like)
    return layer


class DigitsMlp(nn.Module):
    """Pixels of a digit through ReLU layers of one width to ten logits."""

    def __init__(self, width: int, layers: int, resolution: int):
        super().__init__()
        self.resolution, self.channels, self.classes = resolution, 1, CLASSES
        sizes = [resolution**2, *[width] * layers]
        hidden = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(sizes)]
        self.hidden = nn.Sequential(*hidden)
        self.head: nn.Module = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, 10] of images [batch, 1, resolution, resolution]."""
        return self.head(self.hidden(images.flatten(1)))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        like = next(self.parameters())
        return (torch.randn(batch, 1, self.resolution, self.resolution, device=like.device).to(like.dtype),)


def digits_perceptron(*, width: PositiveInt = 256, layers: PositiveInt = 2, resolution: PositiveInt = 16) -> DigitsMlp:
    """A plain perceptron for ten digits in evaluation mode with random weights.

    Args:
        width: of every hidden layer.
        layers: hidden layers.
        resolution: side of the picture in pixels.
    """
    return DigitsMlp(width, layers, resolution).eval()


class Adapter(nn.Module):
    """x + up(gelu(down x)) with an up that starts at zero (Houlsby et al. 2019, 1902.00751); down may be an SNNK."""

    def __init__(self, width: int, bottleneck: int):
        super().__init__()
        self.down: nn.Module = nn.Sequential(nn.Linear(width, bottleneck), nn.GELU())
        self.up = nn.Linear(bottleneck, width)
        draw(self.down[0].weight)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return x + self.up(self.down(x))


def adapter(model: nn.Module, *, bottleneck: PositiveInt = 48, training_steps: Count = 0) -> nn.Module:
    """The BERT with dense adapters after attention and network; they and a classifier train, all else is frozen.

    Raises:
        ValueError: a model without BERT layers, or no task to learn from.
    """
    teacher = teacher_for(model, training_steps)
    fresh = _with_adapters(model, bottleneck)
    _train_only(model, fresh)
    return finetuned(
        model, teacher, adapter, {"bottleneck": bottleneck}, training_steps, loss=classification(model),
        fresh=_parameters(fresh),
    )  # fmt: skip


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
        model: digits_perceptron for `hidden`, a BERT for the others.
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
        _train_only(model, made)
    learned = finetuned(
        model, teacher, snnk, settings, training_steps, loss=classification(model), fresh=_parameters(made)
    )
    if not training_steps:
        learned.untrained = "SNNK layers start as new layers and were not trained: set training_steps"  # type: ignore[assignment]
    if bundled == "last":
        _bundle_head(learned)
    return learned.eval()


def _of_hidden(model: nn.Module, m: int, kind: Kind, orthogonal: bool, **_: Any) -> list[nn.Module]:
    hidden = _mlp(model).hidden
    for place, part in enumerate(hidden):
        hidden[place] = snnk_from(part[0], m, kind, orthogonal)
    return list(hidden)


def _of_pooler(model: nn.Module, m: int, kind: Kind, orthogonal: bool, **_: Any) -> list[nn.Module]:
    pooler = getattr(model, "pooler", None)
    if pooler is None:
        raise ValueError('where="pooler" needs a BERT that has one: bert_encoder(pooler=True)')
    model.pooler = snnk_from(pooler[0], m, kind, orthogonal)
    return [model.pooler]


def _of_adapters(model: nn.Module, m: int, kind: Kind, orthogonal: bool, bottleneck: int, **_: Any) -> list[nn.Module]:
    made = _with_adapters(model, bottleneck)
    for part in made:
        part.down = snnk_from(part.down[0], m, kind, orthogonal)  # type: ignore[index]
    return made


def _of_networks(model: nn.Module, m: int, kind: Kind, orthogonal: bool, top: int, **_: Any) -> list[nn.Module]:
    layers = _bert_layers(model)
    if top > len(layers):
        raise ValueError(f"top={top}: the model has {len(layers)} layers")
    made: list[nn.Module] = []
    for layer in layers[-top:]:
        layer.network = nn.Sequential(snnk_from(layer.network.fc1, m, kind, orthogonal), layer.network.fc2)
        made.append(layer.network[0])
    return made


_REPLACE = {"hidden": _of_hidden, "pooler": _of_pooler, "adapters": _of_adapters, "ffn": _of_networks}


def _mlp(model: nn.Module) -> DigitsMlp:
    if not isinstance(model, DigitsMlp):
        raise ValueError(f'where="hidden" replaces the layers of digits_perceptron, not of {type(model).__name__}')
    return model


def _bert_layers(model: nn.Module) -> list[BertLayer]:
    layers = [module for module in model.modules() if isinstance(module, BertLayer)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no BERT layers: take bert_encoder or digits_bert")
    return layers


def _with_adapters(model: nn.Module, bottleneck: int) -> list[nn.Module]:
    made: list[nn.Module] = []
    for layer in _bert_layers(model):
        like = layer.norm1.weight
        for name in ("adapter1", "adapter2"):
            part = Adapter(len(like), bottleneck).to(like)
            setattr(layer, name, part)
            made.append(part)
    return made


def _parameters(parts: list[nn.Module]) -> list[nn.Parameter]:
    return [value for part in parts for value in part.parameters()]


def _train_only(model: nn.Module, parts: list[nn.Module]) -> None:
    """Freeze everything but these parts and a classifier."""
    model.requires_grad_(False)
    head = getattr(model, "head", None)
    for part in [*parts, *([head] if isinstance(head, nn.Module) else [])]:
        part.requires_grad_(True)


def _bundle_head(model: nn.Module) -> None:
    """Melt the head of the perceptron into its last layer."""
    mlp = _mlp(model)
    last = mlp.hidden[-1]
    assert isinstance(last, SnnkLayer) and isinstance(mlp.head, nn.Linear)
    mlp.head = last.bundled(mlp.head)
    mlp.hidden = nn.Sequential(*mlp.hidden[:-1])


def _fully_bundled(model: nn.Module, m: int, kind: Kind, orthogonal: bool, ridge: float) -> nn.Module:
    """The perceptron as R Phi(x) + c, R by ridge regression on the training images, without back-propagation."""
    mlp = _mlp(model)
    first = mlp.hidden[0][0]
    layer = SnnkLayer(Features(first.in_features, m, kind, orthogonal), first.in_features, CLASSES).to(first.weight)
    task = getattr(model, "task", None)
    if task is None:
        mlp.untrained = "the ridge regression had no data: give the model a task"  # type: ignore[assignment]
    else:
        task = learning_task(model, "snnk(bundled='fully')", "take digits_perceptron with task=digits")
        with torch.no_grad(), costs.recorded(model) as cost:
            seen = [
                (layer.features.of_inputs(layer.small(images.flatten(1))), labels)
                for images, labels in task.training_batches(RIDGE_BATCH, RIDGE_BATCHES, 0)
            ]
            phi, labels = torch.cat([part for part, _ in seen]), torch.cat([part for _, part in seen])
            cost.samples += len(labels)
            weight, bias = ridge_regression(phi, F.one_hot(labels, CLASSES).to(phi), ridge)
            layer.psi.copy_(weight)
            layer.bias.copy_(bias)
        mlp.method_cost = cost.as_dict()  # type: ignore[assignment]
        mlp.learned = {"method": "snnk", "bundled": "fully", "m": m, "ridge": ridge}  # type: ignore[assignment]
    mlp.hidden = nn.Sequential()
    mlp.head = layer
    return mlp.eval()


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


class SnnkOperator(nn.Module):
    """One layer on features [batch, tokens, d], beside its definition in double precision.

    Attributes:
        tolerance: largest relative distance from the definition.
    """

    tolerance = 1e-5

    def __init__(self, body: nn.Module, inner: int, tokens: int, form: str):
        super().__init__()
        self.body, self.inner, self.tokens, self.form = body, inner, tokens, form

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [batch, tokens, l]."""
        return self.body(x)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random features of norm about one."""
        like = next(self.body.parameters())
        x = torch.randn(batch, self.tokens, self.inner, device=like.device) / math.sqrt(self.inner)
        return (x.to(like.dtype),)

    def reference(self, x: Tensor) -> Tensor:
        """Sums over features by the formula."""
        if not isinstance(self.body, SnnkLayer):
            return F.relu(x.double() @ self.body[0].weight.double().mT + self.body[0].bias.double()).to(x.dtype)  # type: ignore[index]
        layer, z = self.body, self.body.small(x.double())
        reach = z @ layer.features.projection.double().mT
        psi, root = layer.psi.double(), math.sqrt(layer.features.m)
        if layer.features.kind == "relu":
            return (reach.clamp(min=0) / root @ psi.mT + layer.bias.double()).to(x.dtype)
        power = 2j * math.pi * layer.features.frequencies.to(torch.complex128)
        phi = torch.exp(power.sqrt() * reach - power * z.square().sum(-1, keepdim=True) / 2) / root
        real, imaginary = psi.split(layer.features.m, dim=-1)
        return ((phi @ torch.complex(real, imaginary).mT).real + layer.bias.double()).to(x.dtype)


def snnk_layer(
    *,
    width: PositiveInt = 768,
    outputs: PositiveInt = 768,
    m: PositiveInt = 128,
    features: Literal["dense", "relu", "cos", "sin", "gauss"] = "relu",
    orthogonal: bool = False,
    length: PositiveInt = 128,
) -> SnnkOperator:
    """One layer as an operator in evaluation mode; `features="dense"` is the linear map with ReLU.

    Args:
        width: d.
        outputs: l.
        m: random features.
        features: of which function.
        orthogonal: whether rows of the projection are orthogonal.
        length: tokens.
    """
    linear = nn.Linear(width, outputs)
    if features == "dense":
        return SnnkOperator(nn.Sequential(linear, nn.ReLU()), width, length, "dense").eval()
    return SnnkOperator(snnk_from(linear, m, features, orthogonal), width, length, f"{features} features").eval()
