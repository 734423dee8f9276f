"""Accuracies that papers print, beside the rows of the same method, setting and model: `published`, and nothing more.

They belong to the paper's own weights. They stand in a column of their own with their mark and source; no figure, front
or rank takes them, because the costs of a row are those of another artefact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.canonical import parse_settings
from reports.columns import PUBLISHED
from reports.rows import Cell, Row


def publish(rows: Sequence[Row], claims: Iterable[Mapping[str, Any]]) -> None:
    """Give every row that a paper prints an accuracy for a `published` cell; other rows stay as they are."""
    printed = [claim for claim in claims if claim["metric"] == "accuracy" and not claim["relative_to_baseline"]]
    for claim in printed:
        for row in rows:
            if _is_of(row, claim):
                row.cells[PUBLISHED.key] = Cell(float(claim["value"]), provenance="published", note=_note(row, claim))


def _is_of(row: Row, claim: Mapping[str, Any]) -> bool:
    """Whether the row is the claim's method with its setting on its model at its resolution."""
    case = row.case
    if (
        claim.get("setting") is None
        or claim.get("model") is None
        or case.model_settings
        or (case.method, case.model) != (claim["method"], claim["model"])
    ):
        return False
    if claim.get("resolution") is not None and case.resolution != claim["resolution"]:
        return False
    try:
        return bool(parse_settings(case.setting) == parse_settings(claim["setting"]))
    except ValueError:
        return False


def _note(row: Row, claim: Mapping[str, Any]) -> str:
    """Where the number is from, and that it is of other weights than the row's cost."""
    extra = f", {claim['note']}" if claim.get("note") else ""
    of = "random weights" if (row.record.get("weights") or {}).get("kind") == "random" else "weights of this case"
    return (
        f"{claim['source']} ({claim['convention']}, {claim['mode']}{extra}): the paper's weights, while cost is of the "
        f"{of}"
    )
