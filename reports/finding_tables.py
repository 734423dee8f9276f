"""The tables of docs/findings.md, made from results folders: `python -m reports.finding_tables results`.

Prose is written by hand; every number in it stands in these tables. With `--into FILE` the tables take the place of
what stands between the two marks in the file.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.analysis.utilisation import is_beyond_the_peak
from bench.errors import BenchError, UsageError
from bench.metrics import METRICS
from reports import (
    beside_fewer_steps,
    growth,
    hops,
    mean_costs,
    offered,
    predictions,
    promised_bytes,
    repeats,
    scan_share,
    split_ways,
    stages,
    taught,
    zeros,
)
from reports.batches import crossings, panels
from reports.columns import CHANGE
from reports.content import Site
from reports.groups import Group, is_timed
from reports.lengths import courses
from reports.lengths import table as lengths_table
from reports.numbers import decimals, half_width
from reports.own_time import split
from reports.rows import OF_OTHER_NETWORK, Cell, Row, same_network
from reports.scores import scores_of
from reports.sessions import plain_latency
from reports.site import load
from reports.total_bits import budgets, families
from reports.total_bits import table as total_bits_table

START, END = "<!-- tables: made by python -m reports.finding_tables -->", "<!-- end of tables -->"
NO_BOUND = "unavailable (the machine's peaks or the time are not known, or the run goes beyond those peaks)"


def markdown(site: Site) -> str:
    """All tables: per group of equal conditions the gains, why, and accuracies; then those that join groups.

    Groups that were counted alone stand in no table beside timed ones: nothing that the tables say is known of them.
    """
    first = {group.index: site.in_group(group.index)[0].case for group in site.groups}
    timed = [group for group in site.groups if any(map(is_timed, site.in_group(group.index)))]
    ordered = sorted(
        timed or site.groups, key=lambda group: (first[group.index].model, first[group.index].batch, group.title)
    )
    parts = [_of_group(site, group) for group in ordered]
    across = (
        _of_batches(site),
        _of_total_bits(site),
        *(_titled(title, *made(site)) for title, made in ACROSS_GROUPS.items()),
    )
    return "\n\n".join([part for part in (*parts, *across) if part]) + "\n"


def _of_group(site: Site, group: Group) -> str:
    rows = [row for row in site.in_group(group.index) if not row.case.is_baseline and row.ranked]
    rows.sort(key=_by_name)
    left_out = [row for row in site.in_group(group.index) if not row.ranked]
    if not rows and not left_out:
        return ""
    parts = [f"### {', '.join(text for name, text in group.said.items() if name != 'machine' and text)}"]
    if rows and rows[0].case.workload != predictions.WORKLOAD:  # how fast a predictor is stands beside its errors
        parts.append(markdown_table(GAINS, [_gain_line(row, site) for row in rows]))
        parts.append(_why(rows, site))
    whole = [*rows, *(row for row in left_out if row.disturbed and not row.case.is_baseline)]
    whole.sort(key=_by_name)
    for metric in scores_of(whole):  # a busy machine changes no score
        scored = [row for row in whole if row.value(metric) is not None]
        title = METRICS[metric].title
        head = ("case", title if title[1:2].isupper() else title.lower(), "plain", f"change ({_points(metric)})")
        parts.append(markdown_table(head, [_score_line(row, site, metric) for row in scored]))
    if left_out:
        parts.append(
            "Not ranked: "
            + "; ".join(f"{_case(row)} ({row.contaminated or row.reason or row.status})" for row in left_out)
        )
    return "\n\n".join(parts)


#: Columns of what was promised and measured, which `reports.finding_atlas` reads again.
GAINS = ("case", "promised", "measured", "realised", "latency (ms)", "plain (ms)")
_WHY = (
    "case",
    "time in own operators",
    "time saved elsewhere",
    "efficiency, plain",
    "efficiency",
    "by shape",
    "by kernels",
)
#: Places in `_WHY` of what compares module with module.
_OF_MODULES = (1, 2)


def _why(rows: Sequence[Row], site: Site) -> str:
    """Why, line by line; without the columns of modules where every row is beside another network's modules."""
    kept = [
        at
        for at in range(len(_WHY))
        if at not in _OF_MODULES or not all(_is_beside_another(row, site.baseline(row)) for row in rows)
    ]
    return markdown_table(
        [_WHY[at] for at in kept], [[line[at] for at in kept] for line in (_why_line(row, site) for row in rows)]
    )


def _is_beside_another(row: Row, base: Row | None) -> bool:
    return base is not None and not same_network(base, row)


def _points(metric: str) -> str:
    unit = METRICS[metric].unit
    return "points" if unit == "%" else unit


def _case(row: Row) -> str:
    """A case by its model and method, and the side that it is compared with where that is named."""
    return f"{row.name_in_full} (against {row.against})" if row.against else row.name_in_full


def _by_name(row: Row) -> list[tuple[bool, float, str]]:
    """Words before numbers, and numbers by their size: keep_rate=0.5 before keep_rate=0.75, 64 before 1024."""
    parts = re.split(r"(\d+(?:\.\d+)?)", _case(row))
    return [(bool(at % 2), float(part) if at % 2 else 0.0, "" if at % 2 else part) for at, part in enumerate(parts)]


def _gain_line(row: Row, site: Site) -> list[str]:
    """What the operations promise, what was measured, and the measured part of the promise."""
    base = site.baseline(row)
    return [
        _case(row),
        _times(row.cells.get("mac_ratio")),
        _times(row.cells.get("speedup")),
        _plain(row.cells.get("realised_gain")),
        _plain(row.cells.get("latency_ms"), 1),
        _plain(plain_latency(row, base), 1),
    ]


def _why_line(row: Row, site: Site) -> list[str]:
    """Where the rest goes: time in own operators, and what became of the efficiency.

    Efficiency is ideal over measured latency. The case's over the plain network's is the realised part of the promise
    (but for the few operations that the method adds), and splits into a factor of the network's shape (ideal over
    attainable latency) and one of its kernels (attainable over measured latency).
    """
    base = site.baseline(row)
    case, plain = _efficiency(row), _efficiency(base)
    known = case is not None and plain is not None
    shape, kernels = (case[0] / plain[0], case[1] / plain[1]) if known else (None, None)  # type: ignore[index]
    return [
        _case(row),
        _percent(row.cells.get("own_share")),
        _saved(row, base),
        _share(plain),
        _share(case),
        _factor(shape),
        _factor(kernels),
    ]


def _efficiency(row: Row | None) -> tuple[float, float] | None:
    """Ideal over attainable and attainable over measured latency; None where the time or what bounds it is not known.

    A peak that a run goes beyond is no bound of it.
    """
    if row is None:
        return None
    ideal, attainable, latency = (row.value(name) for name in ("ideal_ms", "attainable_ms", "latency_ms"))
    if not ideal or not attainable or not latency or is_beyond_the_peak(ideal, latency):
        return None
    return ideal / attainable, attainable / latency


def _saved(row: Row, base: Row | None) -> str:
    """Layer time that the modules which are not the method's own save, as a share of the plain network's."""
    if _is_beside_another(row, base):
        return f"unavailable ({OF_OTHER_NETWORK})"
    found = split(row.record, base.record) if base is not None else "the baseline is not among the records"
    return f"unavailable ({found})" if isinstance(found, str) else f"{100 * found.saved_ms / found.base_ms:.0f} %"


def _score_line(row: Row, site: Site, metric: str) -> list[str]:
    base = site.baseline(row)
    percent = METRICS[metric].unit == "%"
    places, unit = (1, " %") if percent else (3, "")
    return [
        _case(row),
        _plain(row.cells.get(metric), places, unit),
        _plain(base.cells.get(metric) if base else None, places, unit),
        _plain(row.cells.get(f"{metric}{CHANGE}"), places, sign="+"),
    ]


def _of_batches(site: Site) -> str:
    """From which batch each method pays, where batches were varied."""
    parts = []
    for panel in panels(site.rows):
        head = (panel.title, "promised", *(f"batch {batch}" for batch in panel.batches), "pays")
        lines = [[line.method, line.promised, *line.gains, line.verdict] for line in crossings(panel)]
        parts.append(markdown_table(head, [[cell.replace("×", "x") for cell in line] for line in lines]))
    return "\n\n".join(["### From which batch a method pays", *parts]) if parts else ""


#: Tables over all groups by their titles: each is made of the site, without lines where it has nothing to say.
ACROSS_GROUPS: dict[str, Callable[[Site], tuple[list[str], list[list[str]]]]] = {
    "Beside the plain sampler with fewer steps": beside_fewer_steps.table,
    "From which length a method pays": lambda site: lengths_table(courses(site)),
    "What an input costs, beside paths chosen by lot": lambda site: mean_costs.table(mean_costs.operating_points(site)),
    "How much of what a batch saves arrives as time": mean_costs.batches_table,
    "The scan's share": lambda site: scan_share.table(scan_share.scan_shares(site)),
    "Up to which hop a stream is cheaper than its window": lambda site: hops.table(hops.courses(site)),
    "A request stage by stage": lambda site: stages.table(stages.requests(site)),
    "Requests per second": stages.rates_table,
    "Time in system over the offered load": lambda site: offered.table(offered.courses(site)),
    "Who answers first, by the link's rate and the device": split_ways.winners_table,
    "At which rates a split network answers first": split_ways.break_even_table,
    "Payload against score": split_ways.payload_table,
    "Students beside their teachers and beside the same network trained plainly": taught.table,
    "Entries that repeat between processes": lambda site: repeats.table(repeats.cohorts(site)),
    "Predictors on networks that they have not seen": lambda site: predictions.table(predictions.predictors(site)),
    "Growth with the side of the picture": lambda site: growth.table(growth.growths(site)),
    "What share of the zeros becomes time": lambda site: zeros.table(zeros.lines(site)),
    "Bytes promised, bytes alive, and their price": lambda site: promised_bytes.table(promised_bytes.prices(site)),
}


def _titled(title: str, head: list[str], lines: list[list[str]]) -> str:
    return "\n\n".join([f"### {title}", markdown_table(head, lines)]) if lines else ""


def _of_total_bits(site: Site) -> str:
    """Quality against total bits, where formats were scored through the sizes of a family."""
    found = families(site)
    if not found:
        return ""
    parts = [
        "### Quality against total bits",
        markdown_table(*total_bits_table(found)),
        markdown_table(*budgets(found)),
    ]
    return "\n\n".join(parts)


# ---------------------------------------------------------------------------------------------- text


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _plain(cell: Cell | None, places: int = 2, unit: str = "", sign: str = "") -> str:
    """`0.90 [0.88, 0.91]` with the unit behind the value; more than `places` decimals where it would vanish in them."""
    if cell is None or cell.value is None:
        return f"unavailable ({cell.note})" if cell is not None and cell.note else "unavailable"
    width = half_width(cell.value, cell.low, cell.high)
    if 0 < (width or abs(cell.value)) < 10.0**-places:
        places = max(places, decimals(cell.value, width))
    text = f"{cell.value:{sign}.{places}f}{unit}"
    if cell.low is None or cell.high is None:
        return text
    return f"{text} [{cell.low:{sign}.{places}f}, {cell.high:{sign}.{places}f}]"


def _times(cell: Cell | None) -> str:
    return _plain(cell, 2, "x")


def _percent(cell: Cell | None) -> str:
    return _plain(cell, 1, " %")


def _share(parts: tuple[float, float] | None) -> str:
    return NO_BOUND if parts is None else f"{100 * parts[0] * parts[1]:.0f} %"


def _factor(value: float | None) -> str:
    return NO_BOUND if value is None else f"{value:.2f}x"


# ---------------------------------------------------------------------------------------------- command


def into(path: Path, tables: str) -> None:
    """Put the tables between the marks of a file.

    Raises:
        UsageError: the file cannot be read or does not have both marks, in order.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise UsageError(f'{path}: needs a line "{START}" and, below it, a line "{END}"')
    path.write_text(f"{before}{START}\n\n{tables}\n{END}{after}", encoding="utf-8")


def hand_over(made: Callable[[], str], page: Path | None) -> int:
    """Print what is made, or put it between the marks of a page; the exit code, with a mistake told on stderr."""
    try:
        text = made()
        if page is None:
            print(text, end="")
        else:
            into(page, text)
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of the results folders, or put them into a file; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.finding_tables", description="The tables of a finding as Markdown."
    )
    parser.add_argument("results", nargs="+", type=Path, help="results folders")
    parser.add_argument("--into", type=Path, help="a Markdown file with the two marks, instead of printing")
    options = parser.parse_args(arguments)

    def made() -> str:
        site = load(options.results)
        for problem in site.problems:
            print(problem, file=sys.stderr)
        return markdown(site)

    return hand_over(made, options.into)


if __name__ == "__main__":
    sys.exit(main())
