"""What an answer costs who needs one only every so many steps: all the steps of a stream, or one window run again.

A stream has to see every input, so an answer every `hop` steps costs it `hop` steps; the window is run once. They cost
the same at the break-even hop, time of the window over time of a step. Both are of the same case and process. Where
one call takes a chunk of inputs and gives as many answers, a step is its share of the call, so that hops of all streams
of a network are the same hops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.content import Site
from reports.rows import Row

#: Hops that are drawn, in steps.
HOPS = (1, 2, 4, 8, 16, 32, 64, 128)
STEP, CLIP = "step", "clip"


@dataclass(frozen=True)
class Course:
    """One stream: milliseconds of a step and of its window, and where both cost the same."""

    row: Row
    where: str
    step_ms: float
    clip_ms: float
    macs_hop: float | None

    @property
    def break_even(self) -> float:
        """Steps from one answer to the next at which stream and window cost the same."""
        return self.clip_ms / self.step_ms

    def cost(self, hop: float) -> float:
        """Milliseconds of an answer every `hop` steps."""
        return hop * self.step_ms


def courses(site: Site) -> list[Course]:
    """The streams whose steps and window were timed, in the order of the site."""
    found = []
    for row in site.rows:
        if not row.ranked or row.case.workload != "stream" or row.case.is_baseline:
            continue
        step, clip = row.value("time_per_step_ms", STEP), row.value("latency_ms", CLIP)
        if step and clip:
            chunk, macs = row.value("outputs_per_answer", STEP) or 1.0, row.value("break_even_hop_macs", STEP)
            where = f"{row.case.model_label}, batch {row.case.batch}"
            found.append(Course(row, where, step / chunk, clip, macs and chunk * macs))
    return found


def table(found: Sequence[Course]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a stream each, its times, and its break-even hop in time and in products."""
    head = ["stream", "of", "step", "window", "break-even hop", "in products"]
    lines = []
    for course in found:
        macs = "unavailable" if course.macs_hop is None else f"{course.macs_hop:.3g} steps"
        times = [f"{course.step_ms:.3g} ms", f"{course.clip_ms:.3g} ms", f"{course.break_even:.3g} steps"]
        lines.append([course.row.name, course.where, *times, macs])
    return head, lines
