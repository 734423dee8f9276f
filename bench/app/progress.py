"""One bar for the sweep: the case and the time left; without a terminal a line per finished group and per minute."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from bench.foreign_text import escape_controls
from bench.plan.estimate import in_words
from bench.short_names import short_name
from bench.sweep.events import Advanced, Event, GroupFinished, Recorded, Started, Working
from bench.words import plural

#: Seconds without a line after which one says what is being done, and the same of the first line before or after the
#: sweep, so that what is over by then says nothing.
SILENT_S, SOON_S = 60.0, 10.0
#: Seconds between two looks at whether a line is due.
BEAT_S = 5.0


class _TimeLeft(ProgressColumn):
    """What is left by the estimate, corrected by how the part that is done compared with it."""

    def render(self, task: Task) -> Text:
        """The time left, in words."""
        total, done, elapsed = task.fields["seconds"], task.fields["done"], task.elapsed or 0.0
        if total <= 0:
            return Text("")
        pace = elapsed / done if done > 0.1 * total else 1.0
        return Text(f"{in_words(max(0.0, (total - done) * pace))} left")


class ProgressBar:
    """A listener of a sweep (`bench.sweep.events`) that draws the bar.

    Args:
        lines: are told of the work before and after the sweep as well.
    """

    def __init__(self, lines: GroupLines | None = None) -> None:
        self._lines = lines
        self._progress = Progress(
            SpinnerColumn(),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            _TimeLeft(),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("starting", total=None, seconds=0.0, done=0.0)

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: Any, trace: TracebackType | None) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show what an event says."""
        match event:
            case Started(cases, present, seconds):
                self.started(cases, present, seconds)
            case Working(what):
                self._show(what)
            case Advanced(seconds):
                self.advanced(seconds)
            case Recorded():
                self._progress.advance(self._task)

    def started(self, cases: int, present: int, seconds: float) -> None:
        """Set the bar up."""
        self._progress.update(self._task, total=cases, completed=present, seconds=seconds)

    def working(self, what: str) -> None:
        """Show what is being done before or after the sweep."""
        self._show(what)
        if self._lines is not None:
            self._lines.working(what)

    def _show(self, what: str) -> None:
        self._progress.update(self._task, description=escape_controls(short_name(what)))

    def advanced(self, seconds: float) -> None:
        """Shorten the time left."""
        task = self._progress.tasks[0]
        self._progress.update(self._task, done=task.fields["done"] + seconds)


class GroupLines:
    """A listener of a sweep that says a line per finished group: what, how long, how many are left, and for how long.

    In a long group, and in long work before and after the sweep, it says every minute what is being done; while its
    context is open, a thread that sleeps looks after that, since one process may take longer without an event.

    Args:
        say: takes each line; by default it is printed to the standard error, unless that is a terminal, which has the
            bar.
        clock: seconds, from any moment on.
    """

    def __init__(self, say: Callable[[str], None] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._print, self._clock = say or _print_without_terminal, clock
        self._spent, self._said_at = 0.0, clock()
        self._cases = self._done = 0
        self._what = ""
        self._in_sweep = self._told = False
        self._lock, self._over = threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lines", daemon=True)

    def __enter__(self) -> GroupLines:
        if not sys.stderr.isatty():
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: Any, trace: TracebackType | None) -> None:
        self._over.set()
        with suppress(RuntimeError):  # it was not started
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(BEAT_S):
            self.beat()

    def __call__(self, event: Event) -> None:
        """Say what an event means for the whole."""
        with self._lock:
            match event:
                case Started(cases, present):
                    self._cases, self._done = cases, present
                    self._in_sweep, self._what = True, ""
                    self._say(_beginning(event))
                case GroupFinished(seconds=seconds):
                    self._spent += seconds
                    self._say(self._line(event))
                case Working(what):
                    self._what = escape_controls(short_name(what))
                case Recorded():
                    self._done += 1
            self.beat()

    def working(self, what: str) -> None:
        """Take in what is being done before or after the sweep; it is said if it takes long."""
        with self._lock:
            if self._in_sweep:
                self._in_sweep, self._told, self._said_at = False, False, self._clock()
            self._what = escape_controls(short_name(what))

    def beat(self) -> None:
        """Say what is being done, if nothing was said for long."""
        with self._lock:
            silent = self._clock() - self._said_at
            if not self._what or silent < (SILENT_S if self._in_sweep or self._told else SOON_S):
                return
            if self._in_sweep:
                self._say(f"bench: {self._done} of {plural(self._cases, 'case')} done; now {self._what}")
            else:
                self._told = True
                self._say(f"bench: {self._what}")

    def _say(self, line: str) -> None:
        self._said_at = self._clock()
        self._print(line)

    def _line(self, event: GroupFinished) -> str:
        cases = plural(event.cases, "case")
        failed = f", {event.failed} failed" if event.failed else ""
        done = f"bench: {escape_controls(short_name(event.label))}: {cases} in {in_words(event.seconds)}{failed}"
        if not event.left:
            return f"{done}; that was the last group"
        pace = self._spent / event.seconds_done if event.seconds_done > 0 else 1.0
        left = f"; {plural(event.left, 'group')} left"
        return done + left + (f", about {in_words(event.seconds_left * pace)}" if event.seconds_left > 0 else "")


def _beginning(event: Started) -> str:
    missing = event.cases - event.present
    about = f", about {in_words(event.seconds)}" if event.seconds > 0 else ""
    return f"bench: {missing} of {plural(event.cases, 'case')} to measure{about}"


def _print_without_terminal(line: str) -> None:
    if not sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)
