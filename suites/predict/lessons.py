"""What a predictor learns from and is judged on, and what a reader has to know of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bench.flags import flag
from bench.prediction_errors import REPEATS_WITHIN
from suites.predict import splits
from suites.predict.analytic import Given
from suites.predict.measured import Cost, Measured, Measurements
from suites.predict.predictor import Knowledge, Predictor, Question


@dataclass(frozen=True)
class Lesson:
    """What a predictor learned from, and what it is judged on; `teacher` is `here` but in split d."""

    here: Measurements
    teacher: Measurements
    known: Knowledge
    halves: splits.Halves
    seconds: float = 0.0


def taught(here: Measurements, elsewhere: Measurements | None, module: Predictor) -> Lesson:
    """What a predictor may learn from, and what it is judged on."""
    question = module.question
    family = family_of(here, question)
    halves = splits.split(here, (question.form, "warm"), family, question.split, elsewhere)  # type: ignore[arg-type]
    if isinstance(module, Given) or (module.ranks_only and not module.learns):
        everything = here.networks.get((question.form, "warm"), ())
        own = [item for item in everything if family in (splits.ANY, item.network.family)]
        halves = splits.Halves((), tuple(own))
    teacher = elsewhere or here
    rows = teacher.rows.get((question.table, question.inputs), {})
    usable, refused = sound(rows)
    known = Knowledge(
        halves.training, usable, teacher.known, teacher.operations_per_s, teacher.bytes_per_s,
        tuple(here.networks.get((question.table, "warm"), ())), refused,
    )  # fmt: skip
    return Lesson(here, teacher, known, halves)


def sound(rows: Mapping[str, Cost]) -> tuple[dict[str, Cost], dict[str, str]]:
    """The entries that repeat within a tenth, and why each of the others is neither published nor used."""
    usable = {key: cost for key, cost in rows.items() if not cost.is_refused}
    refused = {
        key: f"its entry {key} varies by {100 * (cost.repeatability or 0):.0f} % between processes, more than "
        f"{100 * REPEATS_WITHIN:.0f} %"
        for key, cost in rows.items()
        if cost.is_refused
    }
    return usable, refused


def family_of(here: Measurements, question: Question) -> str:
    """The family that is learned from; of a table of the user's own that lacks it all of them, or for c its largest."""
    found = [item.network.family for items in here.networks.values() for item in items]
    given = any(item.network.given for items in here.networks.values() for item in items)
    if question.family in found or not given:
        return question.family
    if question.split != "c":
        return splits.ANY
    return max(sorted(set(found)), key=found.count)


def facts(lesson: Lesson, module: Predictor) -> dict[str, float]:
    """How much it was made from, and how long measuring that and learning took."""
    learned = len(lesson.halves.training) if module.learns else 0
    found: dict[str, float] = {"training_networks": learned}
    if module.uses_table:
        found["table_entries"] = len(lesson.known.table)
        found["refused_entries"] = len(lesson.known.refused)
    if lesson.teacher.seconds:
        found["build_seconds"] = _measuring_seconds(lesson, module) + lesson.seconds
    return found


def budget(lesson: Lesson) -> float | None:
    """The median cost of the networks that there are to learn from, whether or not a predictor does."""
    costs = [item.cost.value for item in lesson.halves.training]
    return float(torch.tensor(costs, dtype=torch.float64).median()) if costs else None


def _measuring_seconds(lesson: Lesson, module: Predictor) -> float:
    """Seconds of the processes that timed what it is made from: whole sessions of rows, networks' shares of theirs."""
    seconds = lesson.teacher.seconds
    sessions = {cost.session for cost in lesson.known.table.values()} if module.uses_table else set()
    share = Counter(item.cost.session for items in lesson.teacher.networks.values() for item in items)
    learned = lesson.halves.training if module.learns else ()
    of_networks = sum(seconds.get(item.cost.session, 0.0) / share[item.cost.session] for item in learned)
    return sum(seconds.get(session, 0.0) for session in sessions) + of_networks


def details(lesson: Lesson, module: Predictor) -> dict[str, Any]:
    """What was asked, and the names of what was learned from, refused and judged on, as plain JSON."""
    question = module.question
    return {
        **asdict(question),
        "learned_from": [item.network.name for item in lesson.halves.training] if module.learns else [],
        "refused_in_training": list(lesson.halves.refused),
        "refused_rows": dict(lesson.known.refused),
        "fit_seconds": lesson.seconds,
        "other_conditions": dict(lesson.here.other_conditions),
        "judged_on": [item.network.name for item in lesson.halves.held_out],
    }


def flags(lesson: Lesson, module: Predictor, usable: Sequence[Measured]) -> list[dict[str, str]]:
    """Rows that do not repeat or were disturbed, and rows and networks that the same processes timed.

    Args:
        lesson: what there was to learn from.
        module: who learned; what it does not use is not told of it.
        usable: networks that it is judged on.
    """
    found = []
    entries = list(lesson.known.table.values()) if module.uses_table else []
    learned = lesson.halves.training if module.learns else ()
    if lesson.known.refused and module.uses_table:
        text = f"{len(lesson.known.refused)} entries of the table are refused: their processes vary by more than 10 %"
        found.append(flag("refused_entries", "warn", text))
    disturbed = sum(cost.disturbed for cost in [*entries, *(item.cost for item in (*learned, *usable))])
    if disturbed:
        text = f"{disturbed} of the entries and networks that it is made from were disturbed by other work"
        found.append(flag("disturbed_rows", "warn", text))
    sessions = {cost.session for cost in entries} & {item.cost.session for item in usable}
    if sessions - {"", "simulated"}:
        text = "rows and networks were timed by the same processes, whose drift they share: errors look too small"
        found.append(flag("shared_session", "warn", text))
    return found
