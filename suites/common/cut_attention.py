"""Self-attention whose heads, query/key and value sizes are free, and the MLP beside it: what is cut in transformers.

The projection is one linear map whose outputs are all queries, then all keys, then all values, head by head, as in
`suites.common.vit`; so an uncut attention is the same bit for bit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.vit import Attention, Heads


class CutAttention(nn.Module):
    """Multi-head attention of `heads` heads with `qk` and `v` numbers each.

    Attributes:
        scale: of the logits; what the uncut attention had, so that a removed query dimension equals a zeroed one.
        head_gate: multiplies each head's output, [heads]; None for nothing.
    """

    def __init__(self, width: int, heads: int, qk: int, v: int, *, scale: float | None = None, causal: bool = False):
        super().__init__()
        self.heads, self.qk, self.v, self.causal = heads, qk, v, causal
        self.scale = qk**-0.5 if scale is None else scale
        self.qkv = nn.Linear(width, heads * (2 * qk + v))
        self.proj = nn.Linear(heads * v, width)
        self.head_gate: Tensor | None = None

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [batch, heads, tokens, its size]."""
        sizes = [self.heads * self.qk, self.heads * self.qk, self.heads * self.v]
        parts = self.qkv(x).split(sizes, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return q, k, v

    def forward(self, x: Tensor, key_bias: Tensor | None = None) -> tuple[Tensor, Heads]:
        """Attended features [batch, tokens, width] and the heads.

        `key_bias` [batch, tokens] is added to the logits; where it is boolean it says which keys are seen.
        """
        q, k, v = self.project(x)
        mask = None if key_bias is None else key_bias[:, None, None, :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale, is_causal=self.causal)
        if self.head_gate is not None:
            y = y * self.head_gate[:, None, None]
        return self.proj(y.transpose(1, 2).flatten(2)), Heads(q, k, v, None)

    def rows(self, heads: Tensor, qk: Tensor | None = None, v: Tensor | None = None) -> Tensor:
        """Outputs of `qkv` that belong to the given heads, and of those to the given sizes of each head."""
        qk = torch.arange(self.qk, device="cpu") if qk is None else qk
        v = torch.arange(self.v, device="cpu") if v is None else v
        keys = self.heads * self.qk
        queries = (heads[:, None] * self.qk + qk).flatten()
        values = 2 * keys + (heads[:, None] * self.v + v).flatten()
        return torch.cat([queries, keys + queries, values])

    @torch.no_grad()
    def cut(self, heads: Tensor | None = None, qk: Tensor | None = None, v: Tensor | None = None) -> None:
        """Go on with the given heads, and of each with the given query/key and value dimensions, in place."""
        heads = torch.arange(self.heads, device="cpu") if heads is None else heads
        value = torch.arange(self.v, device="cpu") if v is None else v
        columns = (heads[:, None] * self.v + value).flatten()
        self.qkv = linear_cut(self.qkv, outputs=self.rows(heads, qk, v))
        self.proj = linear_cut(self.proj, inputs=columns)
        self.heads = len(heads)
        self.qk = self.qk if qk is None else len(qk)
        self.v = len(value)


class CutMlp(nn.Module):
    """Two linear layers with a GELU between them; `gate` multiplies the hidden features, [hidden]."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.act: nn.Module = nn.GELU()
        self.gate: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        hidden = self.act(self.fc1(x))
        return self.fc2(hidden if self.gate is None else hidden * self.gate)

    @torch.no_grad()
    def cut(self, keep: Tensor) -> None:
        """Go on with the given hidden features alone, in place."""
        self.fc1, self.fc2 = linear_cut(self.fc1, outputs=keep), linear_cut(self.fc2, inputs=keep)


def linear_cut(layer: nn.Linear, *, outputs: Tensor | None = None, inputs: Tensor | None = None) -> nn.Linear:
    """A linear layer with the given outputs and inputs alone."""
    weight = layer.weight.detach()
    bias: Tensor | None = layer.bias
    if outputs is not None:
        weight = weight.index_select(0, outputs.to(weight.device))
        bias = None if bias is None else bias.detach().index_select(0, outputs.to(weight.device))
    if inputs is not None:
        weight = weight.index_select(1, inputs.to(weight.device))
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.clone(), requires_grad=layer.weight.requires_grad)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone())
    return made


def opened(attention: Attention) -> CutAttention:
    """The attention of the common ViT as one that can be cut: the same parameters, the same function."""
    out = attention.qkv.out_features // 3
    size = out // attention.heads
    made = CutAttention.__new__(CutAttention)
    nn.Module.__init__(made)
    made.heads, made.qk, made.v, made.causal, made.scale = attention.heads, size, size, False, size**-0.5
    made.qkv, made.proj, made.head_gate = attention.qkv, attention.proj, None
    return made
