"""Correctness of a candidate by trials: MultiKernelBench's protocol (Wen et al. 2025, arXiv 2507.17773).

Five trials with fresh random inputs from a fixed seed; the shapes must agree, then every element within atol + rtol
|expected|. A candidate must not call the operator that it replaces: that is looked for in its source. Every trial gets
copies of its inputs, so that a candidate that writes into them does not spoil the next one.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

TRIALS = 5
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Trial:
    """What one trial found; `reason` is empty where it passed."""

    seed: int
    largest_error: float
    reason: str = ""


def run_trials(
    candidate: Callable[..., Any], reference: Callable[..., Any], inputs: Callable[[int], tuple[Any, ...]], *,
    trials: int = TRIALS, atol: float = TOLERANCE, rtol: float = TOLERANCE, seed: int = 0,
) -> list[Trial]:  # fmt: skip
    """One result for every trial.

    Args:
        candidate: the function that is held to the reference.
        reference: slower and surer.
        inputs: makes the arguments from a seed.
        trials: how many.
        atol: absolute tolerance.
        rtol: relative to the reference's element.
        seed: of the first trial; each further one is one more.
    """
    return [_trial(candidate, reference, inputs(seed + i), seed + i, atol, rtol) for i in range(trials)]


def _trial(
    candidate: Callable[..., Any], reference: Callable[..., Any], args: tuple[Any, ...], seed: int, atol: float,
    rtol: float,
) -> Trial:  # fmt: skip
    found, expected = (
        [leaf for leaf in tree_leaves(function(*_copies(args))) if isinstance(leaf, Tensor)]
        for function in (candidate, reference)
    )
    shapes = [[list(t.shape) for t in side] for side in (found, expected)]
    if shapes[0] != shapes[1]:
        return Trial(seed, float("inf"), f"shapes {shapes[0]} instead of {shapes[1]}")
    worst = max(
        (float((a.double() - b.double()).abs().max()) for a, b in zip(found, expected, strict=True) if a.numel()),
        default=0.0,
    )
    close = all(torch.allclose(a.double(), b.double(), rtol, atol) for a, b in zip(found, expected, strict=True))
    return Trial(seed, worst, "" if close else f"an element is {worst:.3g} off, beyond atol={atol:g}, rtol={rtol:g}")


def _copies(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, args)


def forbidden_calls(candidate: Callable[..., Any], names: Sequence[str]) -> list[str]:
    """Names that the candidate's source calls although it is to replace them, such as `conv2d`; sorted, each once.

    Args:
        candidate: a function or class with source.
        names: last parts of calls: `F.conv2d(x)` and `conv2d(x)` both are `conv2d`.

    Raises:
        ValueError: its source cannot be read, so that nothing can be said.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(candidate)))
    except (OSError, TypeError, SyntaxError) as error:
        raise ValueError(
            f"the source of {candidate!r} cannot be read ({error}): nothing can be said of its calls"
        ) from error
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }
    return sorted(called & set(names))
