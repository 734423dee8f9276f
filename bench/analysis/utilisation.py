"""Share of the machine's peak that a run uses: by the model's products (MFU) and by all that are executed (HFU).

With t the measured latency, P the measured peak of each layer's dtype and F_l its operations, HFU = (sum of F_l / P_l)
/ t, which is the ideal latency over the measured one; with one dtype it is 2 x executed MACs / (P t). MFU keeps only
the model's own products: HFU x model MACs / executed MACs, where executed MACs include the method's own, and model MACs
leave out what a training step computes again, and of a request that says so the beams that were thrown away.

Names and definitions: A. Chowdhery et al., PaLM, arXiv 2204.02311, appendix B (MFU; HFU counts rematerialisation).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from bench.analysis.roofline_of_record import bandwidth_of, dtype_name
from bench.reading import Reading, reading, unavailable

#: `value(metric)`: the reading of the part that has a value, or None.
Value = Callable[[str], Reading | None]
NOTE = "{what} over latency x measured peak; the ends join those of latency and peak in squares"
#: Share of a peak above which it is no ceiling: what measured it had a slower kernel than what ran.
MOST_OF_A_PEAK = 1.05


def readings(record: dict[str, Any], value: Value) -> list[Reading]:
    """`mfu` and `hfu` of one part, in percent; nothing where no latency was taken.

    Args:
        record: with the machine and the case.
        value: readings of the part, `ideal_ms` among them.
    """
    latency = value("latency_ms")
    if latency is None or latency.value is None:
        return []
    bare = _roofline_share(record, value, latency)
    ideal = value("ideal_ms")
    if ideal is None or ideal.value is None:
        return [*bare, *(unavailable(name, "no peak was measured for its arithmetic") for name in ("mfu", "hfu"))]
    executed = 100 * ideal.value / latency.value
    if is_beyond_the_peak(ideal.value, latency.value):
        return [*bare, *(unavailable(name, _beyond_the_peak(executed / 100)) for name in ("mfu", "hfu"))]
    share, why = _model_share(value)
    below, above = _reach(latency, _peak_reach(record))
    found = [] if share is None else [_reading("mfu", executed * share, below, above, latency.n, "2 x model MACs")]
    missing = [unavailable("mfu", why)] if share is None else []
    return [*bare, *found, *missing, _reading("hfu", executed, below, above, latency.n, "2 x executed MACs")]


def is_beyond_the_peak(ideal_ms: float, latency_ms: float) -> bool:
    """Whether a run is faster than the measured peak of its arithmetic allows, by more than the noise of that peak."""
    return ideal_ms > MOST_OF_A_PEAK * latency_ms


def _beyond_the_peak(times: float) -> str:
    return (
        f"it runs at {times:.3g} times the peak that was measured for its arithmetic: that peak is no ceiling of the "
        "kernels that ran, as where whole numbers have no unit or an algorithm multiplies less"
    )


def _roofline_share(record: dict[str, Any], value: Value, latency: Reading) -> list[Reading]:
    """Share of the arithmetic or the bandwidth that binds a bare function; nothing where its bytes were not taken."""
    moved = value("io_bytes")
    if moved is None or moved.value is None or latency.value is None:
        return []
    case, ideal = record["case"], value("ideal_ms")
    rate, why = bandwidth_of(
        record.get("machine") or {}, device=str(case.get("device") or "cpu"), threads=case.get("threads")
    )
    if rate is None or ideal is None or ideal.value is None:
        reason = "; ".join(why) or "no peak was measured for its arithmetic"
        return [unavailable("roofline_share", reason)]
    if is_beyond_the_peak(ideal.value, latency.value):
        return [unavailable("roofline_share", _beyond_the_peak(ideal.value / latency.value))]
    bound = max(ideal.value, 1e3 * moved.value / rate)
    below, above = _reach(latency, _peak_reach(record))
    return [
        _reading("roofline_share", 100 * bound / latency.value, below, above, latency.n, "the larger of both bounds")
    ]


def _reading(name: str, percent: float, below: float | None, above: float | None, n: int | None, what: str) -> Reading:
    low, high = (percent * below, percent * above) if below is not None and above is not None else (None, None)
    return reading(
        name,
        percent,
        "modelled",
        ci_low=low,
        ci_high=high,
        n=n,
        method_note=NOTE.format(what=what),
        statistic="from measured latency and measured peak",
    )


def _model_share(value: Value) -> tuple[float | None, str]:
    """Model MACs that the answer needs over executed MACs, or why it is unknown."""
    model = value("macs")
    if model is None or model.value is None:
        return None, "the MACs of the model are not known"
    own, again, needed = value("macs_method"), value("macs_recomputed"), value("needed_share")
    executed = model.value + (own.value or 0.0 if own else 0.0)
    if executed <= 0:
        return None, "it executes no products"
    share = needed.value / 100 if needed and needed.value is not None else 1.0
    return share * (model.value - (again.value or 0.0 if again else 0.0)) / executed, ""


def _reach(latency: Reading, peak: tuple[float, float]) -> tuple[float | None, float | None]:
    """Factors to the interval's ends: log half-widths of latency and peak in squares; None without an interval."""
    if latency.ci_low is None or latency.ci_high is None or latency.value is None or latency.ci_low <= 0:
        return None, None
    longer, shorter = math.log(latency.ci_high / latency.value), math.log(latency.value / latency.ci_low)
    return math.exp(-math.hypot(longer, peak[1])), math.exp(math.hypot(shorter, peak[0]))


def _peak_reach(record: dict[str, Any]) -> tuple[float, float]:
    """Widest log half-widths, below and above, of the peaks of the case's dtypes at its threads; 0 if unknown."""
    case = record["case"]
    used = {dtype_name(row.get("dtype") or "") for row in record.get("layers") or [] if row.get("macs")}
    used |= {dtype_name(case.get("dtype") or "")}
    found = [
        (math.log(entry["value"] / entry["low"]), math.log(entry["high"] / entry["value"]))
        for entry in (record.get("machine") or {}).get("peaks") or []
        if dtype_name(entry.get("dtype", "")) in used
        and entry.get("threads") in (None, case.get("threads"))
        and entry.get("value")
        and entry.get("low")
        and entry.get("high")
    ]
    return max((below for below, _ in found), default=0.0), max((above for _, above in found), default=0.0)
