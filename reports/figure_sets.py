"""Which figures stand where, and what each needs: on the first page per group, and on the page of a case.

A figure is left out where the rows lack what it declares. One that cannot be made says why in its place and in the list
of problems; it never takes the page with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.errors import ResultsError
from bench.store.records import Record, read_json
from reports.batches import LATENCY, panels
from reports.content import Site
from reports.drawing import Drawing, draw, together
from reports.figures import (
    batch_gain,
    bits,
    cache_bits,
    companions,
    curves,
    gap,
    hops,
    layer_savings,
    length_gain,
    link_map,
    live_bytes,
    memory,
    noise,
    offered_load,
    operators,
    pareto,
    predictions,
    predictors,
    questions,
    rate_distortion,
    repeats,
    request_stages,
    roofline,
    routing,
    savings,
    scaling,
    scan_share,
    source_map,
    taught,
    time_split,
    total_bits,
    tradeoff,
    waiting,
    waterline,
    zeros,
)
from reports.figures.figure import Figure, no_picture
from reports.figures.theme import Style
from reports.groups import Group
from reports.hops import courses as stream_courses
from reports.lengths import courses
from reports.needs import ANY_CASE, CaseNeeds, Needs
from reports.offered import courses as offered_courses
from reports.predictions import predictors as judged_predictors
from reports.repeats import cohorts
from reports.rows import Row, as_row_of, part_of_record
from reports.scan_share import scan_shares
from reports.split_ways import payload_points, ways_by_network
from reports.stages import requests as timed_requests
from reports.total_bits import families
from reports.waits import of_site
from reports.zeros import lines as zero_lines

#: What a figure can stumble over in a malformed record; anything else is a defect and is not hidden.
_MALFORMED = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    ZeroDivisionError,
    OverflowError,
    ResultsError,
)

#: Rows of one group that are drawn, and rows of all groups together: the first page stays quick to make and to open.
ROWS, ALL_ROWS = 120, 360
#: Further parts that have figures of their own on the first page; a pipeline may have a dozen stages.
MOST_PARTS = 5


@dataclass(frozen=True)
class GroupFigure:
    """A figure of comparable rows: how it is made, what the rows must have, whether each part of a run has its own."""

    id: str
    make: Callable[..., Figure]
    needs: Needs
    per_part: bool = False


@dataclass(frozen=True)
class CaseFigure:
    """A figure of a case: how it is made of the row and its other side, and what they must have."""

    id: str
    make: Callable[[Site, Row, Row | None], Figure]
    needs: CaseNeeds = ANY_CASE


#: The figures of a group in the order of the page.
GROUP_FIGURES: tuple[GroupFigure, ...] = (
    GroupFigure(savings.ID, savings.figure, Needs(("speedup", "mac_ratio"), compared=True)),
    GroupFigure(bits.ID, bits.figure, Needs(("bits_ratio", "size_ratio"), compared=True)),
    GroupFigure(cache_bits.ID, cache_bits.figure, Needs(further=cache_bits.wanted)),
    GroupFigure(memory.ID, memory.figure, Needs(rows=2, compared=True, further=memory.wanted)),
    GroupFigure(gap.ID, gap.figure, Needs(("latency_ms",), rows=2), per_part=True),
    GroupFigure(taught.ID, taught.figure, Needs(rows=2, further=taught.wanted)),
    GroupFigure(companions.ID, companions.figure, Needs(rows=3, further=companions.wanted)),
    GroupFigure(routing.ID, routing.figure, Needs(rows=3, further=routing.wanted)),
    GroupFigure(questions.ID, questions.figure, Needs(rows=2, further=questions.wanted)),
    GroupFigure(pareto.ID, pareto.figure, Needs(rows=2, further=lambda rows: bool(pareto.pairs(rows)))),
    GroupFigure(tradeoff.ID, tradeoff.figure, Needs(("mac_ratio",), compared=True), per_part=True),
    GroupFigure(
        predictors.ID, predictors.figure, Needs(("latency_ms",), rows=predictors.LEAST, further=predictors.wanted)
    ),
)


def _record(row: Row | None) -> Record | None:
    return None if row is None else row.record


def _curves(site: Site, row: Row, base: Row | None) -> Figure:
    del site
    if base is None:
        return curves.figure(row.record)
    return curves.figure(row.record, base.record, other_name=base.name)


_SAME = CaseNeeds(same_network=True)
#: The figures of a case in the order of the page; those of layers follow for each further part of its workload.
CASE_FIGURES: tuple[CaseFigure, ...] = (
    CaseFigure("waterline", lambda site, row, base: waterline.figure(row.record)),
    CaseFigure(roofline.ID, lambda site, row, base: roofline.figure(row.record), CaseNeeds("layers")),
    CaseFigure("time-split", lambda site, row, base: time_split.figure(row.record, _record(base)), _SAME),
    CaseFigure("layers", lambda site, row, base: layer_savings.figure(row.record, _record(base)), _SAME),
    CaseFigure(live_bytes.ID, lambda site, row, base: live_bytes.figure(row.record), CaseNeeds("memory.course")),
    CaseFigure(curves.ID, _curves, CaseNeeds("curves")),
    CaseFigure("source-map", lambda site, row, base: source_map.figure(row.record), CaseNeeds("picture")),
    CaseFigure(
        "noise",
        lambda site, row, base: noise.figure(row.record, samples_of(row.record, site.roots)),
        CaseNeeds("timing.invocations"),
    ),
)


@dataclass(frozen=True)
class JoinedFigure:
    """A figure of rows of several groups: what of the site it is made of, nothing where it has none, and how."""

    id: str
    of: Callable[[Site], Sequence[Any]]
    make: Callable[[Any, Mapping[str, Style]], Figure]


#: Figures that join groups, in the order of the page.
JOINED_FIGURES: tuple[JoinedFigure, ...] = (
    JoinedFigure(request_stages.ID, timed_requests, lambda found, styles: request_stages.figure(found)),
    JoinedFigure(offered_load.ID, offered_courses, lambda found, styles: offered_load.figure(found)),
    JoinedFigure(hops.ID, stream_courses, lambda found, styles: hops.figure(found, styles=styles)),
    JoinedFigure(predictions.ID, judged_predictors, lambda found, styles: predictions.figure(found)),
    JoinedFigure(repeats.ID, cohorts, lambda found, styles: repeats.figure(found)),
    JoinedFigure(scan_share.ID, scan_shares, lambda found, styles: scan_share.figure(found)),
    JoinedFigure(total_bits.ID, families, lambda found, styles: total_bits.figure(found)),
    JoinedFigure(zeros.ID, zero_lines, lambda found, styles: zeros.figure(found)),
)


@dataclass(frozen=True)
class GroupFigures:
    """The figures of one group of comparable rows; `left_out` rows are not drawn because there are too many."""

    group: Group
    drawings: tuple[Drawing, ...]
    left_out: int


def of_groups(site: Site, styles: Mapping[str, Style]) -> list[GroupFigures]:
    """The figures of the groups that have at least two ranked rows."""
    found, left = [], ALL_ROWS
    for place, group in enumerate(site.groups):
        rows = [row for row in site.in_group(group.index) if row.ranked]
        if len(rows) < 2 or left <= 0:
            continue
        shown = _most_informative(rows)
        drawings = [_of_group(each, shown, place, site, styles) for each in GROUP_FIGURES if each.needs.met(shown)]
        drawings += [
            drawing for part in _common_parts(shown) for drawing in _of_group_part(part, shown, place, site, styles)
        ]
        found.append(GroupFigures(group, tuple(drawings), len(rows) - len(shown)))
        left -= len(shown)
    return found


def of_case(site: Site, row: Row) -> list[Drawing]:
    """The figures of one case."""
    if row.status != "ok" and not row.record.get("layers"):
        return []
    base = site.baseline(row)
    found = [
        guarded(each.id, row.page, site, partial(each.make, site, row, base))
        for each in CASE_FIGURES
        if each.needs.met(row, base)
    ]
    return together([*found, *(drawing for part in row.parts for drawing in _of_part(site, row, base, part))])


def _of_part(site: Site, row: Row, base: Row | None, part: str) -> Iterable[Drawing]:
    """The figures of the layers of a further part of the workload, as of a whole run; none where it has no layers."""
    record = part_of_record(row, part)
    if not record["layers"]:
        return
    slug = _slug(part)
    id = f"waterline-{slug}"
    yield guarded(id, row.page, site, lambda: waterline.figure(record, part=part, id=id))
    if base is not None and _SAME.met(row, base) and part in base.parts:
        other = part_of_record(base, part)
        for name, make in (("time-split", time_split.figure), ("saved-per-block", layer_savings.figure)):
            own = f"{name}-{slug}"
            yield guarded(own, row.page, site, partial(make, record, other, part=part, id=own))


def across(site: Site, styles: Mapping[str, Style]) -> list[Drawing]:
    """Figures of a suite that join groups in which a number of the shape was varied."""
    rows = [row for row in site.rows if row.ranked]
    bare = [row for row in site.rows if row.case.workload == "operator"]
    functions = []
    if operators.wanted(bare):
        functions = [guarded("operators", site.here, site, lambda: operators.figure(bare, styles=styles))]
    functions = [*_of_splits(site, styles), *_joined(site, styles), *functions]
    if not scaling.varied(rows):
        return functions
    scaled = guarded("scaling", site.here, site, lambda: scaling.figure(_most_informative(rows), styles=styles))
    found = [scaled] if scaled.reason != scaling.NOTHING else []
    over_length = courses(site)
    if over_length:
        make = partial(length_gain.figure, over_length, styles=styles)
        found.insert(0, guarded(length_gain.ID, site.here, site, make))
    waited = of_site(site)
    if waited:
        found.insert(0, guarded(waiting.ID, site.here, site, partial(waiting.figure, waited, styles=styles)))
    if panels(site.rows, (LATENCY,)):
        found.insert(0, guarded("batch-gain", site.here, site, lambda: batch_gain.figure(site.rows, styles=styles)))
    return functions + found


def _joined(site: Site, styles: Mapping[str, Style]) -> list[Drawing]:
    """Those of `JOINED_FIGURES` that the site has something for."""
    drawings = []
    for each in JOINED_FIGURES:
        found = each.of(site)
        if found:
            drawings.append(guarded(each.id, site.here, site, partial(each.make, found, styles)))
    return drawings


def _of_splits(site: Site, styles: Mapping[str, Style]) -> list[Drawing]:
    """Figures of networks that are cut in two: the quickest way at each link, and payload against score."""
    ways, points = ways_by_network(site), payload_points(site)
    found = []
    if ways:
        found.append(guarded(link_map.ID, site.here, site, lambda: link_map.figure(ways)))
    if points:
        make = partial(rate_distortion.figure, points, styles=styles)
        found.append(guarded(rate_distortion.ID, site.here, site, make))
    return found


def samples_of(record: Record, roots: Sequence[Path]) -> dict[str, Any]:
    """The raw samples files that the record names, by name, from whichever results folder has them."""
    found = {}
    for run in (record.get("timing") or {}).get("invocations") or []:
        name = str(run.get("samples_file") or "")
        for root in roots:
            path = (root / name).resolve()
            if name and path.is_relative_to(root.resolve()) and path.is_file():
                found[name] = read_json(path)
                break
    return found


def guarded(id: str, where: str, site: Site, make: Callable[[], Figure]) -> Drawing:
    """The figure, or its place with the reason why it could not be made."""
    try:
        return draw(make(), show_paths=site.show_paths)
    except _MALFORMED as error:
        reason = f"the figure {id} could not be made from these records ({type(error).__name__}: {error})"
        site.problems.append(f"{where}: {reason}")
        return draw(no_picture(id, f"No {id} figure", "Nothing is drawn; the reason is given above.", reason))


def _of_group(each: GroupFigure, rows: list[Row], place: int, site: Site, styles: Mapping[str, Style]) -> Drawing:
    id = f"{each.id}-{place}" if place else each.id
    return guarded(id, site.here, site, lambda: each.make(rows, styles=styles, id=id))


def _common_parts(rows: Sequence[Row]) -> list[str]:
    """The further parts that all rows have, as many as are drawn."""
    return [part for part in rows[0].parts if all(part in row.parts for row in rows)][:MOST_PARTS]


def _of_group_part(
    part: str, rows: list[Row], place: int, site: Site, styles: Mapping[str, Style]
) -> Iterable[Drawing]:
    """The figures of one further part of the rows of a group, where they have what is needed."""
    own = [as_row_of(row, part) for row in rows]
    for each in GROUP_FIGURES:
        if not each.per_part or not each.needs.met(own):
            continue
        id = "-".join(filter(None, [each.id, str(place or ""), _slug(part)]))

        def make(each: GroupFigure = each, id: str = id) -> Figure:
            drawn = each.make(own, styles=styles, id=id)
            return replace(drawn, title=f"{part}: {drawn.title[:1].lower()}{drawn.title[1:]}")

        yield guarded(id, site.here, site, make)


def _slug(part: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") or "part"


def _most_informative(rows: list[Row]) -> list[Row]:
    """At most `ROWS` rows: those on or near the front first, then the others in the order of the table."""
    if len(rows) <= ROWS:
        return rows
    order = {"front": 0, "plausible": 1}
    kept = {id(row) for row in sorted(rows, key=lambda row: order.get(row.pareto, 2))[:ROWS]}
    return [row for row in rows if id(row) in kept]
