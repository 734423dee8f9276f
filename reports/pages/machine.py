"""The page of a machine: what it could do, how noisy it was, and what could not be measured on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from bench.metrics import METRICS
from bench.words import plural
from reports import layer_kinds
from reports.addresses import machine_page
from reports.content import Site
from reports.figure_sets import guarded
from reports.figures import machine_roofline
from reports.groups import machine_line, machine_title
from reports.manifest import digest_of
from reports.numbers import plain, quantity
from reports.pages.case import flat
from reports.pages.page import Sheet, render
from reports.rows import Row


def sheets(site: Site) -> Iterable[Sheet]:
    """One sheet per machine."""
    found: dict[str, list[Row]] = {}
    for row in site.rows:
        found.setdefault(row.machine_key, []).append(row)
    for key, rows in sorted(found.items()):
        yield Sheet(machine_page(key), _digest(site, rows), partial(_page, site, key, rows))


def _digest(site: Site, rows: Sequence[Row]) -> str:
    return digest_of([site.mark_of(row) for row in rows], site.title, [link.path for link in site.navigation])


def _page(site: Site, key: str, rows: Sequence[Row]) -> str:
    here = machine_page(key)
    newest = max(rows, key=lambda row: str(row.record["started_at"]))
    networks = machine_roofline.dots(rows)
    drawing = None
    if networks:
        drawing = guarded(machine_roofline.ID, here, site, lambda: machine_roofline.figure(rows))
    reached = {name: _entries(rows, name) for name in ("peaks", "bandwidth")}
    return render(
        "machine.html.j2",
        site,
        here,
        key=key,
        headline=_headline(newest, rows, reached),
        line=machine_line(newest.record),
        drawing=drawing,
        peaks=peaks(reached),
        noise=_noise(site, rows),
        kinds=layer_kinds.table(rows),
        kinds_head=layer_kinds.HEAD,
        kinds_numbers=layer_kinds.NUMBERS,
        kinds_left_out=layer_kinds.left_out(rows),
        missing=never_measured(rows),
        environment=flat(newest.record.get("environment") or {}),
        measured=newest.record["started_at"],
    )


#: The calibrated values of a machine, of its `peaks` and `bandwidth`.
Reached = dict[str, list[dict[str, Any]]]


def _headline(newest: Row, rows: Sequence[Row], reached: Reached) -> str:
    """What it is, and its best measured peak and bandwidth."""
    name = machine_title(newest.record)
    best = max(reached["peaks"], key=lambda entry: entry["value"], default=None)
    bandwidth = max(reached["bandwidth"], key=lambda entry: entry["value"], default=None)
    parts = [f"{quantity(best['value'], 'op/s')} in {best.get('dtype')}"] if best else []
    parts += [f"{quantity(bandwidth['value'], 'B/s')} from memory"] if bandwidth else []
    if not parts:
        return f"{name}: {plural(len(rows), 'row')}, its peaks are not measured"
    return f"{name} reached {' and '.join(parts)}"


def _entries(rows: Sequence[Row], name: str) -> list[dict[str, Any]]:
    """The calibrated values of a machine: of several of one kind the one of the newest record."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: str(row.record["started_at"])):
        listed = (row.record.get("machine") or {}).get(name) or []
        for entry in [listed] if isinstance(listed, dict) else listed:
            if entry.get("value"):
                found[tuple(str(entry.get(part)) for part in ("dtype", "threads", "device", "unit"))] = entry
    return list(found.values())


def peaks(reached: Reached) -> list[tuple[str, str, str, str]]:
    """Measured peaks and bandwidths: what, on how many threads, value, interval."""
    lines = []
    for name, what in (("peaks", "products in {dtype}"), ("bandwidth", "memory")):
        for entry in sorted(reached[name], key=lambda entry: (str(entry.get("dtype")), str(entry.get("threads")))):
            unit = str(entry.get("unit", ""))
            ends = [quantity(entry[end], unit) for end in ("low", "high") if entry.get(end)]
            lines.append(
                (
                    what.format(dtype=entry.get("dtype", "")),
                    str(entry.get("threads") or "any"),
                    quantity(entry["value"], unit),
                    " to ".join(ends),
                )
            )
    return lines


def _noise(site: Site, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """How far identical networks differed, by suite: the widest of its groups."""
    own = {row.group for row in rows}
    found: dict[str, float] = {}
    for group in site.groups:
        if group.index in own and group.noise_floor:
            low, high = group.noise_floor
            found[group.suite] = max(found.get(group.suite, 0.0), high - 1, 1 - low)
    return [(site.of_suite(suite).title, f"±{plain(100 * width, 1)} %") for suite, width in sorted(found.items())]


def never_measured(rows: Sequence[Row]) -> list[tuple[str, str, int]]:
    """Quantities that no row of the machine has, though some asked for them: title, the usual reason, how many rows."""
    reasons: dict[str, dict[str, int]] = {}
    known: set[str] = set()
    for row in rows:
        for name, cell in row.cells.items():
            if name not in METRICS:
                continue
            if cell.value is not None:
                known.add(name)
            elif row.status == "ok":
                told = reasons.setdefault(name, {})
                told[cell.note] = told.get(cell.note, 0) + 1
    lines = []
    for name in reasons.keys() - known:
        note, _ = max(reasons[name].items(), key=lambda item: item[1])
        lines.append((METRICS[name].title, note or "no reason was recorded", sum(reasons[name].values())))
    return sorted(lines, key=lambda line: (-line[2], line[0]))
