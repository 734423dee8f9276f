"""Where the time goes: from the plain network's time to the case's, by kind of module, the method's own apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.plan.case import Case
from bench.store.records import Record
from reports.figures.figure import Figure, no_picture, percent, rounded, significant, table_of
from reports.figures.theme import Spec, axis, layout, legend, plain
from reports.labels import case_label
from reports.own_time import REPLACED, Split, split

ID = "time-split"
HOW_TO_READ = (
    "Read downwards from the plain network's time: each blue bar is time saved in one kind of module, each red one "
    "time that is added; the method's own operators stand apart, and so does what no module explains."
)
PLAIN, OWN, UNEXPLAINED, CASE = "plain network", "the method's own", "not attributed", "this case"
#: Share of a case's MACs from which added modules are said to do the network's work too.
NETWORK_WORK = 0.05
ROW = 34


@dataclass(frozen=True)
class Step:
    """One bar: where it starts and ends in ms; `kind` is total, change or unknown."""

    name: str
    start: float
    end: float
    kind: str

    @property
    def change(self) -> float:
        """Time added, or saved below zero."""
        return self.end - self.start


def steps(found: Split) -> list[Step]:
    """From the plain network's time to the case's; the changes add up to the difference of the two."""
    changes = [(part.name, part.change_ms, "change") for part in found.parts]
    if found.own_modules:
        changes.append((OWN, found.own_ms, "change"))
    changes.append((UNEXPLAINED, found.unexplained_ms - found.base_unexplained_ms, "unknown"))
    made, at = [Step(PLAIN, 0.0, found.base_ms, "total")], found.base_ms
    for name, change, kind in changes:
        made.append(Step(name, at, at + change, kind))
        at += change
    return [*made, Step(CASE, 0.0, found.ms, "total")]


def figure(record: Record, baseline: Record | None, *, part: str = "", id: str = ID) -> Figure:
    """The figure of a case beside its baseline; with a reason instead where one has no layer times.

    Args:
        record: of a whole run, or of a part that is looked at as one.
        baseline: the same of the other side.
        part: its name, for the title.
        id: a stable slug, unique on the page.
    """
    label = case_label(Case.from_dict(record["case"])) + (f", {part}," if part else "")
    found = "the baseline is not among the records" if baseline is None else split(record, baseline)
    if isinstance(found, str):
        return no_picture(id, f"{label}: where the time goes is not known", HOW_TO_READ, found)
    made = steps(found)
    return Figure(id, title(label, found), HOW_TO_READ, step_table(made, found), {"": draw(made)}, notes=notes(found))


def title(label: str, found: Split) -> str:
    """The finding: what the method's own operators cost beside what the other modules save."""
    own, saved = significant(found.own_ms, 2), significant(abs(found.saved_ms), 2)
    if not found.own_modules:
        change = "saves" if found.saved_ms >= 0 else "costs"
        return f"{label} {change} {saved} ms; it adds no modules of its own"
    spends = f"{label} spends {own} ms ({percent(found.own_share)} of its time) in its own operators"
    if found.saved_ms <= 0:
        return f"{spends}, and the other modules save nothing"
    if found.own_ms > found.saved_ms:
        return f"{spends}, more than the {saved} ms that the other modules save"
    return f"{spends} and saves {saved} ms in the others"


def notes(found: Split) -> tuple[str, ...]:
    """What times per module cannot tell apart, in this case."""
    said = []
    if found.own_modules:
        ends = (
            ""
            if found.own_low_ms is None or found.own_high_ms is None
            else (f" [{significant(found.own_low_ms)}, {significant(found.own_high_ms)}]")
        )
        said.append(
            f"own operators: {significant(found.own_ms)} ms{ends} in {found.own_modules} modules that the plain "
            "network lacks; the ends add up the modules' own 95 % intervals"
        )
        said.append(
            "work that a method adds inside the network's own modules, such as a bias on attention, counts as theirs"
        )
    share = found.own_macs / found.macs if found.macs else 0.0
    if share > NETWORK_WORK:
        said.append(f"the added modules hold {percent(share)} of the MACs: they do part of the network's work too")
    if found.replaced_ms:
        said.append(
            f"{significant(found.replaced_ms)} ms are in modules of another class than the plain network's: the "
            "method's work and the network's are not told apart there"
        )
    return tuple(said)


def step_table(made: Sequence[Step], found: Split) -> pd.DataFrame:
    """The numbers behind the figure: time in the plain network and in the case, and the change."""
    base = {part.name: (part.base_ms, part.ms) for part in found.parts}
    base |= {OWN: (0.0, found.own_ms), UNEXPLAINED: (found.base_unexplained_ms, found.unexplained_ms)}
    base |= {PLAIN: (found.base_ms, None), CASE: (None, found.ms)}  # type: ignore[dict-item]
    rows = [
        {
            "where": step.name,
            "plain network (ms)": base[step.name][0],
            "this case (ms)": base[step.name][1],
            "change (ms)": None if step.kind == "total" else step.change,
            "change (% of the plain network's time)": None
            if step.kind == "total"
            else 100 * step.change / found.base_ms,
        }
        for step in made
    ]
    return table_of(rows)


def draw(made: Sequence[Step]) -> Spec:
    """A bar per step, the first on top; bars of a change hang between the times before and after it."""
    names = [_shown(step.name) for step in made]
    traces = [
        _bars(name, colour, [step for step in made if fits(step)])
        for name, colour, fits in (
            ("time per run", "@grey", lambda step: step.kind == "total"),
            ("saved", "@blue", lambda step: step.kind == "change" and step.change <= 0),
            ("added", "@vermillion", lambda step: step.kind == "change" and step.change > 0 and step.name != OWN),
            ("added by the method's own operators", "@orange", lambda step: step.name == OWN),
        )
    ]
    unknown = _bars("not attributed to a module", "@band", [step for step in made if step.kind == "unknown"])
    unknown["marker"] |= {"line": {"color": "@quiet", "width": 1.2}}
    yaxis = axis("where", type="category", categoryorder="array", categoryarray=names[::-1], showgrid=False, ticks="")
    top = max(max(step.start, step.end) for step in made)
    low = min(0.0, *(min(step.start, step.end) for step in made))
    xaxis = axis("time per run (ms)", range=[low * 1.05, top * 1.16], zeroline=True, zerolinecolor="@quiet")
    drawn = [trace for trace in [*traces, unknown] if trace["x"]]
    return {
        "data": drawn,
        "layout": layout(
            xaxis=xaxis,
            yaxis=yaxis,
            height=120 + ROW * len(made),
            barmode="overlay",
            bargap=0.3,
            margin={"l": 8, "r": 12, "t": 28, "b": 48},
            legend=legend(),
        ),
    }


def _bars(name: str, colour: str, members: Sequence[Step]) -> Spec:
    lengths = [abs(step.change) for step in members]
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [_shown(step.name) for step in members],
        "x": rounded(lengths),
        "base": rounded([min(step.start, step.end) for step in members]),
        "marker": {"color": colour},
        "text": [_amount(step) for step in members],
        "textposition": "outside",
        "cliponaxis": False,
        "textfont": {"size": 11},
        "hovertext": [_hover(step) for step in members],
        "hoverinfo": "text",
        "customdata": [[None]] * len(members),
    }


def _shown(name: str) -> str:
    return plain({"norm": "norms", "attn": "attention", "mlp": "MLP"}.get(name, name))


def _amount(step: Step) -> str:
    if step.kind == "total":
        return significant(step.end)
    return f"{'+' if step.change > 0 else '−'}{significant(abs(step.change), 2)}" if step.change else "0"


def _hover(step: Step) -> str:
    if step.kind == "total":
        return f"<b>{_shown(step.name)}</b><br>{significant(step.end)} ms"
    words = "more than in the plain network" if step.change > 0 else "less than in the plain network"
    extra = "<br>in modules that the method replaces" if step.name == REPLACED else ""
    return f"<b>{_shown(step.name)}</b><br>{significant(abs(step.change))} ms {words}{extra}"


__all__ = ["HOW_TO_READ", "ID", "Step", "draw", "figure", "notes", "step_table", "steps", "title"]
