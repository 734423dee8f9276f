"""Products of a step and of a clip, written down from sizes; of one stream, for one timed run of one step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from suites.streaming.continual import Conv, Gate, MaxPool
from suites.streaming.stgcn import Graph

Settings = Mapping[str, Any]


def linear(inputs: int, outputs: int, rows: int = 1) -> int:
    """Of a linear layer."""
    return inputs * outputs * rows
