"""Where scatter comes from: the raw samples that sweeps keep, taken apart by iteration, process and session.

`python -m perf.scatter FOLDER...` reads the samples of results folders and measures nothing. Of every case it takes
logarithms of times, so that a standard deviation is a share of the time, and tells

- *iteration*: what two neighbouring iterations differ by (half of their mean squared difference, von Neumann's
  estimate, which a slow change does not touch);
- *wander*: what medians of ten iterations differ by beyond that, within a process;
- *process*: what medians of processes differ by beyond what wander and iterations explain;
- *session*: what geometric means of sessions differ by beyond what their processes explain, where a case was measured
  in several;

for the time itself and for its ratio to the other side, taken iteration by iteration. A component below zero is zero:
the level below explains all there is. Beside it stands what the reference product of the same process would take away
(*control*: the slope of a process's median on the product's, pooled over cases, and the share of the variance that is
left), what the twin says of ratios of two identical networks, and how far apart these are in one process by the
ratio of their medians and by the median of their rounds' ratios.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.allocation import MEDIAN, ratio_by_rounds
from bench.errors import UsageError

#: Iterations a block, processes and blocks below which nothing is said.
BLOCK, PROCESSES, BLOCKS = 10, 3, 2
#: Upper ends of the classes that cases are summarised in, ms.
CLASSES_MS = (1.0, 10.0, 100.0, math.inf)


@dataclass(frozen=True)
class Components:
    """Standard deviations of logarithms at three levels, and what they were found from.

    Attributes:
        iteration: of neighbouring iterations.
        wander: of medians of ten iterations, beyond that.
        process: of processes, beyond what both explain.
        of_medians: of processes' medians, in all.
        within: of a process's median by iterations and wander alone.
        free: degrees of freedom of `of_medians`.
    """

    iteration: float
    wander: float
    process: float
    of_medians: float
    within: float
    free: int


@dataclass(frozen=True)
class Case:
    """One case of one session: its time, and its ratio to the other side, of the twin to the same, and the product.

    `twins` has of each process the logarithm of the ratio to the identical twin, by medians and by rounds.
    """

    key: str
    milliseconds: float
    medians: tuple[float, ...]
    products: tuple[float, ...]
    time: Components
    ratio: Components | None
    twin: Components | None
    twins: tuple[tuple[float, float], ...] = ()


def components(processes: Sequence[np.ndarray]) -> Components | None:
    """The scatter of logarithms taken apart; None where there are too few processes or iterations.

    Args:
        processes: of each process the logarithms of its samples, in their order.
    """
    return pooled([processes])


def pooled(groups: Sequence[Sequence[np.ndarray]]) -> Components | None:
    """The scatter inside groups of processes taken apart: each group has a level of its own, which counts nowhere.

    Args:
        groups: of each group, of each of its processes the logarithms of its samples, in their order; processes and
            groups with too few of them are left out, and without any group nothing is said.
    """
    enough = [[values for values in group if len(values) >= BLOCK * BLOCKS] for group in groups]
    usable = [group for group in enough if len(group) >= PROCESSES]
    if not usable:
        return None
    everyone = [values for group in usable for values in group]
    white = statistics.fmean(float(np.square(np.diff(values)).mean()) / 2 for values in everyone)
    blocks = [np.median(_blocks(values), axis=1) for values in everyone]
    of_blocks = statistics.fmean(float(np.var(each, ddof=1)) for each in blocks)
    wander = max(0.0, of_blocks - MEDIAN * white / BLOCK)
    within = statistics.fmean(of_blocks / len(each) for each in blocks)
    free = sum(len(group) - 1 for group in usable)
    squares = (float(np.var([np.median(values) for values in group])) * len(group) for group in usable)
    between = math.fsum(squares) / free
    process = max(0.0, between - within)
    return Components(*map(math.sqrt, (white, wander, process, between, within)), free)


def _blocks(values: np.ndarray) -> np.ndarray:
    return values[: len(values) // BLOCK * BLOCK].reshape(-1, BLOCK)


def cases(folder: Path) -> Iterator[Case]:
    """Every case of every session of a results folder whose samples say enough.

    Raises:
        UsageError: there are no samples.
    """
    sessions = sorted(path for path in (folder / "samples").glob("*") if path.is_dir())
    if not sessions:
        raise UsageError(f"{folder}: no samples of any session; give the results folder of a sweep")
    for session in sessions:
        yield from _of_session([_read(path) for path in sorted(session.glob("*.json.gz"))])


def _read(path: Path) -> Mapping[str, Any]:
    with gzip.open(path, "rt") as file:
        found: Mapping[str, Any] = json.load(file)
    return found


def _of_session(files: Sequence[Mapping[str, Any]]) -> Iterator[Case]:
    for key in sorted({key for file in files for key in file["cases"]}):
        having = [file for file in files if key in file["cases"]]
        mine = [_logs(file["cases"][key]) for file in having]
        time = components(mine)
        if time is None:
            continue
        other = [file["twin"]["of"] if file.get("twin") else None for file in having]
        is_other = key in other
        ratio = None if is_other else _against(having, [file["cases"][key] for file in having])
        twin = _against(having, [file["twin"] for file in having]) if is_other else None
        products = tuple(_median_of(file.get("reference_gemm") or {}) for file in having)
        medians = tuple(float(np.median(values)) for values in mine if len(values))
        twins = _by_medians_and_rounds(having) if is_other else ()
        yield Case(key, math.exp(statistics.fmean(medians)), medians, products, time, ratio, twin, twins)


def _against(files: Sequence[Mapping[str, Any]], sides: Sequence[Any]) -> Components | None:
    """Of ratios, iteration by iteration, to the case whose twin there is."""
    pairs = []
    for file, side in zip(files, sides, strict=True):
        base = file["cases"].get(file["twin"]["of"]) if file.get("twin") else None
        if base is not None:
            one, other = _logs(side), _logs(base)
            if len(one) == len(other):
                pairs.append(one - other)
    return components(pairs)


def _by_medians_and_rounds(files: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, float], ...]:
    """Of each process the logarithm of baseline over twin: the ratio of medians, and the median of ratios.

    Left out are processes that timed another baseline or took too few samples.
    """
    found = []
    for file in files:
        base, twin = _logs(file["cases"].get(file["twin"]["of"], {"latency_ms": []})), _logs(file["twin"])
        if len(base) == len(twin) >= BLOCK * BLOCKS:
            found.append((float(np.median(base) - np.median(twin)), float(ratio_by_rounds(base[None], twin))))
    return tuple(found)


def _logs(side: Mapping[str, Any]) -> np.ndarray:
    return np.log(np.asarray(side["latency_ms"], dtype=float))


def _median_of(product: Mapping[str, Any]) -> float:
    times = product.get("ms") or []
    return math.log(statistics.median(times)) if times else math.nan


# ------------------------------------------------------------------------------------------------ over cases
def control(found: Iterable[Case]) -> tuple[float, float, int]:
    """Slope of a process's median on its reference product, the share of variance left, and degrees of freedom.

    Each case is centred by itself, so that the slope is of processes and not of networks.
    """
    xs, ys, lost = [], [], 0
    for case in found:
        pairs = [(x, y) for x, y in zip(case.products, case.medians, strict=False) if math.isfinite(x)]
        if len(pairs) < PROCESSES:
            continue
        x, y = np.array(pairs).T
        xs.append(x - x.mean())
        ys.append(y - y.mean())
        lost += 1
    if not xs or not float(np.square(np.concatenate(xs)).sum()):
        return math.nan, math.nan, 0
    x, y = np.concatenate(xs), np.concatenate(ys)
    slope = float(x @ y / (x @ x))
    free = len(x) - lost
    left = float(np.square(y - slope * x).sum()) / (free - 1) / (float(y @ y) / free)
    return slope, left, free


def sessions_apart(found: Iterable[Case]) -> tuple[float, int]:
    """Standard deviation between sessions of one case beyond that of their processes, and cases it is taken over."""
    by_key: dict[str, list[Case]] = defaultdict(list)
    for case in found:
        by_key[case.key].append(case)
    several = [group for group in by_key.values() if len(group) > 1]
    if not several:
        return math.nan, 0
    variances = []
    for group in several:
        between = statistics.variance(math.log(case.milliseconds) for case in group)
        within = statistics.fmean(case.time.of_medians**2 / len(case.medians) for case in group)
        variances.append(between - within)
    return math.sqrt(max(0.0, statistics.fmean(variances))), len(several)


def as_markdown(found: Sequence[Case]) -> str:
    """A table by how long a case takes: medians over cases, as shares of the time."""
    lines = [
        "| a case of | cases | time: iteration | wander | process | ratio: iteration | wander | process "
        "| twin: process |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [f"| {name} | {len(here)} | {' | '.join(_cells(here))} |" for name, here in _by_class(found)]
    slope, left, free = control(found)
    apart, over = sessions_apart(found)
    lines += ["", f"Control by the reference product: slope {slope:.2f}, {left:.0%} of the variance of medians is left "
              f"({free} degrees of freedom)."]  # fmt: skip
    lines += _twins(found)
    if over:
        lines.append(f"Sessions of one case lie {apart:.1%} apart beyond their processes ({over} cases).")
    return "\n".join(lines)


def _twins(found: Sequence[Case]) -> list[str]:
    """A table of what a process says of two identical networks, by how long they take: root mean squares."""
    lines = [
        "",
        "| identical networks of | processes | apart by medians | by rounds | variance, rounds over medians |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, here in _by_class(found):
        pairs = [pair for case in here for pair in case.twins]
        if pairs:
            medians, rounds = (math.sqrt(statistics.fmean(x**2 for x in side)) for side in zip(*pairs, strict=True))
            share = f"{(rounds / medians) ** 2:.2f}" if medians else "-"
            lines.append(f"| {name} | {len(pairs)} | {100 * medians:.2f} % | {100 * rounds:.2f} % | {share} |")
    return [*lines, ""]


def _by_class(found: Sequence[Case]) -> Iterator[tuple[str, list[Case]]]:
    """The cases of each class of how long they take, by its name; classes without any are left out."""
    for below, limit in pairwise((0.0, *CLASSES_MS)):
        here = [case for case in found if below <= case.milliseconds < limit]
        if here:
            yield f"{below:g} to {limit:g} ms" if limit < math.inf else f"{below:g} ms and more", here


def _cells(here: Sequence[Case]) -> list[str]:
    cells = []
    for side in ("time", "ratio"):
        parts = [part for case in here if (part := getattr(case, side)) is not None]
        cells += [_typical([getattr(part, level) for part in parts]) for level in ("iteration", "wander", "process")]
    return [*cells, _typical([case.twin.process for case in here if case.twin is not None])]


def _typical(shares: Sequence[float]) -> str:
    return f"{100 * statistics.median(shares):.2f} %" if shares else "-"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read folders, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folders", nargs="+", type=Path)
    chosen = parser.parse_args(arguments)
    print(as_markdown([case for folder in chosen.folders for case in cases(folder)]))


if __name__ == "__main__":
    main()
