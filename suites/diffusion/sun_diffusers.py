"""SpeedUpNet's adapters on a U-Net of diffusers: keys and values of their own in every cross-attention.

The negative prompt is the empty condition, which is one of zeros here. What is counted is the released size; nothing is
trained.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.diffusion.sun_branch import Branch


class SunProcessor(nn.Module):
    """What a cross-attention of diffusers does with adapters."""

    def __init__(self, context: int, width: int, positive: bool):
        super().__init__()
        names = ("negative", "positive") if positive else ("negative",)
        self.adapter = nn.ModuleDict({name: Branch(context, width) for name in names})

    def forward(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **other: Any) -> Tensor:
        """Attended features, [batch, places, width]; diffusers calls it with these names."""
        del other
        q, k, v = (
            each.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for each in (
                attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states),
            )
        )  # fmt: skip
        found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out = found - self.adapter["negative"](q, torch.zeros_like(encoder_hidden_states), found)
        if "positive" in self.adapter:
            out = out + self.adapter["positive"](q, encoder_hidden_states, found)
        return attn.to_out[1](attn.to_out[0](out))


def with_adapters(model: Any, positive: bool) -> None:
    """Put adapters into every cross-attention of the network.

    Raises:
        ValueError: it has none.
    """
    crossing = {name: part for name, part in model.model.named_modules() if name.endswith(".attn2")}
    if not crossing:
        raise ValueError(f"sun works on U-Nets with cross-attention, and {type(model.model).__name__} has none")
    for part in crossing.values():
        part.set_processor(SunProcessor(part.to_k.in_features, part.to_k.out_features, positive))
