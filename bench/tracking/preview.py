"""A small waterline of a record as SVG, which MLflow shows beside its files; the report has the whole one."""

from __future__ import annotations

from html import escape

from bench.analysis import roofline_of_record
from bench.analysis.roofline import Bar, Waterline
from bench.store.records import Record

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 900, 320, 46, 44, 34
#: Heights over the water level up to which bars are drawn; a taller one is cut there.
HIGHEST = 3.0
ABOVE, UNDER, WATER, INK = "#e69f00", "#0072b2", "#cde6f5", "#1b1f24"


def waterline_svg(record: Record) -> str | None:
    """The picture: a bar per layer, as wide as its bytes take and as high as its intensity over the ridge.

    None where the record has no layers, or where the machine's peak or bandwidth is not known.
    """
    line, _ = roofline_of_record.from_record(record)
    drawn = [bar for bar in line.bars if bar.memory_ms and bar.height is not None] if line is not None else []
    if line is None or not drawn:
        return None
    scale = (WIDTH - LEFT - 8) / sum(bar.memory_ms or 0.0 for bar in drawn)
    parts, x = [], float(LEFT)
    for bar in drawn:
        width = (bar.memory_ms or 0.0) * scale
        parts.append(_bar(bar, x, width))
        x += width
    level = _y(1.0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="13" fill="{INK}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        f'<text x="8" y="24">{escape(_finding(line))}</text>{"".join(parts)}'
        f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{level:.1f}" y2="{level:.1f}" stroke="{UNDER}" stroke-width="2"/>'
        f'<text x="8" y="{level + 4:.1f}">ridge</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 10}">time for DRAM, layer after layer; height: operations per byte over the '
        "ridge</text></svg>"
    )


def _bar(bar: Bar, x: float, width: float) -> str:
    """A layer, and above a submerged one the water."""
    height = min(bar.height or 0.0, HIGHEST)
    colour = ABOVE if height >= 1 else UNDER
    water = _rect(x, width, 1.0, height, WATER) if height < 1 else ""
    return f"<g><title>{escape(bar.name)}</title>{water}{_rect(x, width, height, 0.0, colour)}</g>"


def _rect(x: float, width: float, high: float, low: float, colour: str) -> str:
    top, bottom = _y(high), _y(low)
    return f'<rect x="{x:.2f}" y="{top:.1f}" width="{width:.2f}" height="{bottom - top:.1f}" fill="{colour}"/>'


def _y(height: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * height / HIGHEST


def _finding(line: Waterline) -> str:
    """The efficiency and its two factors, as far as they are known."""
    totals = line.totals
    if totals.efficiency is None or totals.e_att is None or totals.e_kernel is None:
        return "waterline: what the machine allows, layer by layer"
    shape = f"{'at most ' if totals.attainable_is_bound else ''}{100 * totals.e_att:.0f} %"
    return (
        f"{100 * totals.efficiency:.0f} % of the peak is used: the shape allows {shape}, the kernels reach "
        f"{100 * totals.e_kernel:.0f} % of that"
    )
