"""Whole numbers as range-coded strings, by the library `constriction` (MIT or Apache-2.0 or BSL-1.0).

Numbers beyond the reach of a table are coded as its last or first and follow as they are, in four bytes: whatever is
encoded is decoded exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from bench.errors import UsageError

#: Largest absolute number that a table of a channel has a probability for, and a Gaussian.
REACH, GAUSSIAN_REACH = 255, 4095
#: Largest absolute number that is sent at all, in four bytes.
LARGEST = 2**31 - 1


def coder() -> ModuleType:
    """The library.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import constriction
    except ImportError as error:
        raise UsageError('range coding needs the library constriction: pip install "waterline[serving]"') from error
    return constriction


def table_models(tables: np.ndarray) -> list[Any]:
    """An entropy model of each row of probabilities, [channels, 2 x REACH + 1]."""
    model = coder().stream.model
    return [model.Categorical(np.ascontiguousarray(row, np.float64), perfect=False) for row in tables]


def coded_by_tables(symbols: np.ndarray, models: list[Any]) -> bytes:
    """Whole numbers [channels, n], each channel by its table, as one string."""
    encoder = coder().stream.queue.RangeEncoder()
    near = np.clip(symbols, -REACH, REACH)
    for row, model in zip(near, models, strict=True):
        encoder.encode((row + REACH).astype(np.int32), model)
    return framed(encoder.get_compressed(), symbols[np.abs(near) == REACH])


def read_by_tables(string: memoryview, models: list[Any], count: int) -> tuple[np.ndarray, memoryview]:
    """The numbers [channels, count], and what follows the string."""

    def read(decoder: Any) -> np.ndarray:
        return np.stack([decoder.decode(model, count) for model in models]).astype(np.int64) - REACH

    return _read(string, read, REACH)


def coded_by_gaussians(symbols: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> bytes:
    """Whole numbers [n], each by a Gaussian of its own over whole numbers, as one string."""
    encoder = coder().stream.queue.RangeEncoder()
    near = np.clip(symbols, -GAUSSIAN_REACH, GAUSSIAN_REACH)
    encoder.encode(near.astype(np.int32), _gaussians(), means, deviations)
    return framed(encoder.get_compressed(), symbols[np.abs(near) == GAUSSIAN_REACH])


def read_by_gaussians(string: memoryview, means: np.ndarray, deviations: np.ndarray) -> tuple[np.ndarray, memoryview]:
    """The numbers [n], and what follows the string."""

    def read(decoder: Any) -> np.ndarray:
        return np.asarray(decoder.decode(_gaussians(), means, deviations)).astype(np.int64)

    return _read(string, read, GAUSSIAN_REACH)


def _gaussians() -> Any:
    return coder().stream.model.QuantizedGaussian(-GAUSSIAN_REACH, GAUSSIAN_REACH)


def framed(words: np.ndarray, far: np.ndarray) -> bytes:
    """The string behind its length (in words of four bytes), then the numbers beyond the reach.

    Raises:
        ValueError: one of these does not fit into four bytes.
    """
    if far.size and int(np.abs(far).max()) > LARGEST:
        raise ValueError(
            f"a latent of {int(np.abs(far).max()):.3g} cannot be sent: numbers beyond a table have four bytes each; an "
            "encoder that has learned gives smaller ones"
        )
    return varint(len(words)) + words.astype("<u4").tobytes() + far.astype("<i4").tobytes()


def _read(string: memoryview, read: Callable[[Any], np.ndarray], reach: int) -> tuple[np.ndarray, memoryview]:
    length, body = read_varint(string)
    words = np.frombuffer(body[: 4 * length], "<u4").astype(np.uint32)
    found = read(coder().stream.queue.RangeDecoder(words))
    body = body[4 * length :]
    beyond = np.abs(found) == reach
    count = int(beyond.sum())
    found[beyond] = np.frombuffer(body[: 4 * count], "<i4")
    return found, body[4 * count :]


def varint(number: int) -> bytes:
    """A whole number, seven bits a byte, the lowest first; the highest bit says that more follows."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def read_varint(string: memoryview) -> tuple[int, memoryview]:
    """The number, and what follows it."""
    number = place = 0
    while True:
        byte = string[place]
        number |= (byte & 0x7F) << (7 * place)
        place += 1
        if byte < 0x80:
            return number, string[place:]
