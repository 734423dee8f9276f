"""What arrives of what was promised, over the findings of all suites: `python -m reports.finding_atlas`.

Made from the tables that stand in the pages under docs/findings, so that every number of the atlas is the number of a
page, with its conditions and the command that measures it. Only rows that promise to save take part: their
multiply-accumulates are at least a twentieth fewer than those of their other side. Rows whose execution claims no speed
(rounded values in floats) take no part: their time is that of the imitation. Times of two suites are never set side by
side; medians of ratios are.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median, quantiles

from bench.errors import UsageError
from reports.finding_families import family, kernel
from reports.finding_line import Line
from reports.finding_picture import picture
from reports.finding_tables import GAINS, hand_over, markdown_table

FOLDER = Path("docs/findings")
#: The page of the first suite stands beside the folder of the others.
FIRST = ("vit_tokens", Path("docs/findings.md"))
#: The least promise that is one.
PROMISE = 1.05
#: Pages whose tables compare something else than a network with what takes its place.
LEFT_OUT = {"atlas": "is made of the others", "predict": "compares predictors and parts of a table"}
#: Controls, which no paper promises: a part taken away to show its share, chance or even places in place of a choice,
#: fewer steps of the plain sampler, one way for everybody, the same network taught by nobody.
CONTROLS = re.compile(
    r"scan='identity'|\bexit=|taught=False|\b(?:fewer_steps|random|uniform|alone|truncated|vertex_mlp|production_mlp)\b"
)
#: How a table's heading says that its rows' execution imitates what is promised.
IMITATED = "claims no speed"
#: Cases that are named one by one, and how many of a suite.
MOST, OF_A_SUITE = 8, 2
_RATIO = re.compile(r"^(\d+(?:\.\d+)?)x(?: \[(\d+(?:\.\d+)?), (\d+(?:\.\d+)?)\])?$")


def lines_of(suite: str, text: str) -> list[Line]:
    """The rows of a page's tables of gains that promise to save and were measured with an interval."""
    found: list[Line] = []
    conditions, within = "", False
    for written in text.splitlines():
        if written.startswith("#"):
            conditions, within = written.lstrip("# "), False
        elif written.startswith("| "):
            cells = [cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", written)[1:-1]]
            if tuple(cells) == GAINS:
                within = IMITATED not in conditions
            elif within and (line := _line(suite, conditions, cells)) is not None:
                found.append(line)
        else:
            within = False
    return found


def _line(suite: str, conditions: str, cells: Sequence[str]) -> Line | None:
    promised, measured = _RATIO.match(cells[1]), _RATIO.match(cells[2])
    if promised is None or measured is None or measured[2] is None or float(promised[1]) < PROMISE:
        return None
    if CONTROLS.search(cells[0]):
        return None
    batch = re.search(r"\bbatch (\d+)", conditions)
    first = conditions.partition(",")[0]
    workload = "forward" if first in ("cpu", "cuda") else first  # the first page was made before there were others
    value, low, high = (float(measured[at]) for at in (1, 2, 3))
    return Line(
        suite, cells[0], workload, int(batch[1]) if batch else 1, conditions, float(promised[1]), value, low, high
    )


def read(folder: Path = FOLDER, first: tuple[str, Path] | None = FIRST) -> list[Line]:
    """The rows of all pages that take part.

    Raises:
        UsageError: the folder has no page with a table of gains.
    """
    pages = {path.stem: path for path in sorted(folder.glob("*.md")) if path.stem not in LEFT_OUT}
    if first is not None and first[1].is_file():
        pages[first[0]] = first[1]
    found = [line for suite, path in sorted(pages.items()) for line in lines_of(suite, path.read_text("utf-8"))]
    if not found:
        raise UsageError(f"{folder}: no page there has a table of what was promised and measured")
    return found


def tables(lines: Sequence[Line]) -> str:
    """All tables of the atlas as Markdown."""
    below = sorted(lines, key=lambda line: line.realised)
    above = [line for line in reversed(below) if line.low > line.promised]
    return "\n\n".join(
        [
            "### By suite",
            _by(lines, "suite", lambda line: line.suite),
            "### By family",
            _by(lines, "family", family),
            "### By kernel",
            _by(lines, "what multiplies", kernel),
            "### By what runs",
            _by(lines, "workload", lambda line: line.workload),
            "### By batch",
            _by(lines, "batch", lambda line: _batch(line.batch), order=_BATCHES),
            "### By how much is promised",
            _by(lines, "promise", lambda line: _size(line.promised), order=_SIZES),
            "### Furthest below their promise",
            _named(_few_of_each(below)),
            "### Above their promise",
            _named(_few_of_each(above)),
        ]
    )


def _few_of_each(lines: Iterable[Line]) -> list[Line]:
    """The first lines, `OF_A_SUITE` of a suite: the rows of one experiment say the same again and again."""
    found: list[Line] = []
    for line in lines:
        if sum(line.suite == other.suite for other in found) < OF_A_SUITE:
            found.append(line)
    return found[:MOST]


_BATCHES = ("1", "2 to 8", "more than 8")
_SIZES = ("less than 1.5x", "1.5x to 3x", "3x to 10x", "10x and more")


def _batch(batch: int) -> str:
    return _BATCHES[0] if batch == 1 else _BATCHES[1] if batch <= 8 else _BATCHES[2]


def _size(promised: float) -> str:
    return _SIZES[sum(promised >= end for end in (1.5, 3.0, 10.0))]


_HEAD = ("rows", "promised", "measured", "realised", "of the time saved arrives", "faster", "open", "slower")


def _by(lines: Sequence[Line], title: str, key: Callable[[Line], str], order: Sequence[str] = ()) -> str:
    """A line for each kind: medians, with the quartiles of the realised part, and how many are faster for certain."""
    kinds: dict[str, list[Line]] = {}
    for line in lines:
        kinds.setdefault(key(line), []).append(line)
    names = [name for name in order if name in kinds] or sorted(kinds)
    body = [[name, *_summary(kinds[name])] for name in names]
    return markdown_table((title, *_HEAD), [*body, ["all", *_summary(lines)]])


def _summary(lines: Sequence[Line]) -> list[str]:
    realised = [line.realised for line in lines]
    spread = f" [{_quarter(realised, 0):.2f}, {_quarter(realised, 2):.2f}]" if len(lines) > 1 else ""
    return [
        str(len(lines)),
        f"{median(line.promised for line in lines):.2f}x",
        f"{median(line.measured for line in lines):.2f}x",
        f"{median(realised):.2f}{spread}",
        f"{100 * median(line.arrived for line in lines):.0f} %",
        *(str(sum(line.verdict == verdict for line in lines)) for verdict in ("faster", "open", "slower")),
    ]


def _quarter(values: Sequence[float], which: int) -> float:
    return quantiles(values, n=4, method="inclusive")[which]


def _named(lines: Iterable[Line]) -> str:
    body = [
        [
            line.suite,
            line.case,
            line.conditions.split(", no task")[0].split(", task")[0],
            f"{line.promised:.2f}x",
            f"{line.measured:.2f}x [{line.low:.2f}, {line.high:.2f}]",
        ]
        for line in lines
    ]
    return markdown_table(("suite", "case", "where", "promised", "measured"), body) if body else "None."


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the atlas, or put it into a page; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.finding_atlas", description="What arrives of what was promised, over all findings."
    )
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="the pages of findings")
    parser.add_argument("--into", type=Path, help="a Markdown file with the two marks, instead of printing")
    parser.add_argument("--picture", type=Path, help="an SVG file to write the rows into as a picture, instead")
    options = parser.parse_args(arguments)
    if options.picture is None:
        return hand_over(lambda: tables(read(options.folder)) + "\n", options.into)
    return hand_over(lambda: _drawn(options.folder, options.picture), None)


def _drawn(folder: Path, file: Path) -> str:
    """Write the picture; what is said of it."""
    lines = read(folder)
    file.write_text(picture(lines), encoding="utf-8")
    return f"{len(lines)} rows in {file}\n"


if __name__ == "__main__":
    sys.exit(main())
