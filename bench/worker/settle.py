"""A forward that needs more than a call: gradients of its own, or its state and inputs reset after every run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from bench import workloads
from bench.flags import Flag, flag
from bench.meters.state import Kept
from bench.worker.subject import Subject
from bench.workloads.workload import Part

#: What torch says where a forward that takes gradients itself is run in inference mode, which cannot be left from
#: inside.
_NEEDS_GRADIENTS = ("does not require grad", "inference tensor", "inference mode", "requires_grad")


@dataclass(frozen=True)
class Settled:
    """The part as it can be repeated, how long its first run took (None before it), and what to know of it."""

    part: Part
    first_ms: float
    flags: tuple[Flag, ...] = ()
    gradients: bool = False


def settle(subject: Subject, part: Part, measure: Callable[[Callable[[], Any]], float]) -> Settled:
    """The part after its first run, and made repeatable if that run changed its module or its inputs.

    Args:
        subject: what the part is of; only a plain forward is looked at, other workloads put back what they change.
        part: its whole.
        measure: gives the milliseconds of a call.
    """
    if subject.case.workload != workloads.FORWARD or subject.case.cuda_graphs:
        return Settled(part, measure(part.run))
    try:
        return _settle(subject, part, measure)
    except Exception as error:
        if subject.default_inputs:
            shape = "x".join(map(str, subject.args[0].shape))
            error.add_note(
                f"the model was given a batch of images ({shape}), because nothing else gives inputs: return them from "
                "the builder, as `return model, inputs`, or give the model a method example_inputs(batch)"
            )
        raise


def _settle(subject: Subject, part: Part, measure: Callable[[Callable[[], Any]], float]) -> Settled:
    before = Kept.of(subject.counted, subject.args, subject.kwargs)
    gradients = False
    try:
        first_ms = measure(part.run)
    except RuntimeError as error:
        if not torch.is_inference_mode_enabled() or not any(text in str(error) for text in _NEEDS_GRADIENTS):
            raise
        before.restore()
        part, gradients = replace(part, call=outside_inference(part.call)), True
        first_ms = measure(part.run)
    flags = [
        flag("takes_gradients", "info", "the forward takes gradients itself: it runs outside inference mode")
    ] * gradients
    if not before.changes():
        return Settled(part, first_ms, tuple(flags), gradients)
    return _repeatable(subject, part, before, first_ms, flags, gradients)


def _repeatable(
    subject: Subject, part: Part, before: Kept, first_ms: float, flags: list[Flag], gradients: bool
) -> Settled:
    """The part with a reset, if a second run changes something again: what only the first one made is a cache."""
    before.restore_inputs()
    after_first = Kept.of(subject.counted, subject.args, subject.kwargs)
    part.run()
    changed, learned = after_first.changes(), after_first.learned()
    if not changed:
        return Settled(part, first_ms, tuple(flags), gradients)
    after_first.restore()
    flags.append(flag("changes_state", "warn", _what_changes(changed, learned)))
    return Settled(replace(part, reset=after_first.restore), first_ms, tuple(flags), gradients)


def _what_changes(changed: list[str], learned: list[str]) -> str:
    """What every forward changes, and what of it is put back: all but parameters, of which no copy is kept."""
    text = (
        f"every forward changes {_some(changed)}; it is put back after each run, outside the time, so that all runs "
        "are of the same state"
    )
    if not learned:
        return text
    if len(learned) == len(changed):
        text = f"every forward changes {_some(changed)}"
    return (
        f"{text}; parameters ({_some(learned)}) are not put back: each run goes on from the weights of the last. What "
        "learns is a training_step, which puts them back"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (" and more" if len(names) > 4 else "")


def outside_inference(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call without inference mode, and without gradients but for those that it asks for itself."""

    def run() -> Any:
        with torch.inference_mode(False), torch.no_grad():
            return call()

    return run
