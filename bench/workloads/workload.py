"""The words of a workload: its axes, its parts, and what a built subject must offer to it.

A workload's module holds

- `WORKLOAD`, a `Workload`;
- `make_parts(subject, shape) -> list[Part]`: the whole first; the subject only offers calls;
- optionally `facts(subject, shape, parts) -> Facts`: what is measured besides time, counts, memory and energy
  (bytes of a cache, bytes of a payload, agreement with a reference), taken once in the probe;
- optionally `facts_seconds(shape) -> float`: about how long they take beside what a few runs cost, for the plan's
  estimate;
- optionally `counts(subject, shape, parts, count) -> Facts`: what only the operator trace tells (MACs of each step, of
  the backward, of what ran again); `count(part)` runs a part once under the trace, one that is not timed as well;
- optionally `against(subject, other, shape) -> list[Reading]`: how the answers of a case with a task differ from those
  of its other side, both built in one process;
- optionally `spanned(spans, wholes, details) -> list[Reading]`: what the spans of the whole's timed runs tell, a
  process each (milliseconds of every run, by span and of the whole), in place of the probe's readings of the same
  names; pure;
- of a workload `of_records`, `is_outdated(record, records) -> bool`: whether one of its records was made from other
  rows than there are now;
- optionally `derive(shape, value) -> list[Reading]`: the field's own names (time to first token, ...) from readings
  that are there; pure, without torch. `value(metric, part)` gives a `Reading` or None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, Protocol, TypeVar

from bench.errors import UsageError, did_you_mean
from bench.reading import Curve, Reading

Shape = Mapping[str, Any]
Clock = Callable[[], int]
Result = TypeVar("Result")


@dataclass(frozen=True)
class ShapeAxis:
    """One number of a shape: its default, its range (both ends included) and what it counts.

    One that is `late` came when rows of its workload had been measured: at its default it is no part of a shape, so
    that those rows keep their keys, and a workload asks for it with that default.
    """

    name: str
    default: int | float | None
    low: int | float = 1
    high: int | float = 2**31
    unit: str = ""
    doc: str = ""
    late: bool = False

    def checked(self, value: Any) -> int | float | None:
        """The value, if it is a number of this axis.

        Raises:
            UsageError: it is not, with the range.
        """
        if value is None and self.default is None:
            return None
        wanted = float if isinstance(self.low, float) else int
        fits = (
            isinstance(value, int | float) and not isinstance(value, bool) and (wanted is float or value == int(value))
        )
        if not fits or not self.low <= value <= self.high:
            kind = "number" if wanted is float else "whole number"
            raise UsageError(f"shape {self.name}={value!r}: a {kind} from {self.low:g} to {self.high:g} is wanted")
        return wanted(value)


BATCH = ShapeAxis("batch", 1, unit="sample", doc="samples, sequences or requests of one run")
RESOLUTION = ShapeAxis("resolution", None, unit="px", doc="side of the square image; null takes the model's own")


@dataclass(frozen=True)
class Workload:
    """What one run is.

    Attributes:
        name: as suites and the command line spell it.
        unit: what throughput counts, singular: `sample`, `token`, `image`.
        parts: names of what is timed and counted by itself; the first is the whole.
        axes: the numbers of its shape; `batch` is one of them.
        title: one line for people: what one run is.
        grad: runs need gradients (training); else they are made in inference mode.
        calls: what of the subject is called, for a compiler to compile; `forward` is the module itself.
        may_call: what is called as well where a subject offers it.
        of_records: what it tells is made from other rows: its cases come last, and again when those have changed.
    """

    name: str
    unit: str
    parts: tuple[str, ...]
    axes: tuple[ShapeAxis, ...] = (BATCH,)
    title: str = ""
    grad: bool = False
    calls: tuple[str, ...] = ("forward",)
    may_call: tuple[str, ...] = ()
    of_records: bool = False

    @property
    def whole(self) -> str:
        """The part that is one run."""
        return self.parts[0]

    def axis(self, name: str) -> ShapeAxis:
        """The axis of this name.

        Raises:
            UsageError: this workload has no such axis.
        """
        for axis in self.axes:
            if axis.name == name:
                return axis
        names = [axis.name for axis in self.axes]
        raise UsageError(f'workload {self.name} has no shape axis "{name}"; {did_you_mean(name, names)}')

    def shape(self, given: Shape) -> dict[str, Any]:
        """The whole shape: what was given, checked, and defaults for the rest, but for those of late axes.

        Raises:
            UsageError: an unknown axis, or a value out of its range.
        """
        checked = {name: self.axis(name).checked(value) for name, value in given.items()}
        whole = {axis: checked.get(axis.name, axis.default) for axis in self.axes}
        return {axis.name: value for axis, value in whole.items() if not (axis.late and value == axis.default)}


class Built(Protocol):
    """What a workload is given: a built subject on its device, and the conditions it was built for."""

    @property
    def module(self) -> Any:
        """The module in evaluation mode, compiled or converted if the case says so."""

    @property
    def args(self) -> tuple[Any, ...]:
        """Example inputs of one forward."""

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword inputs of one forward."""

    @property
    def task(self) -> Any:
        """The task that gave the weights, or None."""

    @property
    def device(self) -> str:
        """`cpu`, `cuda`, `cuda:N`."""

    @property
    def dtype(self) -> Any:
        """The dtype of floating inputs that a workload makes; None leaves them as they are."""

    @property
    def seed(self) -> int:
        """Of whatever the workload draws."""

    @property
    def synchronise(self) -> Callable[[], None]:
        """Waits until all work on the device is done."""


@dataclass(frozen=True)
class Held:
    """What is alive when a run begins, or after it, beside weights and buffers, as far as it is no plain input.

    Attributes:
        inputs: the batch, a cache, a state.
        gradients: of parameters.
        optimizer: its state.
        activations: what a forward saved and a backward frees; gives them when it is called, so that nothing else holds
            them.
    """

    inputs: Any = ()
    gradients: Any = ()
    optimizer: Any = ()
    activations: Callable[[], Any] = tuple


@dataclass(frozen=True)
class Part:
    """A named call: timed with its neighbours, counted, and watched for memory and energy.

    Attributes:
        name: as `Workload.parts` has it.
        call: one run; what it returns is looked at but not kept.
        units: units of throughput of one run (batch x tokens, batch x images, ...).
        prepare: run before every timed run, outside the clock (a backward needs a fresh forward).
        reset: run after every timed run, outside the clock: puts back what the run changed.
        counted: what is counted where that is something else than is timed: an eager form, or a run without what is
            counted apart.
        spans: gives the milliseconds of the spans inside the last run, in order, by name; None where it has none.
        held: gives what is alive beside weights and inputs (a cache, a state), for the memory meter; `Held` where it is
            of several kinds, which is asked again after the run.
        varies: each run takes the next inputs, so that outputs differ from run to run.
        made_of: parts of which one run each, in this order and with `besides` after them, is one run of this one,
            whatever the values: a count of all parts may join theirs, so that nothing is traced twice.
        besides: what a run of a part that is `made_of` others does besides them.
    """

    name: str
    call: Callable[[], Any]
    units: float = 1.0
    prepare: Callable[[], None] | None = None
    reset: Callable[[], None] | None = None
    counted: Callable[[], Any] | None = None
    spans: Callable[[], dict[str, list[float]]] | None = None
    held: Callable[[], Any] | None = None
    varies: bool = False
    made_of: tuple[str, ...] = ()
    besides: Callable[[], Any] | None = None

    def run(self) -> Any:
        """What one run gives: prepared before, put back after."""
        if self.prepare is not None:
            self.prepare()
        try:
            return self.call()
        finally:
            if self.reset is not None:
                self.reset()


@dataclass(frozen=True)
class Facts:
    """What a workload measures besides: readings, curves, details for the record, flags for the reader."""

    readings: Sequence[Reading] = ()
    curves: Sequence[Curve] = ()
    details: dict[str, Any] = field(default_factory=dict)
    flags: Sequence[dict[str, str]] = ()


class Counted(Protocol):
    """What the operator trace saw of a call (`bench.meters.macs.MacsCount`)."""

    @property
    def macs(self) -> int:
        """Products that the answers need."""

    @property
    def executed_macs(self) -> int:
        """All products of the call: a method's own and those on zeros too."""

    @property
    def records(self) -> list[Any]:
        """Its operators in order: each with `macs` and the `path` of the module that it ran in."""


#: Runs a part once under the operator trace, prepared before and put back after.
Count = Callable[[Part], Counted]


class Spans:
    """Stamps inside a run: `with spans.span("prefill"): ...`; spans of one name follow one another in a list."""

    def __init__(self, synchronise: Callable[[], None], clock: Clock = perf_counter_ns):
        self._synchronise, self._clock = synchronise, clock
        self._found: dict[str, list[float]] = {}

    def clear(self) -> None:
        """Forget the last run."""
        self._found = {}

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time what is inside; the device has finished before and after."""
        self._synchronise()
        start = self._clock()
        yield
        self._synchronise()
        self._found.setdefault(name, []).append((self._clock() - start) / 1e6)

    def read(self) -> dict[str, list[float]]:
        """Milliseconds of the last run's spans by name."""
        return {name: list(values) for name, values in self._found.items()}


def require(module: Any, workload: str, *names: str) -> None:
    """Raise UsageError unless the module offers the calls that a workload needs."""
    missing = [name for name in names if not callable(getattr(module, name, None))]
    if missing:
        raise UsageError(
            f"{type(module).__name__} cannot be run as workload {workload}: it offers no {', '.join(missing)}; see "
            f"bench/workloads/{workload}.py for what that has to be"
        )


def clock_of(subject: Built) -> Clock:
    """Nanoseconds of the host's clock, or of the one that a subject brings along as `clock` (tests do)."""
    clock: Clock = getattr(subject, "clock", perf_counter_ns)
    return clock


def ask(module: Any, name: str, *args: Any) -> Any:
    """What the module's own optional call gives, or None where it offers none."""
    offered = getattr(module, name, None)
    return offered(*args) if callable(offered) else None


def on_meta(value: Any) -> bool:
    """Whether a tensor has a shape and no values, so that nothing of it can be read, encoded or timed."""
    return bool(getattr(value, "is_meta", False))


def repeated(run: Callable[[], Result], clock: Clock, *, times: int = 3, seconds: float = 20.0) -> list[Result]:
    """What runs give, after one that is not kept: `times` of them, at least one, none begun after so many seconds."""
    began = clock()
    run()
    kept = [run()]
    while len(kept) < times and (clock() - began) / 1e9 < seconds:
        kept.append(run())
    return kept
