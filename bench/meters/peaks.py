"""What the machine could do, measured: arithmetic per dtype, memory bandwidth, launch overhead, idle power.

Kernels are visited in rounds, so that a disturbance or a falling clock shows as spread between rounds. In a round the
best call counts. A rate is a ceiling, so its value is the best round, with the range of the rounds beside it; the
launch overhead is a cost, and its value is the median.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from bench.host.hostwatch import HostReport, HostWatch
from bench.meters import peak_work
from bench.meters.capabilities import capabilities
from bench.meters.peak_work import Work

__all__ = ["capabilities", "drifted", "measure_peaks", "quick_probe"]

ROUNDS = 5
#: Shares of the budget; the rest goes to warm-up, the launch overhead and the idle power.
ARITHMETIC_SHARE, BANDWIDTH_SHARE = 0.6, 0.2
#: A range of the rounds wider than this share of the value makes a machine unstable.
STABLE_RANGE = 0.10
#: Values have drifted when their ranges, widened by this share, do not meet.
DRIFT_MARGIN = 0.05
#: Labels of the host's watch that mean that somebody else had part of the machine, or that it was slowed.
DISTURBED = frozenset(
    {"host busy", "stolen time", "pressure stall", "throttled", "GPU throttled", "foreign GPU process"}
)

Rate = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """One value for all rounds, and their range."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def ceiling(cls, rounds: Sequence[float]) -> Spread:
        """The best round: what the machine was seen to do."""
        return cls(max(rounds), min(rounds), max(rounds), len(rounds))

    @classmethod
    def typical(cls, rounds: Sequence[float]) -> Spread:
        """The median round."""
        return cls(statistics.median(rounds), min(rounds), max(rounds), len(rounds))

    def entry(self, unit: str, **fields: Any) -> Rate:
        """The spread as an entry of a record's `machine` part."""
        return {**fields, "unit": unit, "value": self.value, "low": self.low, "high": self.high, "n": self.n}


def measure_peaks(device: str, threads: int | Sequence[int] = 1, budget_s: float = 8.0) -> dict[str, Any]:
    """The `machine` part of a record; every rate with the range of its rounds.

    Args:
        device: `cpu`, `cuda` or `cuda:1`.
        threads: thread count, or several of them; on CUDA it makes no difference.
        budget_s: about how long to take, per thread count.

    Returns:
        `peaks` (op/s per dtype and thread count; a multiply-add is two operations), `bandwidth` (B/s; several thread
        counts give a list), `launch_overhead_us`, `idle_power` (W, or `value` None and a `reason`), `unsupported`
        (dtype to reason), `stable`, `notes`, `host` (what happened meanwhile).
    """
    counts = [threads] if isinstance(threads, int) else list(threads)
    with HostWatch(device) as watch:
        parts = [_at(torch.device(device), count, budget_s, peak_work.DTYPES) for count in counts]
    idle = idle_power_rate(device, min(2.0, budget_s / 4))
    return machine_peaks(parts, watch.report, idle, ROUNDS)


def quick_probe(device: str, threads: int = 1, budget_s: float = 1.0) -> dict[str, Any]:
    """The same for single precision and bandwidth only, in about a second, to compare with an earlier calibration."""
    only = dict.fromkeys(peak_work.DTYPES, ("fp32",))
    with HostWatch(device) as watch:
        part = _at(torch.device(device), threads, budget_s, only)
    return machine_peaks(
        [part], watch.report, {"unit": "W", "value": None, "reason": "not part of a quick probe"}, ROUNDS
    )


def drifted(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """Why an earlier calibration does not describe the machine any more, or None.

    Slower on a disturbed host is no drift: then the present probe is what cannot be trusted.

    Args:
        old: what `measure_peaks` gave earlier.
        new: what `quick_probe` gives now.
    """
    disturbed = not new.get("stable", True)
    for name, before, now in _pairs(old, new):
        if now["low"] * (1 - DRIFT_MARGIN) > before["high"] * (1 + DRIFT_MARGIN):
            change = "faster"
        elif now["high"] * (1 + DRIFT_MARGIN) < before["low"] * (1 - DRIFT_MARGIN):
            change = "slower"
        else:
            continue
        if not (change == "slower" and disturbed):
            return f"{name} is {change} than calibrated: {now['value']:.3g} against {before['value']:.3g} {now['unit']}"
    return None


def _pairs(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, Rate, Rate]]:
    earlier = {(p["dtype"], p["threads"]): p for p in old.get("peaks") or []}
    for rate in new["peaks"]:
        key = (rate["dtype"], rate["threads"])
        if key in earlier:
            yield f"{key[0]} arithmetic at {key[1]} threads", earlier[key], rate
    bands = {band["threads"]: band for band in _list(old.get("bandwidth"))}
    for band in _list(new["bandwidth"]):
        if band["threads"] in bands:
            yield f"bandwidth at {band['threads']} threads", bands[band["threads"]], band


def _list(value: Any) -> list[Rate]:
    return value if isinstance(value, list) else [value] if value else []


def machine_peaks(parts: list[dict[str, Any]], host: HostReport | None, idle: Rate, rounds: int) -> dict[str, Any]:
    peaks = [rate for part in parts for rate in part["peaks"]]
    bands = [part["bandwidth"] for part in parts]
    labels = set(host.labels) & DISTURBED if host else set()
    wide = [rate for rate in peaks + bands if rate["high"] - rate["low"] > STABLE_RANGE * rate["value"]]
    notes = [note for part in parts for note in part["notes"]]
    notes += [f"{_name(rate)} ranged over {_range(rate):.0f} % of its value in {rounds} rounds" for rate in wide]
    notes += [f"the host was disturbed while measuring: {', '.join(sorted(labels))}"] if labels else []
    return {
        "peaks": peaks,
        "bandwidth": bands[0] if len(bands) == 1 else bands,
        "launch_overhead_us": parts[0]["launch_overhead_us"],
        "idle_power": idle,
        "unsupported": parts[0]["unsupported"],
        "stable": not wide and not labels,
        "notes": notes,
        "host": host.as_dict() if host else None,
    }


def _name(rate: Rate) -> str:
    return f"{rate.get('dtype', 'bandwidth')} at {rate['threads']} threads"


def _range(rate: Rate) -> float:
    return 100 * (rate["high"] - rate["low"]) / rate["value"]


def _at(device: torch.device, threads: int, budget_s: float, dtypes: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Every rate at one thread count."""
    where = {"device": str(device), "threads": threads}
    with with_threads(threads), torch.no_grad():
        peaks, unsupported = arithmetic_peaks(device, where, budget_s * ARITHMETIC_SHARE, dtypes[device.type])
        bandwidth, notes = _bandwidth(device, where, budget_s * BANDWIDTH_SHARE)
        launch = peak_work.smallest_operator(device)
        calls = 500
        launch.seconds(calls)
        spent = Spread.typical([1e6 * launch.seconds(calls) / calls for _ in range(2 * ROUNDS)])
    if device.type == "cpu" and threads > (os.cpu_count() or threads):
        notes.append(f"{threads} threads share {os.cpu_count()} cores")
    return {
        "peaks": peaks,
        "bandwidth": bandwidth,
        "notes": notes,
        "unsupported": unsupported,
        "launch_overhead_us": spent.entry("us", **where),
    }


@contextmanager
def with_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def arithmetic_peaks(
    device: torch.device, where: dict[str, Any], budget_s: float, dtypes: Sequence[str]
) -> tuple[list[Rate], dict[str, str]]:
    """Peak rates by dtype, and why there is none for the others; dtypes take turns within a round."""
    works: dict[str, list[Work]] = {}
    unsupported: dict[str, str] = {}
    slice_s = budget_s / (ROUNDS * len(dtypes) * len(peak_work.GEMM_SIZES[device.type]))
    for dtype in dtypes:
        for kernel in peak_work.kernels(dtype, device):
            try:
                works.setdefault(dtype, []).extend(affordable_work(dtype, device, slice_s, kernel))
            except (RuntimeError, NotImplementedError, AttributeError) as error:
                unsupported.setdefault(dtype, str(error).splitlines()[0])
    works = {dtype: items for dtype, items in works.items() if items}
    unsupported = {dtype: why for dtype, why in unsupported.items() if dtype not in works}
    rounds: dict[str, list[float]] = {dtype: [] for dtype in works}
    for _ in range(ROUNDS):
        for dtype, items in works.items():
            with peak_work.tensor_float32(dtype == "tf32", device):
                rounds[dtype].append(max(best_rate(item, slice_s, device) for item in items))
    return [Spread.ceiling(rounds[dtype]).entry("op/s", dtype=dtype, **where) for dtype in works], unsupported


def affordable_work(dtype: str, device: torch.device, slice_s: float, kernel: str = "") -> list[Work]:
    """The products of a dtype by one kernel whose single call fits its slice of time, the smallest in any case.

    They are warmed up.
    """
    first, *further = peak_work.GEMM_SIZES[device.type]
    with peak_work.tensor_float32(dtype == "tf32", device):
        works = [peak_work.product(dtype, first, device, kernel)]
        works[0].seconds(1)
        rate = works[0].amount / works[0].seconds(1)
        affordable = [size for size in further if 2 * size**3 / rate <= 2 * slice_s]
        works += [peak_work.product(dtype, size, device, kernel) for size in affordable]
        for item in works:
            item.seconds(1)
    return works


def best_rate(item: Work, slice_s: float, device: torch.device) -> float:
    """Amount per second of the quickest call (on CUDA: block of calls) within a slice of time; at least one is made."""
    block = 1 if device.type == "cpu" else max(1, int(0.005 / max(item.seconds(1), 1e-9)))
    taken = [item.seconds(block)]
    while sum(taken) < slice_s:
        taken.append(item.seconds(block))
    return item.amount * block / min(taken)


def _bandwidth(device: torch.device, where: dict[str, Any], budget_s: float) -> tuple[Rate, list[str]]:
    """The better of copy and triad, and remarks on what it is worth."""
    size, cache = peak_work.stream_bytes(device)
    works = peak_work.streams(device, size)
    for item in works:
        item.seconds(1)
    slice_s = budget_s / (ROUNDS * len(works))
    rounds = {item.name: [best_rate(item, slice_s, device) for _ in range(ROUNDS)] for item in works}
    spreads = {name: Spread.ceiling(values) for name, values in rounds.items()}
    best = max(spreads, key=lambda name: spreads[name].value)
    notes = []
    if cache is None:
        notes.append("the last-level cache is unknown; the bandwidth may be partly that of a cache")
    elif size < 2 * cache:
        notes.append(
            f"buffers of {size} bytes are not much larger than the cache of {cache}; the bandwidth is partly its"
        )
    fields = {"kernel": best, "buffer_bytes": size, "cache_bytes": cache}
    kernels = {name: spread.entry("B/s") for name, spread in spreads.items()}
    return spreads[best].entry("B/s", **where, **fields, kernels=kernels), notes


def idle_power_rate(device: str, seconds: float, choose: Callable[..., Any] | None = None) -> Rate:
    """Watts of the idle device with their scope, or no value and the reason."""
    from bench.meters import energy

    backend = (choose or energy.choose)(device)
    if isinstance(backend, energy.Unavailable):
        return {"unit": "W", "value": None, "reason": backend.reason}
    try:
        return energy.idle_power(backend, seconds, repeats=3)
    except energy.EnergyError as error:
        return {"unit": "W", "value": None, "reason": str(error)}
