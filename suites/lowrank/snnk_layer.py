"""One layer as a dot product of random features of its input and of its weights, and such a layer as an operator.

A layer of l outputs with its activation becomes y = Phi_m(x) Psi^T + c: Psi [l, m] starts as features of the old
weights, is a free matrix afterwards and trains; the projection is random, fixed and stored.

Source: arXiv 2310.13225, section 3.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.lowrank.random_features import COMPLEX, Features, Kind
from suites.lowrank.tolerances import tolerance_in


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


class SnnkOperator(nn.Module):
    """One layer on features [batch, tokens, d], beside its definition in double precision."""

    def __init__(self, body: nn.Module, inner: int, tokens: int, form: str):
        super().__init__()
        self.body, self.inner, self.tokens, self.form = body, inner, tokens, form

    @property
    def tolerance(self) -> float:
        """Largest relative distance from the definition: 1e-5 in single precision, more where bits are few."""
        return tolerance_in(next(self.body.parameters()).dtype)

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
