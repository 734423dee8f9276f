"""The settings that every convolutional network here takes, so that a published pruned shape can be built as it is."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from suites.pruning.rounding import check_sparsity, kept_width


def chosen(given: Sequence[int] | None, full: Sequence[int], what: str) -> list[int]:
    """The given widths, or the full ones.

    Raises:
        ValueError: another number of them.
    """
    if given is None:
        return list(full)
    if len(given) != len(full):
        raise ValueError(f"{what} has {len(given)} entries and the network has {len(full)} such places")
    return list(given)


def tell_slim(network: nn.Module, *given: object) -> None:
    """Let a network that was given widths of its own say that it is a smaller dense one (its label `kernel`)."""
    if any(each is not None and each is not False for each in given):
        network.kernel = "slim"  # type: ignore[assignment]


def from_rates(
    rates: Sequence[float], stem: int, stages: Sequence[tuple[int, int]], mids: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Block outputs (stem first) and inner widths of a residual network whose places have rates.

    Args:
        rates: of the stem, of each stage's outputs but the last's, of each block's inner channels.
        stem: channels of the stem.
        stages: (blocks, output channels) of each stage.
        mids: inner channels of each block.

    Raises:
        ValueError: another number of rates.
    """
    wanted = len(stages) + len(mids)
    if len(rates) != wanted:
        raise ValueError(
            f"rates has {len(rates)} entries; {wanted} are wanted: stem, {len(stages) - 1} stages, {len(mids)} blocks"
        )
    for rate in rates:
        check_sparsity(rate, "rate")
    by_stage = [*rates[1 : len(stages)], 0.0]
    outputs = [kept_width(stem, rates[0])]
    for (count, width), rate in zip(stages, by_stage, strict=True):
        outputs += [kept_width(width, rate)] * count
    inner = [kept_width(width, rate) for width, rate in zip(mids, rates[len(stages) :], strict=True)]
    return outputs, inner
