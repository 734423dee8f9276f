"""What others paste elsewhere of one row: a badge (SVG), a sentence and a BibTeX entry, each with its interval."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import escape

from bench.store.records import DISTURBED
from bench.version import __version__
from reports.content import day_of
from reports.groups import Group
from reports.numbers import pair, quantity
from reports.rows import Row

#: Widths in px: of a letter at 11 px, of the room beside a text.
LETTER, ROOM = 6.4, 12
_COLOURS = {"good": "#00704f", "bad": "#a8430a", "care": "#7a5a00", "": "#4b6b7d"}
_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip
#: Letters beyond ASCII that names and numbers here have, as LaTeX writes them.
_SIGNS = {"×": r"$\times$", "±": r"$\pm$", "−": "$-$", "·": r"$\cdot$", "—": "---", "–": "--", "…": r"\ldots{}"}


@dataclass(frozen=True)
class Badge:
    """A label: what is told and how it is coloured (`good`, `bad`, `care` or nothing)."""

    text: str
    kind: str


def badge(row: Row, verdicts: list[str]) -> Badge:
    """What a badge of this row says: `1.30× of 1.70× promised, reproduced`.

    Args:
        row: the row.
        verdicts: of the claims that it bears on.
    """
    if row.status not in ("ok", DISTURBED):
        return Badge(row.status, "bad")
    speed, promised = row.cells.get("speedup"), row.value("mac_ratio")
    latency = row.cells.get("latency_ms")
    if speed is not None and speed.value is not None:
        text = f"{pair(speed.value, speed.low, speed.high)}×"
        text += f" of {pair(promised, None, None)}× promised" if promised else ""
        low, high = speed.low or 0.0, speed.high or float("inf")
        kind = "good" if low > 1 else "bad" if high < 1 else ""
    elif latency is not None and latency.value is not None:
        text, kind = quantity(latency.value, "ms", latency.low, latency.high), ""
    else:
        text, kind = "counted", ""
    judged = {verdict for verdict in verdicts if verdict in ("reproduced", "not reproduced")}
    if judged:
        text += ", reproduced" if judged == {"reproduced"} else ", not reproduced"
    return Badge(f"{text}, disturbed" if row.disturbed else text, "care" if row.disturbed else kind)


def badge_svg(name: str, badge: Badge) -> str:
    """The badge as one SVG that needs nothing else: the name on the left, what was found on the right."""
    widths = [round(LETTER * len(text)) + ROOM for text in (name, badge.text)]
    total = sum(widths)
    texts = "".join(
        f'<text x="{x + width / 2:g}" y="14" textLength="{width - ROOM}" lengthAdjust="spacingAndGlyphs">'
        f"{escape(text)}</text>"
        for text, x, width in ((name, 0, widths[0]), (badge.text, widths[0], widths[1]))
    )
    label = escape(f"{name}: {badge.text}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="20" role="img" aria-label="{label}">'
        f'<title>{label}</title><rect width="{total}" height="20" rx="3" fill="{_COLOURS[badge.kind]}"/>'
        f'<rect width="{widths[0]}" height="20" rx="3" fill="#29414f"/>'
        f'<rect x="{widths[0] - 3}" width="3" height="20" fill="#29414f"/>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,Geneva,sans-serif" font-size="11">'
        f"{texts}</g></svg>"
    )


def cited(row: Row, group: Group) -> str:
    """The row in one sentence, with all that it takes to find it again."""
    return (
        f"{row.name} ({group.title}; {group.machine}): {_found(row)}. Measured with Waterline {_version(row)} on "
        f"{day_of(row.record)}, protocol {(row.record.get('protocol') or {}).get('name', 'unnamed')}; case "
        f"{row.case_key}, record {str(row.record['content_hash'])[:16]}."
    )


def _version(row: Row) -> str:
    return str((row.record.get("code") or {}).get("version") or __version__)


def _found(row: Row) -> str:
    """What was found, in a clause."""
    speed, promised = row.cells.get("speedup"), row.value("mac_ratio")
    latency, macs = row.cells.get("latency_ms"), row.value("macs")
    parts = []
    if speed is not None and speed.value is not None:
        ends = "" if speed.low is None or speed.high is None else f" [{speed.low:.3g}, {speed.high:.3g}]"
        parts.append(f"measured speed-up {speed.value:.3g}{ends}")
        parts += [f"promised by operations {promised:.3g}"] if promised else []
    if latency is not None and latency.value is not None:
        parts.append(f"latency {quantity(latency.value, 'ms', latency.low, latency.high)}")
    if macs:
        parts.append(quantity(macs, "MAC"))
    if row.disturbed:
        parts.append("other work disturbed the machine")
    return ", ".join(parts) or f"ended as {row.status}"


def bibtex(row: Row, group: Group) -> str:
    """The row as a BibTeX entry that classic BibTeX takes: letters beyond ASCII are written as LaTeX."""
    key = re.sub(r"[^A-Za-z0-9]", "", row.case_key)[:10]
    fields = {
        "title": f"{{{tex(row.name)}}}: {tex(_found(row))}",
        "howpublished": f"Waterline {tex(_version(row))}, case {tex(row.case_key)}",
        "note": f"{tex(group.title)}; {tex(group.machine)}; record {tex(str(row.record['content_hash'])[:16])}",
        "year": day_of(row.record)[:4],
    }
    body = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    return f"@misc{{waterline{key},\n{body}}}"


def tex(text: str) -> str:
    """Text as LaTeX prints it; letters that it has no name for here become a question mark."""
    made = "".join(
        _TEX.get(letter, _SIGNS.get(letter, letter)) for letter in text.replace("\u00a0", " ").replace("\u202f", " ")
    )
    return made.encode("ascii", "replace").decode()
