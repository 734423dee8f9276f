"""The atlas of the findings as one picture: promised against measured speed-up of every row, as an SVG for a README.

Both axes are logarithmic and a decade is as long on one as on the other, so that lines of an equal share of the promise
run beside each other. The picture follows the reader's light or dark theme and needs nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median, quantiles

from markupsafe import escape

from reports.finding_line import Line

#: Pixels of a decade, of the whole picture, and of what stands around the plot.
DECADE, WIDTH, LEFT, TOP, BOTTOM = 178.0, 860, 64, 28, 52
#: Shares of the promise that have a line.
GUIDES = (1.0, 0.5, 0.25)
TICKS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
#: How a row ended, in the order in which they are drawn and counted, with the words for it.
VERDICTS = {
    "slower": "slower for certain than what they replace",
    "open": "neither, for certain",
    "faster": "faster for certain",
}
STYLE = """
text { font: 14px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1b1f24 }
.soft { fill: #59636e } .small { font-size: 12.5px } .big { font-size: 34px; font-weight: 700 }
.line { stroke: #6a737d; fill: none } .dotted { stroke-dasharray: 2 4 } .grid { stroke: #6a737d; stroke-opacity: .18 }
.under { fill: #6a737d; fill-opacity: .13 }
circle { stroke-width: 1.4 } .faster { fill: #0072b2; stroke: #0072b2 } .slower { fill: #d55e00; stroke: #d55e00 }
.open { fill: none; stroke: #6a737d } .plot circle { fill-opacity: .72 }
@media (prefers-color-scheme: dark) {
text { fill: #e8eaed } .soft { fill: #9aa4af } .line, .grid { stroke: #9aa4af } .under { fill: #9aa4af }
.faster { fill: #56b4e9; stroke: #56b4e9 } .slower { fill: #f0833a; stroke: #f0833a } .open { stroke: #9aa4af }
}
""".strip()


class Frame:
    """Where ratios stand on the picture, whose axes reach over all rows."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.low, self.high = 0.9, 1.25 * max(line.promised for line in lines)
        self.bottom = min(0.7, *(line.measured / 1.2 for line in lines))
        self.top = max(1.5, *(line.measured * 1.25 for line in lines))
        self.width = DECADE * math.log10(self.high / self.low)
        self.height = DECADE * math.log10(self.top / self.bottom)

    def x(self, ratio: float) -> float:
        """Pixels from the left."""
        return LEFT + DECADE * math.log10(ratio / self.low)

    def y(self, ratio: float) -> float:
        """Pixels from the top."""
        return TOP + DECADE * math.log10(self.top / ratio)


def picture(lines: Sequence[Line]) -> str:
    """The SVG of these rows.

    Args:
        lines: rows of the findings' tables; at least two.
    """
    frame = Frame(lines)
    height = round(TOP + frame.height + BOTTOM)
    said = f"{len(lines)} measured rows, promised speed-up to the right and measured speed-up upwards"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(said)}"><title>{escape(said)}</title><style>{STYLE}</style>',
        *_axes(frame),
        *_guides(frame),
        '<g class="plot">',
        *_marks(frame, lines),
        "</g>",
        *_numbers(lines, round(LEFT + frame.width) + 44),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _axes(frame: Frame) -> Iterable[str]:
    """The shade of what is slower, grid, ticks and the titles of both axes."""
    right, bottom = LEFT + frame.width, TOP + frame.height
    level = frame.y(1.0)
    yield f'<rect class="under" x="{LEFT}" y="{level:.1f}" width="{frame.width:.1f}" height="{bottom - level:.1f}"/>'
    for tick in TICKS:
        if frame.low <= tick <= frame.high:
            at = f"{frame.x(tick):.1f}"
            yield f'<path class="grid" d="M{at} {TOP}V{bottom:.1f}"/>'
            yield f'<text class="soft small" x="{at}" y="{bottom + 18:.1f}" text-anchor="middle">{tick:g}×</text>'
        if frame.bottom <= tick <= frame.top:
            at = f"{frame.y(tick):.1f}"
            yield f'<path class="grid" d="M{LEFT} {at}H{right:.1f}"/>'
            yield f'<text class="soft small" x="{LEFT - 8}" y="{at}" dy=".35em" text-anchor="end">{tick:g}×</text>'
    middle = (LEFT + right) / 2
    yield f'<text x="{middle:.1f}" y="{bottom + 42:.1f}" text-anchor="middle">promised by operations</text>'
    up = f"{(TOP + bottom) / 2:.1f}"
    yield f'<text x="18" y="{up}" text-anchor="middle" transform="rotate(-90 18 {up})">measured</text>'
    yield f'<text class="soft small" x="{right - 6:.1f}" y="{bottom - 8:.1f}" text-anchor="end">slower</text>'


def _guides(frame: Frame) -> Iterable[str]:
    """The lines of equal shares of the promise, with their names where they leave the plot."""
    for share in GUIDES:
        start, end = max(frame.low, frame.bottom / share), min(frame.high, frame.top / share)
        kind = "line" if share == 1 else "line dotted"
        ends = f"M{frame.x(start):.1f} {frame.y(share * start):.1f}L{frame.x(end):.1f} {frame.y(share * end):.1f}"
        yield f'<path class="{kind}" d="{ends}"/>'
        inside = end == frame.high
        at = f'x="{frame.x(end) + 5:.1f}" y="{frame.y(share * end):.1f}" dy=".35em"'
        above = f'x="{frame.x(end):.1f}" y="{TOP - 7}" text-anchor="middle"'
        yield f'<text class="soft small" {at if inside else above}>{100 * share:.0f} %</text>'


def _marks(frame: Frame, lines: Sequence[Line]) -> Iterable[str]:
    """A circle for each row, those that are slower below the others."""
    order = list(VERDICTS)
    for line in sorted(lines, key=lambda line: (order.index(line.verdict), line.promised)):
        told = f"{line.suite}, {line.case}: promised {line.promised:.2f}x, measured {line.measured:.2f}x"
        yield (
            f'<circle class="{line.verdict}" cx="{frame.x(line.promised):.1f}" cy="{frame.y(line.measured):.1f}" '
            f'r="4.2"><title>{escape(told)}</title></circle>'
        )


def _numbers(lines: Sequence[Line], left: int) -> Iterable[str]:
    """What is typical, and how the rows ended, beside the plot."""
    low, _, high = quantiles((line.realised for line in lines), n=4, method="inclusive")
    suites = len({line.suite for line in lines})
    told = [
        (f"{100 * median(line.realised for line in lines):.0f} %", "of the promised speed-up arrives in the median,"),
        ("", f"for half of the rows {100 * low:.0f} to {100 * high:.0f} %"),
    ]
    told += [(str(sum(line.verdict == kind for line in lines)), VERDICTS[kind]) for kind in reversed(VERDICTS)]
    told += [("", ""), ("", f"{len(lines)} measured rows of {suites} suites: docs/findings")]
    kinds = iter(("", "", *reversed(VERDICTS), "", ""))
    at = float(TOP)
    for big, words in told:
        kind = next(kinds)
        if big:
            at += 58
            yield f'<text class="big" x="{left}" y="{at:.0f}">{big}</text>'
        at += 24
        mark = f'<circle class="{kind}" cx="{left + 5}" cy="{at - 5:.0f}" r="4.2"/>' if kind else ""
        yield f'{mark}<text class="soft" x="{left + (16 if kind else 0)}" y="{at:.0f}">{escape(words)}</text>'
