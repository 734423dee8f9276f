"""Which cases of two sets of records are one case, and which of its sessions stand against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.analysis.timings import unshared
from bench.config.axes import AXES, SOURCES
from bench.config.protocol import protocol_key
from bench.plan.case import Case
from bench.store.records import Record

#: The axis of the weights, in which two commits of one case may differ only where no side has two sets of them.
WEIGHTS = "checkpoint"
#: The axes that make a case what it is, whatever code and data stand behind it.
_LASTING = tuple(axis.name for axis in AXES if axis.identity and axis.name not in SOURCES)


def match(
    a: Sequence[Record], b: Sequence[Record]
) -> tuple[list[tuple[list[Record], list[Record]]], list[str], list[str]]:
    """Pairs of (sessions of a case in a, in b), oldest session first, and labels of cases that only one side has.

    The same machine on both sides is preferred; otherwise a case matches across machines if each side has it on one.
    """
    weights_matter = _collides(a) or _collides(b)
    left, right = (_by_identity(side, weights_matter) for side in (a, b))
    if len(left) == len(right) == 1:
        return [_sessions(next(iter(left.values())), next(iter(right.values())))], [], []
    pairs = {key: _sessions(left[key], right[key]) for key in left if key in right}
    rest_a, rest_b = ({k[0]: k for k in side if k not in pairs} for side in (left, right))
    single_a, single_b = (_seen_once(side, pairs) for side in (left, right))
    for identity in [name for name in rest_a if name in rest_b and name in single_a and name in single_b]:
        pairs[rest_a[identity]] = _sessions(left[rest_a[identity]], right[rest_b[identity]])
        del rest_a[identity], rest_b[identity]
    only_a, only_b = (
        [label(side[key][-1]) for key in rest.values()] for side, rest in ((left, rest_a), (right, rest_b))
    )
    return list(pairs.values()), only_a, only_b


def identity(record: Record, weights_matter: bool = False) -> str:
    """What makes a case the case that it is, whatever code and (unless they matter) weights stand behind it."""
    case = record["case"]
    return repr([case.get(name) for name in (*_LASTING, *([WEIGHTS] if weights_matter else []))])


def _collides(records: Sequence[Record]) -> bool:
    """Whether two cases of one side differ in nothing but their weights."""
    seen: dict[str, set[Any]] = {}
    for record in records:
        seen.setdefault(identity(record, False), set()).add(record["case"].get(WEIGHTS))
    return any(len(weights) > 1 for weights in seen.values())


def _by_identity(records: Sequence[Record], weights_matter: bool) -> dict[tuple[str, str], list[Record]]:
    """All records of each case on each machine, whatever version and protocol, oldest first."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=lambda r: str(r["started_at"])):
        groups.setdefault((identity(record, weights_matter), record["machine_key"]), []).append(record)
    return groups


def _sessions(a: list[Record], b: list[Record]) -> tuple[list[Record], list[Record]]:
    """The sessions to compare of a case that both sides have, under b's newest protocol among those that both have."""
    common = {protocol_key(record) for record in a} & {protocol_key(record) for record in b}
    if common:
        chosen = next(key for record in reversed(b) if (key := protocol_key(record)) in common)
        a, b = ([record for record in side if protocol_key(record) == chosen] for side in (a, b))
    before, after = _newest(a), _newest(b)
    return before, [unshared(record, before) for record in after]


def _newest(side: list[Record]) -> list[Record]:
    """The sessions of the newest version; disturbed or interrupted ones only where there is no complete one."""
    own = [record for record in side if record["case_key"] == side[-1]["case_key"]]
    whole = [record for record in own if record["status"] == "ok"]
    if whole and own[-1]["status"] in ("contaminated", "interrupted"):
        return whole
    return [*(record for record in whole if record is not own[-1]), own[-1]]


def _seen_once(side: Mapping[tuple[str, str], Any], taken: Mapping[tuple[str, str], Any]) -> set[str]:
    names = [key[0] for key in side if key not in taken]
    return {name for name in names if names.count(name) == 1}


def label(record: Record) -> str:
    """The name of a record's case."""
    return Case.from_dict(record["case"]).label
