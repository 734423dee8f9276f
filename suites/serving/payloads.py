"""What goes over the wire: tensors as floats, as n-bit codes with scale and zero point, and pictures as files.

Every payload says its own shape, so that the other side needs nothing but the bytes. Each sample of a batch is coded by
itself: what a request sends does not depend on its neighbours.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

#: Bytes of a scale (fp32) and a zero point (u16) of one sample.
AFFINE_BYTES = 6
Kind = Literal["jpeg", "webp"]


class Codec(Protocol):
    """Turns what a head gives into bytes and back."""

    def encode(self, hidden: Tensor) -> bytes:
        """Everything that the other side needs."""

    def decode(self, payload: bytes) -> Tensor:
        """From the bytes alone, on the host."""


def header(shape: Sequence[int]) -> bytes:
    """A shape as bytes: how many sides, then two bytes each.

    Raises:
        ValueError: a side is larger than 65535.
    """
    if max(shape, default=0) > 0xFFFF:
        raise ValueError(f"a payload of shape {tuple(shape)}: sides are sent in two bytes each")
    return struct.pack(f"<B{len(shape)}H", len(shape), *shape)


def header_bytes(dims: int) -> int:
    """Bytes of the header of a tensor with so many sides."""
    return 1 + 2 * dims


def without_header(payload: bytes) -> tuple[tuple[int, ...], memoryview]:
    """The shape and what follows it."""
    dims = payload[0]
    return struct.unpack_from(f"<{dims}H", payload, 1), memoryview(payload)[header_bytes(dims) :]


class Floats:
    """Numbers as they are, four bytes each."""

    def encode(self, hidden: Tensor) -> bytes:
        """Shape, then little-endian fp32."""
        return header(hidden.shape) + hidden.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes()

    def decode(self, payload: bytes) -> Tensor:
        """The same numbers, bit for bit."""
        shape, body = without_header(payload)
        return torch.from_numpy(np.frombuffer(body, "<f4").reshape(shape).copy())


class Affine:
    """Codes of n bits with a scale and a zero point for each sample, chosen when it is sent.

    The range always holds zero, and ends at the sample's least and largest number: q = round(x / s) + z.
    """

    def __init__(self, bits: int):
        if not 1 <= bits <= 16:
            raise ValueError(f"bits={bits}: codes have 1 to 16 bits")
        self.bits = bits

    def codes(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes [batch, ...], scales [batch] and zero points [batch]."""
        flat = hidden.detach().float().flatten(1)
        low, high = flat.amin(1).clamp_max(0), flat.amax(1).clamp_min(0)
        levels = 2**self.bits - 1
        scale = ((high - low) / levels).clamp_min(torch.finfo(torch.float32).tiny)
        zero = (-low / scale).round().clamp(0, levels)
        codes = ((flat / scale[:, None]).round() + zero[:, None]).clamp(0, levels)
        return codes.reshape(hidden.shape), scale, zero

    def rounded(self, hidden: Tensor) -> Tensor:
        """What arrives of it, without bytes."""
        codes, scale, zero = self.codes(hidden)
        flat = (codes.flatten(1) - zero[:, None]) * scale[:, None]
        return flat.reshape(hidden.shape).to(hidden)

    def encode(self, hidden: Tensor) -> bytes:
        """Shape, then of every sample scale and zero point, then all codes without gaps."""
        codes, scale, zero = self.codes(hidden)
        scales = scale.cpu().numpy().astype("<f4").tobytes() + zero.cpu().numpy().astype("<u2").tobytes()
        return header(hidden.shape) + scales + packed(codes.flatten().cpu().numpy(), self.bits)

    def decode(self, payload: bytes) -> Tensor:
        """The numbers that the codes stand for."""
        shape, body = without_header(payload)
        batch = shape[0]
        scale = np.frombuffer(body[: 4 * batch], "<f4")
        zero = np.frombuffer(body[4 * batch : AFFINE_BYTES * batch], "<u2").astype(np.float32)
        codes = unpacked(body[AFFINE_BYTES * batch :], self.bits, int(np.prod(shape)))
        values = (codes.reshape(batch, -1).astype(np.float32) - zero[:, None]) * scale[:, None]
        return torch.from_numpy(values.reshape(shape))


def packed(codes: np.ndarray, bits: int) -> bytes:
    """Whole numbers below 2^bits without gaps, the highest bit first."""
    if bits == 8:
        return codes.astype(np.uint8).tobytes()
    places = np.arange(bits - 1, -1, -1, dtype=np.uint32)
    return np.packbits((codes.astype(np.uint32)[:, None] >> places & 1).astype(np.uint8)).tobytes()


def unpacked(body: bytes | memoryview, bits: int, count: int) -> np.ndarray:
    """The numbers back."""
    if bits == 8:
        return np.frombuffer(body, np.uint8, count).astype(np.uint32)
    marks = np.unpackbits(np.frombuffer(body, np.uint8), count=count * bits).reshape(count, bits).astype(np.uint32)
    return marks @ (1 << np.arange(bits - 1, -1, -1, dtype=np.uint32))


class Pixels:
    """Pictures of one byte a pixel and channel, as a camera gives them."""

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]):
        self.mean, self.deviation = tuple(mean), tuple(deviation)

    def bytes_of(self, images: Tensor) -> np.ndarray:
        """Pixels [batch, height, width, channels] of normalised images."""
        mean, deviation = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.deviation))
        pixels = (images.detach().float().cpu() * deviation + mean).clamp(0, 1) * 255
        return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()

    def normalised(self, pixels: np.ndarray) -> Tensor:
        """Images [batch, channels, height, width] of pixels."""
        mean, deviation = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.deviation))
        return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / deviation

    def encode(self, images: Tensor) -> bytes:
        """Shape, then the pixels."""
        pixels = self.bytes_of(images)
        return header(pixels.shape) + pixels.tobytes()

    def decode(self, payload: bytes) -> Tensor:
        """Normalised images."""
        shape, body = without_header(payload)
        return self.normalised(np.frombuffer(body, np.uint8).reshape(shape).copy())


class Pictures(Pixels):
    """Pictures as files of Pillow, each behind its length in three bytes; one channel is grey, three are RGB."""

    def __init__(self, mean: Sequence[float], deviation: Sequence[float], quality: int, kind: Kind = "jpeg"):
        super().__init__(mean, deviation)
        self.quality, self.kind = quality, kind

    def encode(self, images: Tensor) -> bytes:
        """The files, one after another."""
        from PIL import Image

        parts = []
        for picture in self.bytes_of(images):
            target = io.BytesIO()
            grey = picture.shape[2] == 1
            image = Image.fromarray(picture[:, :, 0] if grey else picture)
            image.save(target, format=self.kind, quality=self.quality)
            parts += [len(target.getvalue()).to_bytes(3, "little"), target.getvalue()]
        return bytes([len(self.mean)]) + b"".join(parts)

    def decode(self, payload: bytes) -> Tensor:
        """Normalised images."""
        from PIL import Image

        grey, place, found = payload[0] == 1, 1, []
        while place < len(payload):
            size = int.from_bytes(payload[place : place + 3], "little")
            file = io.BytesIO(payload[place + 3 : place + 3 + size])
            pixels = np.array(Image.open(file).convert("L" if grey else "RGB"))
            found.append(pixels[:, :, None] if grey else pixels)
            place += 3 + size
        return self.normalised(np.stack(found))


def codec_of(bits: int) -> Codec:
    """Floats for 32 bits, codes for 1 to 16.

    Raises:
        ValueError: another number.
    """
    return Floats() if bits == 32 else Affine(bits)
