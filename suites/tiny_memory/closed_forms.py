"""Closed forms of executed products, for the battery and for tests."""

from __future__ import annotations

from typing import Any

import torch

from suites.common.engine_memory import chain_macs, patched_total_macs
from suites.tiny_memory.networks import chain_of, mobilenet_chain


def patched(model: dict[str, Any], method: dict[str, Any]) -> int:
    """Products of one picture through a MobileNetV2 whose first blocks run tile by tile, the classifier included.

    Args:
        model: settings of `mobilenet_chain`.
        method: settings of `mcunetv2`; empty for the plain network.
    """
    with torch.device("meta"):
        net = mobilenet_chain(**model)
    chain, head = chain_of(net.net.features), net.net.last_channel * net.classes
    tiles = method.get("tiles", 4) if method else 1
    if tiles == 1:
        return chain_macs(chain, net.resolution) + head
    return patched_total_macs(chain, net.resolution, method.get("end", 4), tiles) + head
