"""Bytes of a whole network in a format, from its shapes alone: codes, scales, zero points; the rest in fp32."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from suites.quantization.network import layers_of
from suites.quantization.packing import code_bytes, matrix_bytes, scale_count


@dataclass(frozen=True)
class NetworkBytes:
    """Bytes of a network: quantised weights with their scales, how many scales there are, and all else in fp32."""

    weights: int
    scales: int
    others: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.others


def network_bytes(
    model: nn.Module,
    bits: float,
    *,
    granularity: str = "channel",
    group: int = 128,
    scale_bytes: int = 4,
    zero_bytes: int = 0,
    selector_bits: int = 0,
    skip: tuple[str, ...] = (),
) -> NetworkBytes:
    """What the weights of every linear layer and convolution take in a format; biases, norms and tables stay fp32.

    Args:
        model: on any device, the meta device included.
        bits: of a code.
        granularity: what shares a scale: tensor, channel, group or block.
        group: inputs of a group, side of a block.
        scale_bytes: of a scale.
        zero_bytes: of a zero point.
        selector_bits: of what chooses a group's grid.
        skip: paths, or ends of paths, of layers that stay fp32.
    """
    layers = layers_of(model, skip=skip)
    weights = scales = counted = 0
    for layer in layers.values():
        rows, columns = len(layer.weight), layer.weight[0].numel()
        counted += rows * columns
        scales += scale_count(rows, columns, granularity, group)
        weights += matrix_bytes(
            rows,
            columns,
            bits,
            granularity=granularity,
            group=group,
            scale_bytes=scale_bytes,
            zero_bytes=zero_bytes,
            selector_bits=selector_bits,
        )
    others = sum(parameter.numel() for parameter in model.parameters()) - counted
    return NetworkBytes(weights, scales, code_bytes(others, 32))
