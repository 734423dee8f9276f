"""Spark's feed-forward network for one token as an operator, beside a gated one of as many parameters.

The default is the layer of Gemma-2 2B: width 2304, 13,824 units, of which 1,106 stay (8 %), predicted by 1,024 of the
features (You et al. 2025, arXiv 2506.06644). The gated network has two thirds of the units and three maps for two.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.attention.spark import KEPT_ROWS, SparkFFN, ffn_macs, gaussian_quantile, kept_of, threshold
from suites.common.experts import Gated


def spark_ffn(
    *,
    width: PositiveInt = 2304,
    hidden: PositiveInt = 13_824,
    split: PositiveInt = 1024,
    units: PositiveInt = 1106,
    form: Literal["gathered", "masked", "gated"] = "gathered",
) -> SparkLayer:
    """One feed-forward network with random weights on one token.

    Args:
        width: features of the token, d.
        hidden: units, F; a multiple of 3.
        split: features that predict, r, fewer than all.
        units: about how many units stay, k.
        form: gathered reads live units alone, for a single token; masked multiplies by zeros; gated is the network of
            as many parameters that it is compared with, 2 / 3 F units wide.

    Raises:
        ValueError: sizes that do not fit.
    """
    if hidden % 3 or split >= width or units > hidden:
        raise ValueError(
            f"hidden={hidden} must be a multiple of 3, split={split} below width={width}, units={units} at most hidden"
        )
    return SparkLayer(width, hidden, split, units, form).eval()


class SparkLayer(nn.Module):
    """The network; its reference writes all units out in fp64."""

    tolerance = 1e-4
    cost_follows_inputs = "how many units of a Gaussian token lie above the threshold"

    def __init__(self, width: int, hidden: int, split: int, units: int, form: str):
        super().__init__()
        self.width, self.hidden, self.split, self.units, self.form = width, hidden, split, units, form
        gated = form == "gated"
        self.network: nn.Module = (
            Gated(width, 2 * hidden // 3) if gated else SparkFFN(width, hidden, split, units, form)
        )

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random tokens, [batch, 1, width]."""
        return (torch.randn(batch, 1, self.width).to(next(self.parameters())),)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return self.network(x)

    def declares(self, x: Tensor) -> dict[str, float | str]:
        """How many units of a random token live; nothing of the gated network, whose units all do."""
        if not isinstance(self.network, SparkFFN):
            return {}
        if x.is_meta:
            return kept_of(None)
        tokens = torch.randn(KEPT_ROWS, 1, self.width, generator=torch.Generator().manual_seed(0)).to(x)
        u = F.linear(tokens[..., : self.split], self.network.predict)
        return kept_of((u > threshold(u, self.units)).sum(dim=-1))

    def reference(self, x: Tensor) -> Tensor:
        """The definition: K1^T x[:r], a threshold, GELU, times K2^T x[r:], through V; or the gated network."""
        exact = x.double()
        if isinstance(self.network, Gated):
            gate, up, down = (weight.double() for weight in self.network.parameters())
            return ((F.silu(exact @ gate.t()) * (exact @ up.t())) @ down.t()).to(x.dtype)
        assert isinstance(self.network, SparkFFN)
        u = exact[..., : self.split] @ self.network.predict.double().t()
        if self.units < self.hidden:
            theta = u.mean(-1, keepdim=True) + u.std(-1, correction=0, keepdim=True) * gaussian_quantile(
                self.units, self.hidden
            )
            u = (u - theta).clamp(min=0)
        units = F.gelu(u) * (exact[..., self.split :] @ self.network.up.double().t())
        return (units @ self.network.down.double()).to(x.dtype)

    @property
    def macs_dense(self) -> int:
        """Products of a token with all units, which are those of the gated network: 2 d F = 3 d (2 / 3 F)."""
        return 2 * self.width * self.hidden

    @property
    def macs_nonzero(self) -> int:
        """Products of a token whose live units are exactly k."""
        return self.macs_dense if self.form == "gated" else ffn_macs(self.width, self.hidden, self.split, self.units)
