"""Savings across machines as tables: a row per method and place, and frames of pairs of places and of flips."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.analysis.portability import Delivered, Flip, MethodOver, Pair, Portability
from bench.statistics import Summary

COLUMNS = ("suite", "method", "place", "device", "machines", "cases", "faster", "slower", "speedup", "speedup_low",
           "speedup_high", "realised_gain", "realised_gain_low", "realised_gain_high", "verdict", "reason")  # fmt: skip
PAIRS = ("suite", "a", "b", "cases", "rank_correlation", "low", "high", "gain_on_both", "lose_on_both", "flips", "open",
         "differs", "reason")  # fmt: skip
FLIPS = ("suite", "case", "gains_on", "speedup_there", "there_low", "there_high", "loses_on", "speedup_here",
         "here_low", "here_high")  # fmt: skip


def frame(found: Portability) -> pd.DataFrame:
    """The methods, with the pairs, the flips and the reason for none in its `attrs`."""
    lines = [line for method in found.methods for line in _method(method, found)]
    made = pd.DataFrame(lines, columns=list(COLUMNS))
    made.attrs["pairs"] = pd.DataFrame([_pair(pair, found) for pair in found.pairs], columns=list(PAIRS))
    made.attrs["flips"] = pd.DataFrame([_flip(flip, found) for flip in found.flips], columns=list(FLIPS))
    made.attrs["reason"] = found.reason
    return made


def _method(method: MethodOver, found: Portability) -> list[dict[str, Any]]:
    head = {"suite": method.suite, "method": method.method, "verdict": method.verdict}
    if not method.delivered:
        return [{**head, "reason": method.reason}]
    return [{**head, **_delivered(one, found)} for one in method.delivered]


def _delivered(one: Delivered, found: Portability) -> dict[str, Any]:
    place = found.places[one.place]
    return {
        "place": place.title,
        "device": place.device,
        "machines": len(place.machines),
        "cases": one.rows,
        "faster": one.faster,
        "slower": one.slower,
        **_ends("speedup", one.speedup),
        **_ends("realised_gain", one.gain),
        "reason": "; ".join(dict.fromkeys(filter(None, [one.speedup.reason, one.gain.reason]))),
    }


def _ends(name: str, summary: Summary) -> dict[str, Any]:
    if summary.interval is None:
        return {}
    return {name: summary.interval.value, f"{name}_low": summary.interval.low, f"{name}_high": summary.interval.high}


def _pair(pair: Pair, found: Portability) -> dict[str, Any]:
    return {
        "suite": pair.suite,
        "a": found.places[pair.a].title,
        "b": found.places[pair.b].title,
        "cases": pair.rows,
        "rank_correlation": pair.correlation.value,
        "low": pair.correlation.low,
        "high": pair.correlation.high,
        "gain_on_both": pair.gain,
        "lose_on_both": pair.lose,
        "flips": len(pair.flips),
        "open": pair.open,
        "differs": ", ".join(f"{name} {a} / {b}" for name, a, b in pair.differs),
        "reason": pair.correlation.reason,
    }


def _flip(flip: Flip, found: Portability) -> dict[str, Any]:
    there, here = flip.gains.speedup, flip.loses.speedup
    return {
        "suite": flip.gains.case.suite,
        "case": flip.gains.case.label,
        "gains_on": found.places[flip.gains.place].title,
        "speedup_there": there.value,
        "there_low": there.low,
        "there_high": there.high,
        "loses_on": found.places[flip.loses.place].title,
        "speedup_here": here.value,
        "here_low": here.low,
        "here_high": here.high,
    }
