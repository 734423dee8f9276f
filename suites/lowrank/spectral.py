"""Sparse spectral training: all singular values and a few singular vectors learn at a time (arXiv 2405.15481).

A weight W [out, in], m = min(out, in), n = max, is kept as its SVD, U [out, m], S [m], V^T [m, in]: h = U (S * V^T x).
Each *iteration* samples r of the m triplets without replacement with p_i = (1/m + S_i / sum S) / 2; their vectors and
all of S train. Gradients of vectors leave the factor S_i out: dU_i = (dL/dW) V_i, dV_i = (dL/dW)^T U_i. After a step
vectors are normalised and S is clipped at 0. The optimizer's state of vectors and S starts anew with each iteration,
after a warm-up. After a *round*, m / r iterations, U, S, V^T are the SVD of their product again.

Counts of a layer: m^2 + m + m n stored instead of m n, r (m + n) + m trained, m^2 + m n products a token instead of
m n; weights' gradients take r (m + n) products a token. At inference W is merged and costs what it did.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpectralProduct(torch.autograd.Function):
    """(x V_a^T, x V_f^T) * S times (U_a, U_f): vectors as rows, the active ones first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor, ua: Tensor, va: Tensor, uf: Tensor, vf: Tensor) -> Tensor:
        """Outputs [..., out] of inputs [..., in]."""
        flat = x.reshape(-1, x.shape[-1])
        za, zf = flat @ va.mT, flat @ vf.mT
        ctx.save_for_backward(flat, za, zf, s, ua, va, uf, vf)
        r = len(ua)
        out = torch.addmm((za * s[:r]) @ ua, zf * s[r:], uf)
        return out.reshape(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, of S, and of the active vectors without the factor S_i."""
        flat, za, zf, s, ua, va, uf, vf = ctx.saved_tensors
        (grad,) = grads
        back = grad.reshape(-1, grad.shape[-1])
        ga, gf = back @ ua.mT, back @ uf.mT  # gradients of S * z
        ds = torch.cat([(ga * za).sum(dim=0), (gf * zf).sum(dim=0)])
        r = len(ua)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = torch.addmm((ga * s[:r]) @ va, gf * s[r:], vf).reshape(*grad.shape[:-1], -1)
        return dx, ds, za.mT @ back, ga.mT @ flat, None, None


class SpectralLinear(nn.Module):
    """A linear map as singular triplets, of which the first r train.

    Attributes:
        s: singular values [m], those of the active triplets first.
        u_active, v_active: their vectors as rows, [r, out] and [r, in].
        u_frozen, v_frozen: the others, [m - r, out] and [m - r, in]; never trained within an iteration.
    """

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        weight = linear.weight.detach()
        size = min(weight.shape)
        if rank > size:
            raise ValueError(f"rank={rank} is above min{tuple(weight.shape)}: take at most {size}")
        self.rank, self.bias = rank, linear.bias
        u, s, v = triplets(weight)
        self.s = nn.Parameter(s)
        self.u_active, self.v_active = nn.Parameter(u[:rank].clone()), nn.Parameter(v[:rank].clone())
        self.u_frozen = nn.Parameter(u[rank:].clone(), requires_grad=False)
        self.v_frozen = nn.Parameter(v[rank:].clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [..., out]."""
        out = SpectralProduct.apply(x, self.s, self.u_active, self.v_active, self.u_frozen, self.v_frozen)
        return out if self.bias is None else out + self.bias

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain map of the same outputs."""
        weight = (self._u() * self.s[:, None]).mT @ self._v()
        plain = nn.Linear(weight.shape[1], weight.shape[0], bias=self.bias is not None).to(weight)
        plain.weight.copy_(weight)
        if self.bias is not None:
            plain.bias.copy_(self.bias)
        return plain

    def _u(self) -> Tensor:
        return torch.cat([self.u_active, self.u_frozen])

    def _v(self) -> Tensor:
        return torch.cat([self.v_active, self.v_frozen])

    @torch.no_grad()
    def choose(self, generator: torch.Generator | None = None) -> None:
        """Sample which triplets are active in the next iteration; W stays as it is."""
        chance = (1 / len(self.s) + self.s / self.s.sum().clamp(min=1e-30)) / 2
        order = torch.multinomial(chance.cpu().double(), len(self.s), generator=generator).to(self.s.device)
        self._put(self._u()[order], self.s[order], self._v()[order])

    @torch.no_grad()
    def again(self) -> None:
        """The SVD of the product: the vectors are orthonormal again and W stays as it is."""
        self._put(*triplets((self._u() * self.s[:, None]).mT @ self._v()))

    @torch.no_grad()
    def tidy(self) -> None:
        """Unit vectors and no negative singular value, after every step."""
        for vectors in (self.u_active, self.v_active):
            vectors.copy_(F.normalize(vectors, dim=1))
        self.s.clamp_(min=0)

    def _put(self, u: Tensor, s: Tensor, v: Tensor) -> None:
        self.s.copy_(s)
        for active, frozen, vectors in (
            (self.u_active, self.u_frozen, u), (self.v_active, self.v_frozen, v)
        ):  # fmt: skip
            active.copy_(vectors[: self.rank])
            frozen.copy_(vectors[self.rank :])


def triplets(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U and V as rows, [m, out] and [m, in], and S [m] of a weight [out, in], the largest first."""
    size = min(weight.shape)
    if weight.is_meta:
        outer, inner = weight.shape
        return weight.new_empty(size, outer), weight.new_empty(size), weight.new_empty(size, inner)
    u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
    return u.mT.contiguous().to(weight.dtype), s.to(weight.dtype), v.contiguous().to(weight.dtype)


class SpectralAdamW(torch.optim.AdamW):
    """AdamW that tidies spectral layers after a step, and starts an iteration or a round when it is time.

    Args:
        model: has spectral layers.
        rate: of the learning rate at its full height.
        iteration: steps between two samplings of active triplets.
        warmup: steps after each over which the rate of spectral parameters grows.
        seed: of the sampling.
    """

    def __init__(self, model: nn.Module, rate: float, iteration: int, warmup: int = 3, seed: int = 0):
        self.layers = [part for part in model.modules() if isinstance(part, SpectralLinear)]
        own = list(_spectral(self.layers))
        known = {id(parameter) for parameter in own}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
        groups = [{"params": own, "weight_decay": 0.0, "warm": 1}, {"params": others, "warm": 0}]
        super().__init__([group for group in groups if group["params"]], lr=rate, betas=(0.9, 0.98), weight_decay=0.05)
        self.iteration, self.warmup = iteration, warmup
        self.param_groups[0]["taken"] = 0  # here, so that who puts an optimizer back puts it back as well
        sizes = [len(layer.s) / layer.rank for layer in self.layers]
        self.round = max(1, round(max(sizes, default=1)))
        self.generator = torch.Generator().manual_seed(seed)

    def begin(self) -> None:
        """Sample the triplets of the first iteration; without it they are those of the largest singular values."""
        for layer in self.layers:
            layer.choose(self.generator)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of AdamW; then norms, clipping, and what is due."""
        rates = [group["lr"] for group in self.param_groups]
        taken = self.param_groups[0]["taken"]
        warm = min(1.0, (taken % self.iteration + 1) / self.warmup)
        for group in self.param_groups:
            if group["warm"]:
                group["lr"] *= warm
        found = super().step(closure)
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate
        for layer in self.layers:
            layer.tidy()
        self.param_groups[0]["taken"] = taken + 1
        if (taken + 1) % self.iteration == 0:
            self._next_iteration((taken + 1) // self.iteration % self.round == 0)
        return found

    def _next_iteration(self, new_round: bool) -> None:
        for layer in self.layers:
            if new_round:
                layer.again()
            layer.choose(self.generator)
        for parameter in _spectral(self.layers):
            self.state.pop(parameter, None)


def _spectral(layers: list[SpectralLinear]) -> Iterator[nn.Parameter]:
    for layer in layers:
        yield from (layer.s, layer.u_active, layer.v_active)


def trained_values(outer: int, inner: int, rank: int) -> int:
    """Values of a layer that train, r (m + n) + m."""
    return rank * (outer + inner) + min(outer, inner)


def stored_values(outer: int, inner: int) -> int:
    """Values of a layer that are stored, m^2 + m + m n."""
    small, large = sorted((outer, inner))
    return small**2 + small + small * large


def step_bytes(outer: int, inner: int, rank: int | None = None, element: int = 4) -> int:
    """Bytes of one layer in a step: weights, gradients, and two moments of what trains; rank None is full training.

    Full: 4 m n numbers. Spectral: m^2 + m + m n and three times r (m + n) + m: for a square layer less than full
    training where r < about m / 3.
    """
    if rank is None:
        return element * 4 * outer * inner
    return element * (stored_values(outer, inner) + 3 * trained_values(outer, inner, rank))
