"""Numbers as people read them: the digits that an interval allows, engineering prefixes, and '—' with a reason.

One rule for the whole site: the half-width of the interval is given with two significant digits when it starts with 1
or 2, else with one, and the value with as many decimals. A counted value without an interval gets three significant
digits; the exact number is always in the hover text and in the exports.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

MISSING = "—"

_PREFIXES = ((1e-9, "n"), (1e-6, "µ"), (1e-3, "m"), (1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"))
_FACTORS = [factor for factor, _ in _PREFIXES]
_PLURAL = {
    "MAC": "MACs",
    "op": "ops",
    "parameter": "params",
    "bitop": "bit ops",
    "sample/s": "samples/s",
    "pp": "points",
}
#: The unit of shares, correlations and scores that have none: 0.849 and never 849 m.
NO_UNIT = "1"
#: Units that take no prefix, because people read them as they are; `pp` are percentage points.
_UNSCALED = frozenset(
    [
        "ms",
        "us",
        "cost",
        "network",
        "entry",
        "x",
        "%",
        "pp",
        "px",
        "deg",
        "nat",
        "core",
        "dB",
        "bit",
        "bit/B",
        "bit/parameter",
        "bit/token",
        "op/B",
        "sample/s",
        "1/min",
    ]
)


@dataclass(frozen=True)
class Scale:
    """How a column is shown: divide by `factor`, write `unit` in the header."""

    factor: float
    unit: str


_KEPT = {unit: Scale(1.0, _PLURAL.get(unit, "×" if unit == "x" else unit)) for unit in _UNSCALED}
_KEPT[NO_UNIT] = Scale(1.0, "")


def scale_for(values: Iterable[float], unit: str) -> Scale:
    """The engineering prefix that suits the middle of `values`; milliseconds, ratios and percentages keep theirs."""
    kept = _KEPT.get(unit)
    if kept is not None:
        return kept
    sizes = sorted(abs(value) for value in values if value)
    middle = sizes[len(sizes) // 2] if sizes else 1.0
    return _prefixed(unit, max(0, bisect_right(_FACTORS, middle) - 1))


@cache
def _prefixed(unit: str, place: int) -> Scale:
    """A unit with one of the prefixes."""
    factor, prefix = _PREFIXES[place]
    name = _PLURAL.get(unit, unit)
    return Scale(factor, f"{prefix} {name}".strip() if " " in name or name == "params" else f"{prefix}{name}")


def titled(title: str, unit: str) -> str:
    """`Peak memory (MB)`; the title alone of what has no unit."""
    return f"{title} ({unit})" if unit else title


def decimals(value: float, half_width: float | None) -> int:
    """Decimals that the half-width of the interval allows; without an interval, three significant digits."""
    if half_width is None:
        return _clamp(2 - _magnitude(value)) if value else 0
    if half_width <= 0:
        return _clamp(2 - _magnitude(value)) if value else 0
    place = _magnitude(half_width)
    leading = half_width / 10.0**place
    digits = 1 if leading < 2.95 else 0
    return _clamp(digits - place)


def half_width(value: float, low: float | None, high: float | None) -> float | None:
    """The larger side of an interval, or None where there is none."""
    if low is None or high is None:
        return None
    return max(value - low, high - value, 0.0)


def short(value: float | None) -> float | int | None:
    """Eight significant digits: more than an interval allows, fewer bytes than a double; a whole number as one."""
    if value is None:
        return None
    cut = float(f"{value:.8g}")
    return int(cut) if cut.is_integer() and abs(cut) < 1e15 else cut


def plain(value: float, places: int) -> str:
    """A number with a fixed count of decimals, thin spaces between thousands and a true minus sign."""
    text = f"{value:,.{places}f}".replace(",", "\u202f")
    if text[0] != "-":
        return text
    digits = text[1:]
    return f"\u2212{digits}" if digits.strip("0.\u202f") else digits  # there is no -0.00


def pair(value: float, low: float | None, high: float | None, factor: float = 1.0) -> str:
    """`40.1 ± 1.2`: value and half-width in the column's unit, with the digits that the interval allows."""
    width = half_width(value, low, high)
    places = decimals(value / factor, None if width is None else width / factor)
    text = plain(value / factor, places)
    return text if not width else f"{text} ± {plain(width / factor, places)}"


def quantity(value: float | None, unit: str, low: float | None = None, high: float | None = None) -> str:
    """A single value with prefix and unit for running text: `4.60 GMACs`, `130 ± 4 ms`, `31.0 MB`."""
    if value is None:
        return MISSING
    scale = scale_for([value], unit)
    glue = "" if scale.unit in ("×", "%", "") else "\u00a0"
    text = pair(value, low, high, scale.factor)
    return f"({text}){glue}{scale.unit}" if "±" in text and scale.unit and not glue else f"{text}{glue}{scale.unit}"


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value)) + 1e-12)


def _clamp(places: int) -> int:
    return 0 if places < 0 else 9 if places > 9 else places
