"""FBNet-A, -B and -C as found by a search under measured latencies; an expansion of 1 has no first 1x1 layer.

Source: Wu et al. 2019, FBNet, arXiv:1812.03443, figure 4 and the released definitions. timm's `fbnetc_100` is another
network: it widens by 1 with a layer.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from bench.config.settings import PositiveInt
from suites.common.conv_blocks import PooledHead, at, conv_norm
from suites.common.inverted import InvertedBottleneck

#: (kernel, outputs, stride, expansion, groups of the 1x1 layers); None is a block that was skipped.
Row = tuple[int, int, int, int, int] | None


def _rows(text: str) -> tuple[Row, ...]:
    """Rows written as `kernel outputs stride expansion [groups]`, apart by semicolons."""
    rows: list[Row] = []
    for entry in text.split(";"):
        words = entry.split()
        if words == ["skip"]:
            rows.append(None)
            continue
        kernel, outputs, stride, expansion, groups = (int(word) for word in [*words, "1"][:5])
        rows.append((kernel, outputs, stride, expansion, groups))
    return tuple(rows)


PLANS: dict[str, tuple[int, tuple[Row, ...]]] = {
    "a": (
        1504,
        _rows(
            "skip; 3 24 2 3; 3 24 1 1; 5 32 2 6; 3 32 1 3; "
            "5 32 1 1; 3 32 1 3; 5 64 2 6; 5 64 1 3; 5 64 1 1 2; 5 64 1 6;"
            "3 112 1 6; 5 112 1 1 2; 5 112 1 3; 3 112 1 1 2; 5 184 2 6; 5 184 1 6; 5 184 1 3; 5 184 1 6; 5 352 1 6"
        ),
    ),
    "b": (
        1984,
        _rows(
            "3 16 1 1; 3 24 2 6; 5 24 1 1; 3 24 1 1; 3 24 1 1; 5 32 2 6; "
            "5 32 1 3; 3 32 1 6; 5 32 1 6; 5 64 2 6; 5 64 1 6; skip;"
            "5 64 1 3; 5 112 1 6; 3 112 1 1; 5 112 1 1; 5 112 1 3; "
            "5 184 2 6; 5 184 1 1; 5 184 1 6; 5 184 1 6; 3 352 1 6"
        ),
    ),
    "c": (
        1984,
        _rows(
            "3 16 1 1; 3 24 2 6; skip; 3 24 1 1; 3 24 1 1; 5 32 2 6; 5 32 1 3; 5 32 1 6; 3 32 1 6; 5 64 2 6; 5 64 1 3;"
            "5 64 1 6; 5 64 1 6; 5 112 1 6; 5 112 1 6; 5 112 1 6; "
            "5 112 1 3; 5 184 2 6; 5 184 1 6; 5 184 1 6; 5 184 1 6; 3 352 1 6"
        ),
    ),
}
STEM = 16


def from_rows(rows: tuple[Row, ...], last: int, classes: int, resolution: int) -> nn.Sequential:
    """A network of a stem, the rows' blocks, a last 1x1 layer and a linear one."""
    layers: list[nn.Module] = [conv_norm(3, STEM, 3, 2, act=nn.ReLU)]
    before = STEM
    for row in rows:
        if row is None:
            continue
        kernel, outputs, stride, expansion, groups = row
        layers.append(
            InvertedBottleneck(
                before,
                outputs,
                hidden=before * expansion,
                kernel=kernel,
                stride=stride,
                groups=groups,
                widen=expansion > 1,
            )
        )
        before = outputs
    layers += [conv_norm(before, last, act=nn.ReLU), PooledHead(last, classes)]
    return at(nn.Sequential(*layers), resolution)


def fbnet(
    *, plan: Literal["a", "b", "c"] = "a", classes: PositiveInt = 1000, resolution: PositiveInt = 224
) -> nn.Sequential:
    """An FBNet classifier of images [batch, 3, height, width].

    Args:
        plan: which of the three.
        classes: logits.
        resolution: side of the input.
    """
    last, rows = PLANS[plan]
    return from_rows(rows, last, classes, resolution)
