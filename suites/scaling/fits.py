"""How well a count predicts time: straight lines of log time against log count over networks, with intervals.

The paper's finding is that activations predict time better than multiply-accumulates or parameters on memory-bound
accelerators (Dollar et al. 2021, arXiv 2103.06877, section 3). A fit is only as good as its networks are different:
within one family with one shape rule all three predict alike, so mix families.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.line_fit import LineFit, log_line

PREDICTORS = ("macs", "activations", "params")


def fits(
    rows: Iterable[Mapping[str, float]], *, time: str = "latency_ms", predictors: Sequence[str] = PREDICTORS
) -> dict[str, LineFit]:
    """A straight line of log time against the logarithm of each count, and how well it holds.

    Args:
        rows: one mapping per network, with the time and the counts, all above 0.
        time: name of the time.
        predictors: names of the counts.

    Raises:
        ValueError: fewer than three networks, a value that is not above 0, or a count that is the same for all.
    """
    listed = list(rows)
    return {name: log_line([row[name] for row in listed], [row[time] for row in listed]) for name in predictors}


#: Params (M), MACs (G), activations (M) and milliseconds for 64 images on a V100, as the authors' code base lists them.
PUBLISHED_ZOO: dict[str, tuple[float, float, float, float]] = {
    "EfficientNet-B0": (5.3, 0.4, 6.7, 31), "EfficientNet-B1": (7.8, 0.7, 10.9, 47),
    "EfficientNet-B3": (12.2, 1.8, 23.8, 92),
    "EfficientNet-B4": (19.3, 4.4, 49.5, 201), "EfficientNet-B5": (30.4, 10.3, 98.9, 446),
    "RegNetY-1.6GF": (11.2, 1.6, 8.0, 41),
    "RegNetY-4.0GF": (20.6, 4.0, 12.3, 69), "ResNet-50": (25.6, 4.1, 11.3, 57), "ResNet-101": (44.5, 7.8, 16.4, 97),
    "ResNeXt-50": (25.0, 4.2, 14.6, 85),
}  # fmt: skip


def published_zoo() -> list[dict[str, float]]:
    """The ten networks as rows: their correlation of log time with log activations is 0.9845."""
    names = ("params", "macs", "activations", "latency_ms")
    return [dict(zip(names, row, strict=True)) for row in PUBLISHED_ZOO.values()]
