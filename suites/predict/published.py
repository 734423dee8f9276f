"""The table of this machine as it may be published: entries with their repeatability, refused ones without a time."""

from __future__ import annotations

from bench.errors import UsageError
from bench.store.records import Store
from suites.predict import measured
from suites.predict.measured import Cost

HEAD = ("row", "MACs", "time (ms)", "processes", "repeatability")


def told(results: str = "results", form: str = "plain", inputs: str = "warm") -> str:
    """The table in Markdown, by multiply-accumulates; an entry whose processes vary by more than 10 % has no time.

    Args:
        results: folder of records.
        form: in which rows were measured.
        inputs: with warm or with cold caches.

    Raises:
        UsageError: no row was measured in that way.
    """
    found = measured.of_store(Store(results))
    rows = found.rows.get((form, inputs), {})
    if not rows:
        raise UsageError(f"{results}: no row was measured {form} and {inputs}; run `python -m bench suite=predict`")
    ordered = sorted(rows.items(), key=lambda item: (found.known[item[0]].macs, item[0]))
    lines = [_line(key, found.known[key].macs, cost) for key, cost in ordered]
    refused = sum(cost.is_refused for cost in rows.values())
    rule = (
        f"{len(rows)} entries, {refused} refused: their processes vary by more than 10 % (relative standard deviation)."
    )
    return "\n".join([_joined(HEAD), _joined(["---"] * len(HEAD)), *lines, "", rule])


def _line(key: str, macs: float, cost: Cost) -> str:
    time = "refused" if cost.is_refused else f"{cost.value:.4g}"
    spread = "one process" if cost.repeatability is None else f"{100 * cost.repeatability:.1f} %"
    return _joined([f"`{key}`", f"{macs:,.0f}", time, str(len(cost.values)), spread])


def _joined(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
