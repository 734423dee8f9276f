"""EcoFormer: queries and keys as 16-bit codes by learned kernel hashing (Liu et al. 2022, arXiv 2209.09004).

In the first three stages of PVTv2 without spatial reduction q and k are one projection of length one. Per head: squared
distances to 25 anchor vectors, kernel exp(-d^2 / (2 mean d^2)), less a stored mean, times a learned A (16 x 25), sign:
a code of +-1. The weight of a pair is 17 + code . code > 0, so attention is linear: (code_q (sum_j code_j v_j^T) + 17
sum_j v_j) over (code_q . sum_j code_j + 17 N), and products with codes are additions. As released the numerator adds 17
v_i in place of 17 sum_j v_j: form `released`. The last stage stays softmax.

Learning a head's A: targets from the similarities of q and k on one batch, 1 for the 10 most and -1 for the 10 least
similar tokens of each, times 16; bit after bit on what is left of the targets, each row by Nesterov descent through a
smooth sign, kept if its loss fell. Reconstructed: the mean of d^2 is that of the batch that the anchors were drawn
from, and is stored. The network and what it costs: eco_pvt.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.attention.operator import AttentionOperator

BITS, ANCHORS, SIMILAR = 16, 25, 10


class _StraightSign(torch.autograd.Function):
    """+-1 forwards; backwards the gradient where the input is within 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Signs, zero counted as positive."""
        ctx.save_for_backward(x)
        return torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient, clipped."""
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= 1)


class KernelHash(nn.Module):
    """Codes +-1 of vectors [batch, heads, tokens, size], [batch, heads, tokens, bits]."""

    anchors: Tensor
    spread: Tensor
    mean: Tensor
    rows: Tensor

    def __init__(self, heads: int, size: int, bits: int = BITS, anchors: int = ANCHORS):
        super().__init__()
        start = F.normalize(torch.randn(heads, anchors, size), dim=-1)
        self.register_buffer("anchors", start)
        self.register_buffer("spread", torch.full((heads, 1, 1), 2.0))
        self.register_buffer("mean", torch.zeros(heads, 1, anchors))
        self.register_buffer(
            "rows", torch.randn(heads, bits, anchors) if not start.is_meta else start.new_empty(heads, bits, anchors)
        )

    def kernels(self, x: Tensor) -> Tensor:
        """Centred kernel values against the anchors."""
        distance = squared_distances(x, self.anchors)
        return torch.exp(-distance / (2 * self.spread)) - self.mean

    def forward(self, x: Tensor) -> Tensor:
        """Codes."""
        return _StraightSign.apply(self.kernels(x) @ self.rows.transpose(-2, -1))

    @torch.no_grad()
    def draw_anchors(self, x: Tensor, generator: torch.Generator) -> None:
        """Take anchors from random tokens of the first sample, spread and mean from all.

        Where there are too few tokens it begins again from the first.
        """
        wanted = self.anchors.shape[1]
        picked = torch.randperm(x.shape[2], generator=generator).repeat(-(-wanted // x.shape[2]))[:wanted]
        self.anchors.copy_(x[0][:, picked.to(x.device)])
        distance = squared_distances(x, self.anchors)
        self.spread.copy_(distance.mean(dim=(0, 2, 3))[:, None, None])
        self.mean.copy_(torch.exp(-distance / (2 * self.spread)).mean(dim=(0, 2))[:, None])

    def learn(self, x: Tensor, steps: int = 100, rate: float = 5e-4, seed: int = 0) -> None:
        """Anchors and A from one batch of vectors."""
        generator = torch.Generator().manual_seed(seed)
        self.draw_anchors(x, generator)
        with torch.inference_mode(False), torch.enable_grad():
            for head in range(x.shape[1]):
                kernels = self.kernels(x)[:, head].detach().clone()
                targets = similarity_targets(x[:, head]) * self.rows.shape[1]
                for bit in range(self.rows.shape[1]):
                    found = learned_row(kernels, targets, self.rows[head, bit], steps, rate)
                    self.rows[head, bit].copy_(found)
                    code = torch.where(kernels @ found >= 0, 1.0, -1.0).to(targets.dtype)
                    targets = targets - code[:, :, None] * code[:, None, :]


def squared_distances(x: Tensor, anchors: Tensor) -> Tensor:
    """|x - a|^2, [batch, heads, tokens, anchors]; elementwise work, as it is counted."""
    return (x[..., None, :] - anchors[:, None]).square().sum(dim=-1)


def similarity_targets(x: Tensor, most: int = SIMILAR) -> Tensor:
    """1 for the `most` most similar tokens of each, -1 for the least similar, else 0, [batch, tokens, tokens]."""
    similarity = x @ x.transpose(-2, -1)
    count = min(most, x.shape[1] // 2)
    high, low = similarity.topk(count, dim=-1).indices, similarity.topk(count, dim=-1, largest=False).indices
    return torch.zeros_like(similarity).scatter(-1, high, 1.0).scatter(-1, low, -1.0)


def learned_row(kernels: Tensor, targets: Tensor, start: Tensor, steps: int, rate: float) -> Tensor:
    """One row of A by Nesterov descent on -y^T S y with a smooth sign y; the start where the loss did not fall."""
    row = start.detach().clone().requires_grad_()
    optimizer = torch.optim.SGD([row], lr=rate, momentum=0.9, nesterov=True)

    def loss() -> Tensor:
        smooth = 2 * torch.sigmoid(kernels @ row) - 1
        return -(smooth[:, None, :] @ targets @ smooth[:, :, None]).mean()

    first = loss().item()
    for _ in range(steps):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return row.detach() if loss().item() < first else start


def coded_attention(q: Tensor, k: Tensor, v: Tensor, form: str = "linear") -> Tensor:
    """Attention of codes +-1 [batch, heads, tokens, bits] over values."""
    offset = q.shape[-1] + 1
    if form == "direct":
        weights = q @ k.transpose(-2, -1) + offset
        return weights @ v / weights.sum(dim=-1, keepdim=True)
    added = v if form == "released" else v.sum(dim=2, keepdim=True)
    top = q @ (k.transpose(-2, -1) @ v) + offset * added
    return top / (q @ k.sum(dim=2)[..., None] + offset * k.shape[2])


def ecoformer_attention(
    *,
    length: PositiveInt = 512,
    heads: PositiveInt = 8,
    width: PositiveInt = 64,
    form: Literal["linear", "direct", "released"] = "linear",
    seed: Count = 0,
) -> EcoAttention:
    """Hashing and attention as an operator on q, k, v [batch, heads, length, width].

    Args:
        length: N.
        heads: attention heads.
        width: numbers per head.
        form: linear; direct writes the N^2 weights; released adds a token's own value instead of the sum.
        seed: of anchors and A.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EcoAttention(heads, length, width, form).eval()


class EcoAttention(AttentionOperator):
    """The operator; its reference writes out all weights."""

    def __init__(self, heads: int, tokens: int, size: int, form: str):
        super().__init__(heads, tokens, size)
        self.form, self.hash = form, KernelHash(heads, size)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What is attended."""
        return coded_attention(self.hash(F.normalize(q, dim=-1)), self.hash(F.normalize(k, dim=-1)), v, self.form)

    def reference(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Weights 17 + code . code written out, in fp64."""
        a, b = (self.hash(F.normalize(x, dim=-1)).double() for x in (q, k))
        weights = a @ b.transpose(-2, -1) + (a.shape[-1] + 1)
        top = weights @ v.double()
        if self.form == "released":
            top = top - (a.shape[-1] + 1) * (v.double().sum(dim=2, keepdim=True) - v.double())
        return (top / weights.sum(dim=-1, keepdim=True)).to(q.dtype)


class Attention(nn.Module):
    """Coded attention with one projection for q and k, or softmax attention with separate ones.

    Attributes:
        hashed: false while it trains by softmax through the one projection, before its hash is learned.
    """

    def __init__(self, width: int, heads: int, coded: bool):
        super().__init__()
        self.heads, self.hashed = heads, True
        self.q = nn.Linear(width, width)
        self.k = None if coded else nn.Linear(width, width)
        self.v, self.proj = nn.Linear(width, width), nn.Linear(width, width)
        self.hash = KernelHash(heads, width // heads) if coded else None

    def split(self, x: Tensor) -> Tensor:
        """[batch, heads, tokens, size]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Attended features, [batch, tokens, width]."""
        q, v = self.split(self.q(x)), self.split(self.v(x))
        if self.hash is not None and (self.hashed or not self.training):
            codes = self.hash(F.normalize(q, dim=-1))
            out = coded_attention(codes, codes, v)
        else:
            k = q if self.k is None else self.split(self.k(x))
            out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))


def learn_hash(module: Attention, run: Callable[[], Any], steps: int = 100) -> None:
    """Learn one layer's hash on what reaches it while the network runs."""
    handle = module.register_forward_pre_hook(_learning(module, steps))
    with torch.no_grad():
        run()
    handle.remove()


def _learning(module: Attention, steps: int) -> Any:
    def learn(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert module.hash is not None
        module.hash.learn(F.normalize(module.split(module.q(args[0])), dim=-1).detach(), steps)

    return learn
