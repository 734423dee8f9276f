"""A compressor at the front end of a particle detector: 48 cells to 16 numbers of few bits.

Source: Di Guglielmo et al. 2021, "A reconfigurable neural network ASIC for detector front-end data compression at the
HL-LHC", arXiv 2105.01683: a reconstruction from its description. 8 x 8 map, 3 x 3 convolution with 8 filters and stride
2, ReLU, 128 -> 16 with ReLU; weights of 6 bits: 2,144 parameters, 3,200 products. The decoder is the server's.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.serving.payloads import header, packed, unpacked, without_header

__all__ = ["detector_frontend", "detector_readout", "load_checkpoint"]

#: Cells that there are of the 8 x 8 map, and bits of one that is read out raw.
CELLS, SIDE, RAW_BITS = 48, 8, 7


class _Detector(nn.Module):
    """Charges of 48 cells on an 8 x 8 map."""

    execution = "simulated"  # the ASIC's whole numbers are imitated in floats

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Showers: a few cells around a drawn one hold most of the charge, which sums to one, [batch, 48]."""
        cells = torch.arange(CELLS, dtype=torch.float32)
        x, y = cells % 8, cells // 8
        centre = torch.rand(batch, 2, 1) * torch.tensor([7.0, 5.0])[:, None]
        distance = (x - centre[:, 0]).square() + (y - centre[:, 1]).square()
        charges = (-distance / 2).exp() + 0.01 * torch.rand(batch, CELLS)
        return (charges / charges.sum(1, keepdim=True),)

    def codes(self, hidden: Tensor) -> Tensor:
        """Whole numbers of the payload."""
        raise NotImplementedError(f"{type(self).__name__} does not define codes")

    bits: int

    def encode(self, hidden: Tensor) -> bytes:
        """Shape, then the codes without gaps."""
        codes = self.codes(hidden.detach())
        return header(codes.shape) + packed(codes.flatten().cpu().numpy(), self.bits)

    def decode(self, payload: bytes) -> Tensor:
        """What the codes stand for."""
        shape, body = without_header(payload)
        codes = unpacked(body, self.bits, int(np.prod(shape))).reshape(shape).astype(np.float32)
        return torch.from_numpy(codes) / (2**self.bits - 1)


class Readout(_Detector):
    """The cells as they are, a few bits each."""

    def __init__(self, bits: int):
        super().__init__()
        self.bits = bits
        self.gain = nn.Parameter(torch.ones(()), requires_grad=False)

    def head(self, cells: Tensor) -> Tensor:
        """The charges."""
        return cells

    def codes(self, hidden: Tensor) -> Tensor:
        """Charges in 0..1 as whole numbers."""
        return (hidden.clamp(0, 1) * (2**self.bits - 1)).round()

    def tail(self, hidden: Tensor) -> Tensor:
        """The charges."""
        return hidden * self.gain

    def forward(self, cells: Tensor) -> Tensor:
        """The charges as they arrive."""
        return self.tail(hidden=cells if cells.is_meta else self.decode(self.encode(cells)))

    def device_params(self) -> int:
        """None."""
        return 0


class FrontEnd(_Detector):
    """The compressor on the detector and the decoder on the server, random weights."""

    def __init__(self, bits: int, weight_bits: int):
        super().__init__()
        self.bits, self.weight_bits = bits, weight_bits
        self.conv = nn.Conv2d(1, 8, 3, 2, 1)
        self.dense = nn.Linear(128, 16)
        self.back, self.unfold = nn.Linear(16, 128), nn.ConvTranspose2d(8, 1, 3, 2, 1, 1)
        self.nominal_bits = weight_bits
        with torch.no_grad():
            for tensor in (self.conv.weight, self.dense.weight):
                tensor.copy_(coarse(tensor, weight_bits))

    def head(self, cells: Tensor) -> Tensor:
        """Sixteen numbers that are not negative, [batch, 16]."""
        square = torch.cat([cells, cells.new_zeros(len(cells), SIDE * SIDE - CELLS)], 1).reshape(-1, 1, SIDE, SIDE)
        return self.dense(self.conv(square).relu().flatten(1)).relu()

    def codes(self, hidden: Tensor) -> Tensor:
        """Numbers in 0..1 as whole ones."""
        return (hidden.clamp(0, 1) * (2**self.bits - 1)).round()

    def tail(self, hidden: Tensor) -> Tensor:
        """Charges of the cells, [batch, 48]."""
        square = self.unfold(self.back(hidden).relu().reshape(-1, 8, 4, 4))
        return square.flatten(1)[:, :CELLS]

    def forward(self, cells: Tensor) -> Tensor:
        """Charges of the cells, through the codes."""
        hidden = self.head(cells)
        return self.tail(hidden if hidden.is_meta else self.decode(self.encode(hidden)))

    def device_params(self) -> int:
        """Of the compressor: 2,144."""
        return sum(p.numel() for part in (self.conv, self.dense) for p in part.parameters())

    def denominators(self, cells: Tensor) -> dict[str, float | str]:
        """None by these names: the raw cells have seven bits and are a row of their own."""
        return {}


def coarse(tensor: Tensor, bits: int) -> Tensor:
    """The nearest of 2^bits - 1 equally spaced values around zero."""
    steps = 2 ** (bits - 1) - 1
    scale = tensor.abs().max().clamp_min(1e-12) / steps
    return (tensor / scale).round() * scale


def detector_readout(*, bits: Annotated[int, Field(ge=1, le=16)] = RAW_BITS) -> Readout:
    """All 48 cells read out raw.

    Args:
        bits: of a cell.
    """
    return Readout(bits).eval()


def detector_frontend(*, bits: Annotated[int, Field(ge=3, le=9)] = 9, weight_bits: PositiveInt = 6) -> FrontEnd:
    """The front end's compressor with its decoder, random weights of few bits.

    Args:
        bits: of each of the sixteen outputs, 3 to 9.
        weight_bits: of a weight, 2 or more.

    Raises:
        ValueError: weights of one bit.
    """
    if weight_bits < 2:
        raise ValueError(f"weight_bits={weight_bits}: a sign and a value need two bits")
    return FrontEnd(bits, weight_bits).eval()
