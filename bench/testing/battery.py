"""Which checks there are, which of them a subject is held to, and how a known failure is told from a new one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from bench.canonical import BASELINE_METHOD
from bench.errors import UsageError, did_you_mean
from bench.testing import checks
from bench.testing.checks import CheckFailed
from bench.testing.subject import Subject
from bench.testing.trial import Trial, trial_of
from bench.worker import global_state

Unless = Callable[[Subject], "str | None"]


class Skipped(Exception):
    """A check that cannot be made here, or is not for this subject; the message says why."""


@dataclass(frozen=True)
class Check:
    """A check: what it holds a subject to, how it is made, and why a subject is not held to it (None where it is)."""

    promise: str
    make: Callable[[Trial], None]
    unless: Unless = lambda subject: None


def _plain(subject: Subject) -> str | None:
    return "a plain network is no method" if subject.method == BASELINE_METHOD else None


def _no_identity(subject: Subject) -> str | None:
    return _plain(subject) or ("no setting leaves the network as it is" if subject.identity is None else None)


def _why_not(value: Any) -> str | None:
    return None if value is True else str(value)


#: Name -> check, in the order in which they are made.
CHECKS: dict[str, Check] = {
    "builds": Check("it is built at its tiny setting, labels its row and gives tensors without NaN", checks.builds),
    "annotations": Check("the planner understands the annotation of every setting", checks.understood),
    "refusals": Check(
        "settings out of range are refused",
        checks.refusals,
        lambda s: None if s.refuses else "it names no settings that are refused",
    ),
    "seeded": Check("two builds from one seed are the same", checks.seeded),
    "steady": Check("a second run gives the same and changes neither inputs nor weights", checks.steady),
    "identity": Check("the identity setting reproduces the plain network", checks.identity, _no_identity),
    "meta_counts": Check(
        "counts without storage are the counts for real", checks.meta_counts, lambda s: _why_not(s.counts_on_meta)
    ),
    "closed_form": Check(
        "executed MACs are those of the closed form",
        checks.closed_form,
        lambda s: None if s.closed_form else "it names no closed form",
    ),
    "step_form": Check(
        "products of a training step's backward and bytes saved for it are those of the closed form",
        checks.step_form,
        lambda s: None if s.step_form else "it names no closed form of a step",
    ),
    "state_loads": Check("its state loads into another build", checks.state_loads),
    "global_state": Check("it changes nothing that others in the process run under", checks.keeps_global_state),
    "hands_over": Check("it can be handed to another process", checks.hands_over),
    "dtypes": Check("it runs in every dtype that it claims", checks.every_dtype),
    "batches": Check(
        "a batch of two gives what two batches of one give", checks.batches, lambda s: _why_not(s.batch_independent)
    ),
}


def checks_for(subject: Subject) -> list[str]:
    """The names of the checks that a subject is held to, by what it declares.

    Raises:
        UsageError: a known failure names a check that does not exist or that the subject is not held to.
    """
    held = [name for name, check in CHECKS.items() if check.unless(subject) is None]
    for name in subject.known_failures:
        if name not in CHECKS:
            raise UsageError(f'{subject}: known_failures: there is no check "{name}"; {did_you_mean(name, CHECKS)}')
        if name not in held:
            raise UsageError(f"{subject}: known_failures: it is not held to {name}: {CHECKS[name].unless(subject)}")
    return held


def run_check(name: str, subject: Subject) -> None:
    """Make one check of a subject.

    Raises:
        CheckFailed: it does not hold, or it holds although it is a known failure.
        Skipped: it cannot be made here: a module or the device is missing.
    """
    if name not in CHECKS:
        raise UsageError(f'there is no check "{name}"; {did_you_mean(name, CHECKS)}')
    _check_here(subject)
    known, before = subject.known_failures.get(name), global_state.read()
    try:
        CHECKS[name].make(trial_of(subject))
    except Exception as error:
        if known is not None:
            return
        if isinstance(error, CheckFailed):
            raise CheckFailed(f"{subject}: {CHECKS[name].promise}: {error}") from error
        raise CheckFailed(f"{subject}: {CHECKS[name].promise}: it raised {type(error).__name__}: {error}") from error
    finally:
        global_state.put_back(before)  # a subject that changes it spoils no other's test
    if known is not None:
        raise CheckFailed(
            f"{subject}: {name} holds, although it is a known failure ({known}): take it out of known_failures"
        )


def _check_here(subject: Subject) -> None:
    """Raise Skipped unless the subject can be built on this machine."""
    if subject.missing_module is not None:
        raise Skipped(f"{subject} needs the module {subject.missing_module}, which is not installed")
    if subject.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise Skipped(f"{subject} needs a GPU")


def run_all(subject: Subject, only: Collection[str] = tuple(CHECKS)) -> dict[str, str]:
    """Every check's outcome by its name: `holds`, or the reason why it was left out, or is known to fail.

    Args:
        subject: what is checked.
        only: the checks to be made; by default all.

    Raises:
        CheckFailed: one at least does not hold; the message names them all.
    """
    outcomes, failed = {}, []
    held = checks_for(subject)
    for name in [name for name in CHECKS if name in only]:
        if name not in held:
            outcomes[name] = f"left out: {CHECKS[name].unless(subject)}"
            continue
        try:
            run_check(name, subject)
            outcomes[name] = (
                f"known to fail: {subject.known_failures[name]}" if name in subject.known_failures else "holds"
            )
        except Skipped as reason:
            outcomes[name] = f"left out: {reason}"
        except CheckFailed as error:
            failed.append(f"{name}: {error}")
    if failed:
        raise CheckFailed("\n".join(failed))
    return outcomes
