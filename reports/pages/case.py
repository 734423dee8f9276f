"""The page of one case on one machine: findings, figures, layers, conditions, and how to repeat it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup

from bench.analysis.timings import speedup_of
from bench.config.axes import BY_NAME
from bench.host.identity import machine_class
from bench.metrics import METRICS
from bench.store.records import Record
from reports import commands
from reports.addresses import machine_page, method_page, model_page, slug, suite_page
from reports.case_line import case_line
from reports.columns import Column, column_key, column_of
from reports.content import Site
from reports.figure_sets import of_case
from reports.flags import meaning
from reports.groups import AXES
from reports.manifest import digest_of
from reports.numbers import MISSING, pair, quantity, scale_for
from reports.packing import packed
from reports.pages.brief_case import BriefCases, Fact
from reports.pages.claims import KINDS
from reports.pages.page import Sheet, render
from reports.quoting import Badge, badge, badge_svg, bibtex, cited
from reports.rows import OF_BASELINE, Cell, Row, columns_of
from reports.safe import inert_json
from reports.scores import SCORES
from reports.trace import trace_of
from reports.words import takes

#: Items of a list of details that a page shows.
LONGEST_LIST = 64

#: At the top of the page, with the scores that there are and the workload's own quantities that people ask for first.
_FACTS = (
    "latency_ms", "speedup", "macs", "realised_gain", *SCORES, "time_to_first_token_ms", "time_per_output_token_ms",
    "cache_bytes", "time_per_image_ms", "time_per_step_ms", "state_bytes", "payload_bytes", "total_modelled_ms",
    "peak_memory_bytes", "params", "energy_j",
)  # fmt: skip


def sheets(site: Site) -> Iterable[Sheet]:
    """One sheet per row; it is rebuilt only if its record, its baseline or its standing changed."""
    brief = BriefCases(site)
    links = [link.path for link in site.navigation]
    around = digest_of(site.title, links, [str(root) for root in site.roots], site.show_paths, len(site.suites) > 1)
    for row in site.rows:
        yield Sheet(row.page, _digest(site, row, around), partial(_page, site, row), partial(_brief, site, brief, row))


def _digest(site: Site, row: Row, around: str) -> str:
    return digest_of(
        around,
        site.mark_of(row),
        row.rank,
        row.pareto,
        row.pareto_note,
        site.claims_on(row),
        [other and (other.page, other.name) for other in site.neighbours(row)],
        site.samples_mark(row),
    )


def _brief(site: Site, pages: BriefCases, row: Row) -> str:
    disturbed = commands.retry(site, row.case.suite, [row])
    return pages.page(row, heading(row), facts(row), commands.reproduce(site, row), disturbed, _around(site, row))


def _around(site: Site, row: Row) -> dict[str, str]:
    """The links of a page to what stands around its case, as `places.html.j2` names them; empty where there is none."""
    found = {
        "method_page": "" if row.case.is_baseline or row.by_model else f"../{method_page(row.case.method)}",
        "method": row.case.method,
        "model_page": f"../{model_page(row.case.model)}",
        "network": row.case.model,
        "machine_page": f"../{machine_page(row.machine_key)}",
        "pin": pin_of(row),
    }
    for name, other in zip(("before", "after"), site.neighbours(row), strict=True):
        found |= {name: f"../{other.page}" if other else "", f"{name}_name": other.name if other else ""}
    return found


def _page(site: Site, row: Row) -> str:
    record = row.record
    return render(
        "case.html.j2",
        site,
        row.page,
        row=row,
        base=site.baseline(row),
        heading=heading(row),
        suite_page=suite_page(row.case.suite),
        group=site.groups[row.group],
        facts=facts(row),
        parts_table=parts_table(row),
        workload_facts=flat(record.get("workload") or {}),
        ranks=_ranks(row, site.columns),
        readings=readings(row),
        drawings=of_case(site, row),
        flags=[(flag, meaning(flag)) for flag in record.get("flags") or []],
        conditions=_conditions(row) + _identity(row),
        environment=flat(record.get("environment") or {}),
        machine=machine_class(record.get("environment") or {}),
        processes=process_table(record),
        uncounted=(record.get("counts") or {}).get("uncounted") or [],
        log=_log(record),
        command=commands.reproduce(site, row),
        claims=site.claims_on(row),
        claim_kinds=KINDS,
        retry=commands.retry(site, row.case.suite, [row]),
        line=case_line(row),
        badge=Markup(badge_svg("waterline", _badge(site, row))),
        cited=cited(row, site.groups[row.group]),
        bibtex=bibtex(row, site.groups[row.group]),
        trace=_trace(site, record),
        **_around(site, row),
    )


def _trace(site: Site, record: Record) -> Markup | None:
    """One run as a trace, packed; None where no layer was timed."""
    trace = trace_of(record)
    return None if trace is None else packed(inert_json(trace, hide_paths=not site.show_paths))


def _badge(site: Site, row: Row) -> Badge:
    return badge(row, [str(claim["verdict"]) for claim in site.claims_on(row)])


def pin_of(row: Row) -> str:
    """What names a row in the address of the comparison: its suite's file and the name of its page."""
    return f"{slug(row.case.suite)}:{row.page.removeprefix('cases/').removesuffix('.html')}"


def heading(row: Row) -> tuple[str, str]:
    """What the page is headed with: the case, and the model that a method is on (else empty); long settings are cut."""
    if row.by_model:
        return row.head, ""
    if row.case.is_baseline:
        return " · ".join(filter(None, ["No method", row.apart])), row.model
    return row.head, row.model


def facts(row: Row) -> list[Fact]:
    """The quantities at the top of the page: those with a value, and the first few without."""
    shown = [key for key in _FACTS if key in row.cells and row.cells[key].note != OF_BASELINE]
    return [fact(column_of(key), row.cells[key]) for key in shown]


def readings(row: Row) -> list[Fact]:
    """Every quantity of the row, available or not, a part's behind the whole's."""
    return [fact(column, row.cells[column.key]) for column in columns_of([row])]


#: What is said of every part of a workload side by side.
_OF_PARTS = (
    "latency_ms",
    "speedup",
    "macs",
    "realised_gain",
    *(name for name, metric in METRICS.items() if metric.section == "throughput"),
    "peak_memory_bytes",
    "energy_j",
    "ideal_ms",
    "attainable_ms",
)


def parts_table(row: Row) -> dict[str, Any] | None:
    """The parts of the workload side by side: a line each, the whole run first; None where it has no further ones."""
    if not row.parts:
        return None
    parts = ("", *row.parts)
    shown = [key for key in _OF_PARTS if any(row.value(key, part) is not None for part in parts)]
    rows = [
        [part or f"{row.whole or 'whole run'} (the whole)", *(_of_part(row, key, part) for key in shown)]
        for part in parts
    ]
    return {
        "head": ["Part", *(column_of(key).title for key in shown)],
        "rows": rows,
        "numbers": tuple(range(1, len(shown) + 1)),
    }


def _of_part(row: Row, key: str, part: str) -> str:
    cell = row.cells.get(column_key(key, part))
    if cell is None or cell.value is None:
        return MISSING
    return fact(column_of(column_key(key, part)), cell).value


def _conditions(row: Row) -> list[tuple[str, str]]:
    """Every axis of the case itself, then machine and protocol; a shape axis that its workload has not is left out."""
    found = [("workload", row.case.workload)]
    for axis in AXES:
        known = BY_NAME.get(axis.key)
        if axis.key == "workload" or (axis.key == "resolution" and not takes(row.case, axis.key)):
            continue
        value = axis.read(row) if known is None or not known.condition else getattr(row.case, axis.key)
        if axis.key == "shape":
            found += [(name.replace("_", " "), str(own)) for name, own in row.case.axes.items()]
        else:
            found.append((axis.title, axis.show(value).removeprefix(f"{axis.title} ")))
    if row.case.against:
        found.append(("compared with", row.against or "others are compared with it"))
    return found


def fact(column: Column, cell: Cell) -> Fact:
    """A quantity of a case in words."""
    if cell.value is None:
        return Fact(column.title, MISSING, "", "", cell.note or "no reason was given", column.definition)
    text = quantity(cell.value, column.unit, cell.low, cell.high)
    note = cell.note
    if cell.low is not None and cell.high is not None:
        scale = scale_for([cell.value], column.unit)
        ends = " to ".join(pair(end, None, None, scale.factor) for end in (cell.low, cell.high))
        note = "; ".join(filter(None, [f"95 % interval {ends}" + (f", n = {cell.n}" if cell.n else ""), note]))
    return Fact(column.title, text.removeprefix("(").replace(")", ""), cell.provenance, note, "", column.definition)


def _ranks(row: Row, columns: Sequence[Column]) -> dict[str, str]:
    """Rank intervals by the title of their column: `2` or `2 to 4`."""
    titles = {column.key: column.title for column in columns}
    return {titles[key]: str(a) if a == b else f"{a} to {b}" for key, (a, b) in row.rank.items()}


def _identity(row: Row) -> list[tuple[str, str]]:
    case, record = row.case, row.record
    code = record.get("code") or {}
    pairs = [
        ("model settings", case.model_settings or "as registered"),
        ("method", case.method_label),
        ("seed", str(case.seed)),
        ("checkpoint", case.checkpoint or "none"),
        ("case key", row.case_key),
        ("machine key", row.machine_key),
        ("record", str(record["content_hash"])[:16]),
        ("measured", str(record["started_at"])),
        ("code", " ".join(str(part) for part in (code.get("version"), code.get("commit")) if part)),
        ("why timing stopped", str((record.get("timing") or {}).get("stop_reason") or MISSING)),
    ]
    return pairs


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested plain data as (dotted name, text) pairs; lists of plain items in one line, long ones shortened."""
    if isinstance(value, dict):
        return [line for key, item in value.items() for line in flat(item, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return [line for place, item in enumerate(value) for line in flat(item, f"{name}[{place}]")]
    if isinstance(value, list):
        rest = len(value) - LONGEST_LIST
        text = " ".join(str(item) for item in value[:LONGEST_LIST]) or MISSING
        return [(name, f"{text} and {rest} more in the record" if rest > 0 else text)]
    return [(name, MISSING if value is None else str(value))]


def process_table(record: Record) -> dict[str, Any]:
    """The timed processes as a table: `head`, lines of text, number columns; a GPU's columns only if it has any."""
    runs = (record.get("timing") or {}).get("invocations") or []
    columns = _PROCESS + (_ON_DEVICE if any(run.get("device_median_ms") for run in runs) else ())
    columns += _BOARD if any(run.get("gpu") for run in runs) else ()
    head = [*(title for title, _ in columns), "Settled", "Labels"]
    rows = [[*(show(run) for _, show in columns), *_judgements(run)] for run in runs]
    return {"head": head, "rows": rows, "numbers": tuple(range(1, len(columns)))}


def _judgements(run: dict[str, Any]) -> list[str]:
    labels = [*(["set aside"] if run.get("set_aside") else []), *(str(label) for label in run.get("labels") or [])]
    settled = run.get("steady_state")
    return [MISSING if settled is None else "yes" if settled else "no", "; ".join(labels) or MISSING]


def _board(run: dict[str, Any], name: str) -> float | None:
    """The median over rounds of what the board said, where it said it."""
    return ((run.get("gpu") or {}).get(name) or {}).get("median")


def _number(value: float | None, digits: int) -> str:
    return MISSING if not value else f"{value:#.{digits}g}".rstrip(".")


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{share * 100:.1f} %"


def _log(record: Record) -> str:
    tail = (record.get("error") or {}).get("log_tail") or ""
    return tail if isinstance(tail, str) else json.dumps(tail)


_Column = tuple[str, Callable[[dict[str, Any]], str]]

_PROCESS: tuple[_Column, ...] = (
    ("Process", lambda run: str(run["index"] + 1)),
    ("Median (ms)", lambda run: _number(run.get("median_ms"), 4)),
    ("Speed-up (×)", lambda run: _number(speedup_of(run), 4)),
    ("Reference GEMM (ms)", lambda run: _number(run.get("gemm_median_ms"), 4)),
    ("Samples", lambda run: str(run.get("n") or MISSING)),
    ("IQR / median", lambda run: _percent(run.get("iqr_over_median"))),
    ("Outliers", lambda run: _percent(run.get("outlier_share"))),
)
_ON_DEVICE: tuple[_Column, ...] = (
    ("Median by device events (ms)", lambda run: _number(run.get("device_median_ms"), 4)),
)
_BOARD: tuple[_Column, ...] = (
    ("SM clock (MHz)", lambda run: _number(_board(run, "sm_mhz"), 4)),
    ("Power (W)", lambda run: _number(_board(run, "power_w"), 3)),
    ("Temperature (°C)", lambda run: _number(_board(run, "temperature_c"), 3)),
)
