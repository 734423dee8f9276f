"""What a worker leaves behind, read as foreign text: the user's model ran in it and may have written anything.

A phase or outcome that is not ours is no error of the driver's: it is the ending of that worker.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from bench.foreign_files import read_regular
from bench.plan.case import Case
from bench.store.foreign import CorruptRecord, checked, parse, read_json, without_halves
from bench.worker.results import KINDS, OutcomeFields, PhaseFields

#: Bytes of a phase file: a few words.
MOST_PHASE_BYTES = 1 << 16
#: Bytes of an outcome: raw samples of a large group.
MOST_OUTCOME_BYTES = 64 << 20

CORRUPT = "CorruptOutcome"


def read_phase(file: Path) -> dict[str, Any] | None:
    """What the worker is doing, as `{phase, case}`; None where it has not said so, or not in our words."""
    try:
        found: dict[str, Any] = checked(PhaseFields, parse(read_regular(file, MOST_PHASE_BYTES)), "phase")
    except (OSError, ValueError, CorruptRecord):
        return None
    return without_halves(found)


def read_outcome(file: Path, spec: dict[str, Any], phase: str) -> dict[str, Any] | None:
    """The worker's outcome as `{status, result}` or `{status, error}`; None where it left none.

    One that is not as it should be, or answers another question than the spec's, is the error `CorruptOutcome`.

    Args:
        file: the outcome's.
        spec: what the worker was asked, with its `kind`.
        phase: where it was last.
    """
    if not os.path.lexists(file):
        return None
    try:
        outcome: dict[str, Any] = checked(OutcomeFields, read_json(file, MOST_OUTCOME_BYTES), "outcome")
        if outcome["status"] == "ok":
            checked(KINDS[spec["kind"]], outcome["result"], "result")
            _check_answer(spec, outcome["result"])
    except CorruptRecord as error:
        message = str(error).replace(str(file), file.name)
        return {"status": "crashed", "error": {"phase": phase, "case": None, "type": CORRUPT, "message": message}}
    return without_halves(outcome)


def _check_answer(spec: dict[str, Any], result: dict[str, Any]) -> None:
    """Raise CorruptRecord unless a process says what it was asked: these cases, this session, this process."""
    if spec["kind"] == "count" and not (result["cases"] and set(result["cases"]) <= _asked(spec)):  # or the first ones
        raise CorruptRecord("result: its cases are not those that were to be counted")
    if spec["kind"] != "invocation":
        return
    if (result["session"], result["index"]) != (spec["session"], spec["index"]):
        raise CorruptRecord("result: it is of another session or process")
    if set(result["cases"]) != _asked(spec):
        raise CorruptRecord("result: its cases are not those that were to be timed")


def _asked(spec: dict[str, Any]) -> set[str]:
    """Keys of the cases that a worker was given."""
    return {Case.from_dict(recipe["case"]).key for recipe in spec["recipes"]}


def signal_name(number: int) -> str:
    """`SIGSEGV`; of a signal without a name, such as a real-time one, `SIG37`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def how_it_ended(wait_status: int, killed_by_kernel: bool) -> tuple[str, tuple[str, str]]:
    """Status, type and message of a worker that left no outcome.

    Args:
        wait_status: as `os.wait4` gives it.
        killed_by_kernel: whether the kernel killed a process for want of memory meanwhile.
    """
    try:
        code = os.waitstatus_to_exitcode(wait_status)
    except ValueError:
        return "crashed", ("NoResult", f"the process ended in a way that is not known ({wait_status})")
    if code == -signal.SIGKILL and killed_by_kernel:
        return "oom", ("OutOfMemory", "the kernel killed the process because memory ran out")
    if code < 0:
        return "crashed", (signal_name(-code), f"the process was ended by signal {-code} ({signal_name(-code)})")
    return "crashed", ("NoResult", f"the process exited with {code} and left no result")
