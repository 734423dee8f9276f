"""Multi-head latent attention as an operator: three equal forms of one decode step (DeepSeek-V2, arXiv 2405.04434).

The block itself is suites/common/latent_attention.py. A call is one new token after `length` cached ones: expanded
reads H (nope + rope + value) numbers a position, absorbed and recomputed read rank + rope; absorbed multiplies H (2
rank + rope), expanded H (nope + rope + value), recomputed expands all positions again. Beside it stands the step of
shared key heads of equal width, which reads 2 g d numbers a position. Operations per cache byte at 2 bytes a number:
MHA 1, GQA as many as queries share a key head, MLA H x (2 rank + rope) / (rank + rope).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.decoder import Attention
from suites.common.decoder_cache import attend
from suites.common.decoder_shape import LatentForm, LayerShape, attention_macs, position_macs
from suites.common.decoder_shapes import shape_of
from suites.common.latent_attention import LatentAttention
from suites.common.rotary import rotation


def mla_step(
    *,
    shape: Literal["byte_3m_mla", "deepseek_v2_lite", "deepseek_v2", "deepseek_v3"] = "byte_3m_mla",
    length: PositiveInt = 512,
    form: Literal["absorbed", "expanded", "recomputed"] = "absorbed",
) -> MlaStep:
    """One attention layer of a published or house shape, in one of its forms.

    Args:
        shape: whose layer.
        length: positions that are cached before the new one.
        form: how the step runs.
    """
    return MlaStep(shape, length, form).eval()


def gqa_step(
    *,
    shape: Literal["byte_3m_mla", "deepseek_v2_lite", "deepseek_v2", "deepseek_v3"] = "byte_3m_mla",
    kv_heads: PositiveInt = 2,
    length: PositiveInt = 512,
) -> GqaStep:
    """A decode step with shared key heads at the width, the query heads and the head size of a latent layer.

    Args:
        shape: whose width, query heads and size of a value.
        kv_heads: key heads, a divisor of the query heads; as many are MHA, one is MQA.
        length: positions that are cached before the new one.

    Raises:
        ValueError: key heads that do not divide the query heads.
    """
    whole = shape_of(shape)
    latent = whole.layers[0].latent
    assert latent is not None
    heads = whole.layers[0].heads
    if heads % kv_heads:
        raise ValueError(f"kv_heads={kv_heads} does not divide heads={heads}: every key head serves equally many")
    return GqaStep(whole.width, LayerShape(heads, kv_heads, latent.value, 0), length).eval()


class GqaStep(nn.Module):
    """A decode step on features [batch, 1, width] after `context` cached positions of a few key heads."""

    tolerance = 1e-4
    form = "shared key heads"

    def __init__(self, width: int, layer: LayerShape, context: int):
        super().__init__()
        self.layer, self.width, self.context = layer, width, context
        self.attention = Attention(width, layer)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Features of the new token, and cached keys and values with room for one more position at their end."""
        like = self.attention.q.weight
        x, past = (torch.randn(batch, n, self.width).to(like) for n in (1, self.context + 1))
        with torch.no_grad():
            by = rotation(0, self.context + 1, self.layer.head, past)
            return (x, *self.attention.keys_and_values(past, by))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attended features of the new token, whose own position is written to the end of what is cached."""
        q, k, v = self.attention.project(x, rotation(self.context, 1, self.layer.head, x))
        keys[:, :, -1:], values[:, :, -1:] = k, v
        return self.attention.merge(attend(q, keys, values))

    def reference(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Key heads repeated and scores written out."""
        q, k, v = self.attention.project(x, rotation(self.context, 1, self.layer.head, x))
        share = self.layer.heads // self.layer.kv_heads
        k, v = (
            torch.cat([old[:, :, :-1], new], dim=2).repeat_interleave(share, dim=1)
            for old, new in ((keys, k), (values, v))
        )
        scores = q @ k.transpose(-2, -1) * self.layer.head**-0.5
        return self.attention.merge(scores.softmax(dim=-1) @ v)


class MlaStep(nn.Module):
    """A decode step on features [batch, 1, width] after `context` cached positions."""

    tolerance = 1e-4

    def __init__(self, name: str, context: int, form: LatentForm):
        super().__init__()
        whole = shape_of(name)
        self.layer, self.width, self.context, self.form = whole.layers[0], whole.width, context, form
        self.attention = LatentAttention(self.width, self.layer, form)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Features of the new token, and what is cached, with room for one more position at its end.

        That is latents [batch, 1, context + 1, rank + rope], or keys and values of all heads in the expanded form.
        """
        attention, like = self.attention, self.attention.down.weight
        x = torch.randn(batch, 1, self.width).to(like)
        past = torch.randn(batch, self.context + 1, self.width).to(like)
        with torch.no_grad():
            latents = attention.latents(past, rotation(0, self.context + 1, attention.size.rope, past))
            return (x, *attention.expand(latents)) if self.form == "expanded" else (x, latents)

    def forward(self, x: Tensor, *cached: Tensor) -> Tensor:
        """Attended features of the new token, whose own position is written to the end of what is cached."""
        attention = self.attention
        by = rotation(self.context, 1, attention.size.rope, x)
        nope, rope = attention.queries(x, by)
        new = attention.latents(x, by)
        for memory, one in zip(cached, attention.expand(new) if self.form == "expanded" else (new,), strict=True):
            memory[:, :, -1:] = one
        if self.form == "absorbed":
            return attention.absorbed(nope, rope, cached[0])
        keys, values = cached if self.form == "expanded" else attention.expand(cached[0])
        return attention.expanded(nope, rope, keys, values)

    def reference(self, x: Tensor, *cached: Tensor) -> Tensor:
        """Keys and values of every head written out, head by head."""
        attention, size = self.attention, self.attention.size
        by = rotation(self.context, 1, size.rope, x)
        nope, rope = attention.queries(x, by)
        new = attention.latents(x, by)
        if self.form == "expanded":
            k, v = (torch.cat([old[:, :, :-1], one], 2) for old, one in zip(cached, attention.expand(new), strict=True))
        else:
            whole = torch.cat([cached[0][:, :, :-1], new], dim=2)[:, 0]
            c, pe = whole.split([size.rank, size.rope], dim=-1)
            up = attention.up.weight.unflatten(0, (attention.heads, -1))
            k = torch.stack([torch.cat([c @ up[h, : size.nope].t(), pe], -1) for h in range(attention.heads)], dim=1)
            v = torch.stack([c @ up[h, size.nope :].t() for h in range(attention.heads)], dim=1)
        scores = torch.cat([nope, rope], dim=-1) @ k.transpose(-2, -1) * attention.scale
        heads = scores.softmax(dim=-1) @ v
        return attention.out(heads.transpose(1, 2).flatten(2))


def layer_macs(layer: LayerShape, width: int, keys: int, form: LatentForm) -> int:
    """Products of one step of one layer that sees `keys` positions, its linear maps included."""
    assert layer.latent is not None
    linear = attention_macs(layer, width)
    if form == "recomputed":  # the new position is expanded with the others
        linear -= layer.latent.rank * layer.heads * (layer.latent.nope + layer.latent.value)
    return linear + keys * position_macs(layer, form)


def cached_numbers(layer: LayerShape, form: LatentForm) -> int:
    """Numbers cached of one position in one layer."""
    assert layer.latent is not None
    size = layer.latent
    if form == "expanded":
        return layer.heads * (size.nope + size.rope + size.value)
    return size.rank + size.rope


def intensity(macs_per_position: int, numbers_per_position: int, number: int = 2) -> float:
    """Operations per byte of cache that a decode step reads."""
    return 2 * macs_per_position / (numbers_per_position * number)
