"""A driver that is killed at its nth operation that writes, with replayed workers: it can be killed everywhere."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from bench.sweep.executors.local import open_executor as open_real

#: Everything by which this project's driver changes a disk: each is one operation that a kill can come before or after.
WRITING = (
    "write",
    "fsync",
    "replace",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
    "fchmod",
    "chmod",
    "link",
    "symlink",
    "truncate",
)

#: Outcomes of the workers of one real sweep, by what they were asked.
TAPE: dict[Any, list[Any]] = {}


def _asked(kind: str, spec: dict[str, Any]) -> Any:
    """What a job is about: its kind and its cases."""
    recipes = spec.get("recipes") or ([spec["recipe"]] if "recipe" in spec else [])
    return kind, tuple(str(recipe["case"]) for recipe in recipes), spec.get("index")


class Recording:
    """Real workers whose outcomes are kept on the tape."""

    def __init__(self, real: Any):
        self._real = real

    def run(self, kind: str, spec: dict[str, Any], **options: Any) -> Any:
        outcome = self._real.run(kind, spec, **options)
        TAPE.setdefault(_asked(kind, spec), []).append(copy.deepcopy(outcome))
        return outcome

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Replaying:
    """Workers that answer what is on the tape; one that is asked again answers the next, and the last for ever."""

    def __init__(self) -> None:
        self._left = {asked: list(outcomes) for asked, outcomes in TAPE.items()}
        self.ready: dict[str, Any] = {}

    def run(self, kind: str, spec: dict[str, Any], **_options: Any) -> Any:
        outcomes = self._left[_asked(kind, spec)]
        outcome = copy.deepcopy(outcomes.pop(0) if len(outcomes) > 1 else outcomes[0])
        if "session" in spec:
            outcome.result["session"] = spec["session"]  # a name that each sweep draws for itself
        return outcome


@contextlib.contextmanager
def open_executor(timeouts_s: dict[str, float]) -> Iterator[Any]:
    """Recorded workers as soon as there is a tape, real ones that make it before."""
    if TAPE:
        yield Replaying()
        return
    with open_real(timeouts_s) as real:
        yield Recording(real)


def arm(nth: int, *, torn: bool = False, told: Callable[[int], None] | None = None) -> None:
    """Kill this process at its nth operation that writes, before it is made; of a torn write the first half is.

    Args:
        nth: counted from 1; 0 never kills.
        torn: let half of a `write` arrive.
        told: gets the number of every operation, before it is made.
    """
    own, made = os.getpid(), [0]

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            if os.getpid() == own:
                made[0] += 1
                if told is not None:
                    told(made[0])
                if made[0] == nth:
                    if torn and name == "write":
                        real(args[0], args[1][: len(args[1]) // 2])
                    os.kill(own, signal.SIGKILL)
            return real(*args, **kwargs)

        return operation

    for name in WRITING:
        setattr(os, name, counted(name, getattr(os, name)))


if __name__ == "__main__":  # a real driver: the number of the operation, then its overrides
    from bench.app.cli import main

    arm(int(sys.argv[1]))
    sys.argv[1:2] = []
    main()
