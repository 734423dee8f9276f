"""The kinds of what a worker tells the driver: its phase, its outcome, and the result of every job.

Numbers that are divided by each other or put on logs are positive and finite here, on arrival, and not where they are
used.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from bench.store.schema import (
    Calibration,
    Count,
    CurveFields,
    Flag,
    LabelFields,
    Layer,
    LayersInfo,
    LayersOfPart,
    Moment,
    NotNegative,
    Number,
    Object,
    ReadingFields,
    Time,
)

_OPEN = ConfigDict(extra="allow")

Times = Annotated[list[Time], Field(min_length=1)]


class Message(TypedDict):
    """A line of the worker server: that it is ready, which process it forked, or how that one ended."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    ready: NotRequired[Object]
    pid: NotRequired[Annotated[int, Field(ge=2, le=2**31)]]
    ended: NotRequired[Annotated[int, Field(ge=0, le=2**31)]]
    max_resident_bytes: NotRequired[Count]


class PhaseFields(TypedDict):
    """What the worker is doing, and for which case alone."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    phase: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z_]+$")]
    case: str | None


class ErrorFields(TypedDict):
    """Why there is no result."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    phase: str
    case: NotRequired[str | None]
    type: Annotated[str, Field(max_length=200)]
    message: str


class Fine(TypedDict):
    """The outcome of a job that was done."""

    status: Literal["ok"]
    result: Object


class NotFine(TypedDict):
    """The outcome of a job that raised; the status is the row's."""

    status: Literal["oom", "unsupported", "invalid", "crashed"]
    error: ErrorFields


OutcomeFields = Annotated[Fine | NotFine, Field(discriminator="status")]


class WarmUpFields(TypedDict):
    """How the warm-up ended, and its times where they were kept: neighbours together where there are too many."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    steady: bool | None
    seconds: NotRequired[NotNegative]
    trace_ms: NotRequired[Times | None]
    chunk: NotRequired[Annotated[int, Field(ge=1, le=2**31)]]


class PlanFields(TypedDict):
    """What the process was told to do: `bench.plan.process`."""

    rounds: Annotated[int, Field(ge=1, le=2**31)] | None
    warmup_s: dict[str, NotNegative]
    throughput: bool
    layers: bool


class StageFields(TypedDict):
    """Seconds of the stages of a timed process."""

    warm: NotNegative
    sampled: NotNegative
    extras: NotNegative


class Window(TypedDict):
    """A throughput window."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    iterations: Annotated[int, Field(ge=1, le=2**63)]
    ms: Time


class SampleFields(TypedDict):
    """Raw samples of one part of a member."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    block: Annotated[int, Field(ge=1, le=2**63)]
    latency_ms: Times
    device_ms: NotRequired[list[Time] | None]
    preempted: list[bool | int]
    minor_faults: list[Number]
    throughput: list[Window] | None
    units: NotRequired[Time]
    warmup: WarmUpFields


class MemberFields(SampleFields):
    """Raw samples of a member, and what it took to make it ready."""

    load_ms: NotNegative
    first_inference_ms: NotNegative
    compile_ms: NotRequired[NotNegative | None]
    capture_ms: NotRequired[NotNegative | None]
    parts: NotRequired[dict[str, SampleFields]]
    layers: NotRequired[Any]


class ReferenceFields(TypedDict):
    """The reference product beside a group."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    ms: Times
    warmup: NotRequired[WarmUpFields]


class InvocationFields(TypedDict):
    """The raw samples of one timed process: `bench.worker.invocation`."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    schema: Count
    session: str
    index: Count
    started_at: Moment
    seconds: NotNegative
    stages_s: NotRequired[StageFields]
    plan: NotRequired[PlanFields]
    cases: Annotated[dict[str, MemberFields], Field(min_length=1)]
    twin: MemberFields
    reference_gemm: ReferenceFields
    labels: list[str]
    allocator: NotRequired[Object]
    host: NotRequired[Object]


class FoundFields(TypedDict):
    """What one process alone found of a case, timed or counted."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    started_at: Moment
    readings: list[ReadingFields]
    flags: list[Flag]
    details: dict[str, Object]
    weights: Object
    layers: list[Layer]
    layers_info: LayersInfo
    part_layers: NotRequired[dict[str, LayersOfPart]]
    curves: NotRequired[list[CurveFields]]
    labels: NotRequired[LabelFields]
    torch: NotRequired[Object]


class ProbeFields(FoundFields):
    """What a probe found of a case: `bench.worker.probe`."""

    load_ms: NotNegative


class CountedFields(FoundFields):
    """What was counted of a case: `bench.worker.count`, in the shape of a probe that loaded nothing."""

    load_ms: None


class FineCount(TypedDict):
    """A case that was counted."""

    status: Literal["ok"]
    result: CountedFields


class Counts(TypedDict):
    """Per case key what was counted, or the status and the error."""

    cases: dict[str, Annotated[FineCount | NotFine, Field(discriminator="status")]]


class Drift(TypedDict):
    """Whether a machine has drifted from an earlier calibration, and why that is thought."""

    drift: str | None


class Guess(TypedDict):
    """Counts of one run on the meta device by part of the workload, or why there are none."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    macs: dict[str, NotNegative] | None


class Estimate(TypedDict):
    """Counts by case key."""

    macs: dict[str, Guess]


class Fault(TypedDict):
    """What stops a case from being built and run once."""

    status: str
    type: str
    message: str


class Rehearsed(TypedDict):
    """Faults by case key; None where there is none."""

    faults: dict[str, Fault | None]


#: Kind of a job (`bench.worker.child.JOBS`) -> kind of its result.
KINDS: dict[str, Any] = {
    "probe": ProbeFields,
    "invocation": InvocationFields,
    "prepare": Object,
    "calibrate": Drift | Calibration,
    "estimate": Estimate,
    "rehearse": Rehearsed,
    "count": Counts,
}
