"""VidKV: keys at 1 or 2 bits by channel, values ternary (Tao et al. 2025, arXiv 2503.16257).

Keys: the channels of the widest range over the prompt take 2 bits (scale, minimum); the others are transformed along
the channels and of each number of the spectrum only the sign is kept, with one scale. Values: a number above gamma x
the mean magnitude of its channel becomes +-s, any other 0. Scales belong to one channel and 32 tokens; the newest 128
tokens stay plain. With `salient` the visual tokens that are nearest to the text keep their values at 2 bits.

Differs from what was released, where the numbers would be wrong or fat: signs decode to +-s (not 0 and s), the ternary
scale is kept, and of a real spectrum only its half is stored with a scale and no minimum. As released a number takes 4
bits where it is called 1, and 3 where it is called 1.58: `released_bits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt, Rate
from suites.common.decoder import Decoder, DecoderCache, Generator, as_decoder
from suites.common.decoder_cache import Kept
from suites.decode.bits import SCALE, packed, quantised, restored, unpacked
from suites.decode.compressed import CompressingKeeper

TERNARY_BITS = 1.58


def vidkv(
    model: nn.Module,
    *,
    key_bits: Annotated[float, Field(ge=1.0, le=2.0)] = 1.5,
    value_bits: Annotated[float, Field(ge=1.58, le=2.0)] = 1.58,
    gamma: Positive = 0.7,
    salient: Rate = 0.0,
    prefix: Count = 0,
    group: PositiveInt = 32,
    residual: Count = 128,
) -> Generator:
    """The decoder with a cache of about 1.5 bits per key and 1.58 per value.

    Args:
        model: a decoder with a plain cache.
        key_bits: 1 + the share of channels at 2 bits; the others keep signs of a spectrum, at 1.25 of the numbers
            themselves.
        value_bits: ternary, or 2 bits uniform.
        gamma: threshold of the ternary values over the mean magnitude (0.7 in the text, 0.5 in the released code).
        salient: share of the visual tokens whose values keep 2 bits.
        prefix: leading tokens that are visual; needed by `salient`.
        group: tokens that share a scale.
        residual: newest tokens that stay plain.

    Raises:
        ValueError: not such a model, bits that the paper has not, or `salient` without a visual prefix.
    """
    decoder = as_decoder(model, "vidkv")
    if key_bits not in (1.25, 1.5, 1.75, 2.0) or value_bits not in (TERNARY_BITS, 2.0):
        raise ValueError("key_bits must be 1.25, 1.5, 1.75 or 2, value_bits 1.58 (ternary) or 2")
    if salient and not prefix:
        raise ValueError("salient picks among visual tokens: set prefix to how many leading tokens are visual")
    head = decoder.shape.layers[0].head
    if head % 8:
        raise ValueError(f"a head of {head} numbers does not fill whole bytes: vidkv needs a multiple of 8")
    for block in decoder.blocks:
        block.attention.keeper = VidKeeper(head, key_bits, value_bits, gamma, group, residual)
    return SalientVidKV(decoder, salient, prefix, group) if salient else decoder


def nominal_bits(key_bits: float, value_bits: float, salient: float = 0.0) -> float:
    """Bits of one number as the paper calls them: mean of keys and values, of which `salient` keep 2."""
    return (key_bits + salient * 2 + (1 - salient) * value_bits) / 2


def released_bits(share: float, group: int = 32) -> tuple[float, float]:
    """Bits of one key and of one value as the released code stores them.

    Every stored number has a two-byte scale and minimum per group; a spectrum of n channels is 2 n numbers.
    """
    own = 32 / group
    return share * (2 + own) + (1 - share) * 2 * (1 + own), 2 + own


@dataclass(frozen=True)
class Keys(Kept):
    """Wide channels at 2 bits, signs of the rest, which are wide [batch, heads, channels]; groups on axis 2."""

    wide: Tensor
    scale: Tensor
    low: Tensor
    signs: Tensor
    sign_scale: Tensor
    order: Tensor


@dataclass(frozen=True)
class Values(Kept):
    """Codes [batch, heads, groups, group, bytes] with a scale per channel and group, and a minimum at 2 bits."""

    codes: Tensor
    scale: Tensor
    low: Tensor | None


@dataclass(frozen=True)
class Vid(Kept):
    """Keys and values; `salient` holds the values of the salient tokens, which stand first."""

    k: Keys
    v: Values
    salient: Values | None


class VidKeeper(CompressingKeeper):
    """Packs groups of tokens; `salient` [batch, count] holds the tokens of the prompt that keep 2-bit values."""

    def __init__(self, head: int, key_bits: float, value_bits: float, gamma: float, group: int, residual: int):
        super().__init__(residual, group)
        self.key_bits, self.value_bits, self.gamma, self.group = key_bits, value_bits, gamma, group
        self.wide = round((key_bits - 1) * head)
        self.spectral = key_bits in (1.5, 1.75)
        self.salient: Tensor | None = None
        self.nominal_bits = nominal_bits(key_bits, value_bits)
        self.stored_bits = (self._key_bits(head) + 2 + (16 if value_bits == TERNARY_BITS else 32) / group) / 2

    def _key_bits(self, head: int) -> float:
        narrow = head - self.wide
        if self.spectral:
            narrow = 2 * (narrow // 2 + 1)
        return (self.wide * (2 + 32 / self.group) + 8 * -(-narrow // 8) + narrow * 16 / self.group) / head

    def pack(self, k: Tensor, v: Tensor, old: Vid | None = None) -> Vid:
        """Groups of keys and values; channels are chosen once, on the first tokens that are packed."""
        if self.salient is None or old is not None:
            return Vid(self._keys(k, old), self._values(v, ternary=True), None)
        k, v = (_salient_first(x, self.salient) for x in (k, v))
        count = self.salient.shape[1]
        values = self._values(v[:, :, count:], ternary=True)
        return Vid(self._keys(k, None), values, self._values(v[:, :, :count], ternary=False))

    def unpack(self, old: Vid, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values, salient tokens first."""
        values = self._restored(old.v, dtype)
        if old.salient is not None:
            values = torch.cat([self._restored(old.salient, dtype), values], dim=2)
        return self._restored_keys(old.k, dtype), values

    def join(self, first: Vid, second: Vid) -> Vid:
        """One after the other; salient tokens are those of the prompt."""
        return Vid(_keys_joined(first.k, second.k), _values_joined(first.v, second.v), first.salient)

    def _keys(self, k: Tensor, old: Vid | None) -> Keys:
        if old is None:
            width = k.amax(dim=2) - k.amin(dim=2)
            order = width.argsort(dim=-1, descending=True).to(torch.uint8 if k.shape[3] <= 256 else torch.int16)
        else:
            order = old.k.order
        channels = order.long()[:, :, None, :].expand(k.shape)
        grouped = k.gather(3, channels).unflatten(2, (-1, self.group))
        wide, narrow = grouped[..., : self.wide], grouped[..., self.wide :]
        codes, scale, low = quantised(wide, 2, dim=3)
        spectrum = _spectrum(narrow) if self.spectral else narrow
        sign_scale = spectrum.abs().mean(dim=3, keepdim=True).to(SCALE)
        signs = _bytes((spectrum > 0).to(torch.int32), 1)
        return Keys(_bytes(codes, 2), scale, low, signs, sign_scale, order)

    def _restored_keys(self, keys: Keys, dtype: torch.dtype) -> Tensor:
        wide = restored(unpacked(keys.wide, 2)[..., : self.wide], keys.scale, keys.low, dtype)
        numbers = keys.sign_scale.shape[-1]
        signs = unpacked(keys.signs, 1)[..., :numbers].to(dtype) * 2 - 1
        narrow = signs * keys.sign_scale.to(dtype)
        if self.spectral:
            narrow = _from_spectrum(narrow, keys.order.shape[-1] - self.wide)
        ordered = torch.cat([wide, narrow], dim=-1).flatten(2, 3)
        channels = keys.order.long()[:, :, None, :].expand(ordered.shape)
        return torch.empty_like(ordered).scatter(3, channels, ordered)

    def _values(self, v: Tensor, ternary: bool) -> Values:
        grouped = v.unflatten(2, (-1, self.group))
        if not ternary or self.value_bits != TERNARY_BITS:
            codes, scale, low = quantised(grouped, 2, dim=3)
            return Values(_bytes(codes, 2), scale, low)
        codes, scale = ternary_codes(grouped, self.gamma)
        return Values(_bytes(codes, 2), scale, None)

    def _restored(self, values: Values, dtype: torch.dtype) -> Tensor:
        codes = unpacked(values.codes, 2)
        if values.low is None:
            numbers = (codes - 1).to(dtype) * values.scale.to(dtype)
        else:
            numbers = restored(codes, values.scale, values.low, dtype)
        return numbers.flatten(2, 3)


def ternary_codes(x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Codes 0, 1, 2 for -s, 0, s of x [..., tokens, channels], and s [..., 1, channels]: the mean of what passes."""
    size = x.abs()
    passes = size > gamma * size.mean(dim=-2, keepdim=True)
    scale = (size * passes).sum(dim=-2, keepdim=True) / passes.sum(dim=-2, keepdim=True).clamp(min=1)
    return (x.sign() * passes + 1).to(torch.int32), scale.to(SCALE)


def _spectrum(x: Tensor) -> Tensor:
    """Real and imaginary parts of half the spectrum along the channels."""
    half = torch.fft.rfft(x, dim=-1, norm="ortho")
    return torch.cat([half.real, half.imag], dim=-1)


def _from_spectrum(numbers: Tensor, channels: int) -> Tensor:
    real, imag = numbers.chunk(2, dim=-1)
    return torch.fft.irfft(torch.complex(real, imag), n=channels, dim=-1, norm="ortho")


def _bytes(codes: Tensor, bits: int) -> Tensor:
    """Packed codes, the last byte filled up with zeros."""
    per_byte = 8 // bits
    return packed(nn.functional.pad(codes, (0, -codes.shape[-1] % per_byte)), bits)


def _salient_first(x: Tensor, salient: Tensor) -> Tensor:
    rest = torch.ones(len(x), x.shape[2], dtype=torch.int8, device=x.device).scatter(1, salient, 0)
    index = rest.argsort(dim=1, stable=True)[:, None, :, None]
    return x.gather(2, index.expand(-1, x.shape[1], -1, x.shape[3]))


def _keys_joined(first: Keys, second: Keys) -> Keys:
    names = ("wide", "scale", "low", "signs", "sign_scale")
    joined = {name: torch.cat([getattr(first, name), getattr(second, name)], dim=2) for name in names}
    return Keys(**joined, order=first.order)


def _values_joined(first: Values, second: Values) -> Values:
    low = None
    if first.low is not None and second.low is not None:
        low = torch.cat([first.low, second.low], dim=2)
    return Values(torch.cat([first.codes, second.codes], dim=2), torch.cat([first.scale, second.scale], dim=2), low)


class SalientVidKV(Generator):
    """A decoder that picks, before the prompt, the visual tokens nearest to the text."""

    def __init__(self, decoder: Decoder, share: float, prefix: int, group: int):
        super().__init__()
        self.decoder, self.share, self.prefix, self.group = decoder, share, prefix, group
        self.vocabulary, self.shape = decoder.vocabulary, decoder.shape

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position without a cache: the plain decoder's."""
        return self.decoder(ids)

    def relevant(self, ids: Tensor) -> Tensor:
        """The most text-relevant visual tokens [batch, count]: dot products of embeddings, whole groups of tokens."""
        visual = self.decoder.embed(ids[:, : self.prefix])
        text = self.decoder.embed(ids[:, self.prefix :])
        relevance = (visual @ text.transpose(1, 2)).mean(dim=-1)
        count = max(1, round(self.share * self.prefix / self.group)) * self.group
        return relevance.topk(min(count, self.prefix // self.group * self.group), dim=-1).indices

    def prefill(self, ids: Tensor) -> tuple[Tensor, DecoderCache]:
        """Logits of the last position, and the cache."""
        packed_part = (ids.shape[1] - self.decoder.blocks[0].attention.keeper.residual) // self.group * self.group
        if ids.shape[1] <= self.prefix or packed_part < self.prefix:
            raise ValueError(
                f"a prompt of {ids.shape[1]} tokens packs {max(0, packed_part)} of them, not the visual prefix of "
                f"{self.prefix}: lower residual, or ask with a longer text"
            )
        salient = self.relevant(ids)
        for block in self.decoder.blocks:
            block.attention.keeper.salient = salient
        return self.decoder.prefill(ids)

    def decode(self, ids: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """Logits of the next position, and the cache."""
        return self.decoder.decode(ids, cache)

    def cache_bits(self) -> dict[str, float]:
        """Nominal and stored bits, those of the salient values included."""
        bits = self.decoder.cache_bits()
        keeper = self.decoder.blocks[0].attention.keeper
        nominal = nominal_bits(keeper.key_bits, keeper.value_bits, self.share)
        more = self.share * (16 / self.group) / 2 if keeper.value_bits == TERNARY_BITS else 0.0
        return {"nominal": nominal, "stored": bits["stored"] + more}
