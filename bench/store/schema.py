"""The kinds of everything that is written down and read again: the record, a worker's outcome, a journal's entries.

One record is one JSON object. Fields that are named here are of their kind wherever they stand, which is what every
reader relies on: table, comparison, pages and mirror ask no further. Fields that are not named are a later version's,
or details of a meter that no reader computes with, and are carried along. Units are in the names; a moment is UTC in
ISO 8601.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field
from typing_extensions import TypedDict

from bench.canonical import parse_settings
from bench.config.axes import CROSSABLE, ITSELF
from bench.labels import LABELS
from bench.reading import STATUSES

#: Numbers beyond are nothing that was measured, and their products are no numbers.
LARGEST = 1e30
_OPEN = ConfigDict(extra="allow")


def _moment(text: str) -> str:
    datetime.fromisoformat(text)
    return text


@lru_cache(maxsize=4096)  # the rows of a sweep share a few
def _settings(text: str) -> str:
    parse_settings(text)
    return text


def _other_side(text: str) -> str:
    if text and text != ITSELF and parse_settings(text).keys() - CROSSABLE:
        raise ValueError("names an axis in which the sides of a comparison must be alike")
    return text


Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}$")]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Time = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**63)]
Moment = Annotated[str, AfterValidator(_moment)]
#: Where the raw samples of a process are, below the results folder.
SamplesFile = Annotated[
    str, Field(max_length=200, pattern=r"^samples/[A-Za-z0-9_-][A-Za-z0-9_.-]*/[A-Za-z0-9_-][A-Za-z0-9_.-]*$")
]
Settings = Annotated[str, AfterValidator(_settings)]
Status = Literal[STATUSES]  # type: ignore[valid-type]
Object = dict[str, Any]
Shapes = list[list[Count]]


class Flag(TypedDict):
    """Something that a reader of the row should know."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    code: str
    severity: Literal["info", "warn", "invalid"]
    text: str


class CaseFields(TypedDict):
    """The fields of `bench.plan.case.Case`, whose keys are recomputed where that matters."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    suite: str
    model: str
    method: str
    model_settings: str
    setting: str
    device: str
    dtype: str
    batch: Annotated[int, Field(ge=1, le=2**31)]
    resolution: Annotated[int, Field(ge=1, le=2**31)] | None
    task: str
    data: str | None
    checkpoint: str | None
    seed: Count
    threads: Annotated[int, Field(ge=1, le=2**31)]
    compile: str
    cuda_graphs: bool
    memory_format: str
    protocol: str
    subject_digest: str
    workload: NotRequired[str]
    shape: NotRequired[Settings]
    backend: NotRequired[str]
    against: NotRequired[Annotated[str, AfterValidator(_other_side)]]
    against_digest: NotRequired[str]


class Failure(TypedDict):
    """Why a row has no numbers: in which phase, what kind, in words, and the end of the worker's log."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    phase: str
    type: str
    message: str
    log_tail: NotRequired[str]


class Code(TypedDict):
    """The instrument that measured; commit and state where it ran from a checkout."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    version: NotRequired[str | None]
    commit: NotRequired[str | None]
    dirty: NotRequired[bool | None]


class ProtocolPart(TypedDict):
    """The parameters of the measurement and their hash; see `bench.config.protocol.Protocol.as_record`."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    version: NotRequired[Count | None]
    name: NotRequired[str | None]
    hash: NotRequired[str | None]
    parameters: NotRequired[Object]


class Rate(TypedDict):
    """A rate that the machine reached, with its range over repetitions."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    value: Time
    unit: NotRequired[str]
    dtype: NotRequired[str]
    threads: NotRequired[Count]
    low: NotRequired[NotNegative | None]
    high: NotRequired[NotNegative | None]
    n: NotRequired[Count | None]


class Peak(Rate):
    """A peak arithmetic rate; its type of number names it."""

    dtype: str  # type: ignore[misc]


class Machine(TypedDict):
    """What the machine could do (`bench.meters.peaks`); peaks are empty where calibration failed."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    peaks: NotRequired[list[Peak]]
    bandwidth: NotRequired[Rate | None]
    notes: NotRequired[list[str]]
    stable: NotRequired[bool]
    unsupported: NotRequired[Object]


class Calibration(Machine):
    """A machine's calibration on disk."""

    peaks: list[Peak]  # type: ignore[misc]
    measured_at: NotRequired[Number]


class Processor(TypedDict):
    """The host's processor."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    model: NotRequired[str | None]
    vendor: NotRequired[str | None]
    architecture: NotRequired[str | None]
    physical_cores: NotRequired[Count | None]
    logical_cores: NotRequired[Count | None]
    usable_cores: NotRequired[Count | None]
    caches: NotRequired[list[Object] | None]
    flags: NotRequired[list[str] | None]


class Board(TypedDict):
    """One GPU."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    name: NotRequired[str | None]
    memory_bytes: NotRequired[Count | None]


class Environment(TypedDict):
    """What `bench.host.environment.environment` read, and under `torch` how the torch that measured was built."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    cpu: NotRequired[Processor | None]
    gpus: NotRequired[list[Board] | None]
    memory_bytes: NotRequired[Count | None]
    os: NotRequired[str | None]
    python: NotRequired[str | None]
    packages: NotRequired[dict[str, str | None] | None]
    variables: NotRequired[dict[str, str | None] | None]
    frequency: NotRequired[Object | None]
    limits: NotRequired[Object | None]
    memory: NotRequired[Object | None]
    gpu_driver: NotRequired[Object | None]
    private: NotRequired[Object | None]
    torch: NotRequired[Object | None]
    unreadable: NotRequired[dict[str, str | None] | None]


class ReadingFields(TypedDict):
    """The fields of `bench.reading.Reading`; a metric that is not known here is a later version's and is left out."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    metric: str
    value: Number | None
    unit: str
    provenance: str
    ci_low: Number | None
    ci_high: Number | None
    n: Count | None
    statistic: NotRequired[str]
    method_note: NotRequired[str]
    part: NotRequired[str]


class Layer(TypedDict):
    """A row of `bench.meters.layers`: what one module computed, moved and took."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    index: NotRequired[Count]
    name: NotRequired[str]
    module_path: str
    op: NotRequired[str | None]
    input_shapes: NotRequired[Shapes | None]
    output_shapes: NotRequired[Shapes | None]
    dtype: NotRequired[str | None]
    macs: NotRequired[NotNegative | None]
    vector_ops: NotRequired[NotNegative | None]
    bit_operations: NotRequired[NotNegative | None]
    read_bytes: NotRequired[NotNegative | None]
    write_bytes: NotRequired[NotNegative | None]
    weight_bytes: NotRequired[NotNegative | None]
    activation_bytes: NotRequired[NotNegative | None]
    intensity: NotRequired[NotNegative | None]
    calls: NotRequired[Count | None]
    operators: NotRequired[list[str] | None]
    uncounted: NotRequired[list[str] | None]
    tokens: NotRequired[Number | None]
    tokens_per_call: NotRequired[list[Number | None] | None]
    provenance_bytes: NotRequired[str | None]
    time_ms: NotRequired[Number | None]
    time_low_ms: NotRequired[Number | None]
    time_high_ms: NotRequired[Number | None]
    share: NotRequired[Number | None]


class LayersInfo(TypedDict):
    """What holds for all layers together."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    end_to_end_ms: NotRequired[Number | None]
    end_to_end_low_ms: NotRequired[Number | None]
    end_to_end_high_ms: NotRequired[Number | None]
    hooked_end_to_end_ms: NotRequired[Number | None]
    explained_ms: NotRequired[Number | None]
    unexplained_ms: NotRequired[Number | None]
    repeats: NotRequired[Count | None]
    processes: NotRequired[Count | None]
    reason: NotRequired[str | None]
    method_note: NotRequired[str | None]


class LayersOfPart(TypedDict):
    """The layers of a further part of the workload."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    layers: list[Layer]
    info: LayersInfo


class CurveFields(TypedDict):
    """The fields of `bench.reading.Curve`: a quantity over layers, steps, contexts or rates."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    metric: str
    index: str
    at: list[Number | str]
    values: list[Number | None]
    provenance: str
    part: NotRequired[str]
    note: NotRequired[str]
    unit: NotRequired[str]


class NoiseFloor(TypedDict):
    """The ratio of the baseline to its identical twin."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    value: NotRequired[Time | None]
    low: NotRequired[Time | None]
    high: NotRequired[Time | None]
    n: NotRequired[Count | None]


class PartLine(TypedDict):
    """What a timed process says of a further part of the workload; null where the other side has no such part."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    n: NotRequired[Count | None]
    block: NotRequired[Count | None]
    median_ms: Time
    baseline_median_ms: NotRequired[Time | None]
    twin_median_ms: NotRequired[Time | None]
    against_ms: NotRequired[Time | None]
    beside_twin_ms: NotRequired[Time | None]
    by_rounds: NotRequired[bool]
    throughput_per_s: NotRequired[Time | None]
    iqr_over_median: NotRequired[Number | None]


class InvocationLine(TypedDict):
    """One timed process, as it concerns the case; times are divided by each other and put on logs, so none is zero."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    index: Count
    samples_file: NotRequired[SamplesFile | None]
    n: NotRequired[Count | None]
    block: NotRequired[Count | None]
    median_ms: Time
    device_median_ms: NotRequired[Time | None]
    spans: NotRequired[dict[str, NotNegative]]
    baseline_median_ms: Time
    twin_median_ms: NotRequired[Time | None]
    against_ms: NotRequired[Time | None]
    beside_twin_ms: NotRequired[Time | None]
    by_rounds: NotRequired[bool]
    gemm_median_ms: NotRequired[Time | None]
    throughput_per_s: NotRequired[Time | None]
    first_inference_ms: NotRequired[NotNegative | None]
    compile_ms: NotRequired[NotNegative | None]
    capture_ms: NotRequired[NotNegative | None]
    compiled: NotRequired[Object | None]
    load_ms: NotRequired[NotNegative | None]
    steady_state: NotRequired[bool | None]
    warmup_s: NotRequired[NotNegative | None]
    set_aside: NotRequired[bool | None]
    labels: NotRequired[list[str]]
    iqr_over_median: NotRequired[Number | None]
    outlier_share: NotRequired[Number | None]
    preempted_share: NotRequired[Number | None]
    drift: NotRequired[Number | None]
    minor_faults_per_iteration: NotRequired[Number | None]
    started_at: NotRequired[Moment | None]
    seconds: NotRequired[NotNegative | None]
    gpu: NotRequired[Object | None]
    host: NotRequired[Object | None]
    l2: NotRequired[Object | None]
    parts: NotRequired[dict[str, PartLine] | None]


class Timing(TypedDict):
    """The session that timed the case: what pairs it with its baseline."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    session: NotRequired[str | None]
    paired: NotRequired[bool | None]
    stop_reason: NotRequired[str | None]
    noise_floor: NotRequired[NoiseFloor | None]
    clean: NotRequired[bool | None]
    invocations: NotRequired[list[InvocationLine] | None]


class Quality(TypedDict):
    """Answers per sample (`per_sample`: a text of 0 and 1, or a number each) on the samples of `samples_digest`."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    metric: NotRequired[str | None]
    details: NotRequired[Object | None]
    also: NotRequired[list[Object]]
    correct: NotRequired[Count | None]
    n: NotRequired[Count | None]
    accuracy: NotRequired[Number | None]
    ci_low: NotRequired[Number | None]
    ci_high: NotRequired[Number | None]
    per_sample: NotRequired[Annotated[str, Field(pattern=r"^[01]*$")] | list[Number] | None]
    samples_digest: NotRequired[str | None]
    task: NotRequired[Object | None]


def _labels(labels: dict[str, str | None]) -> dict[str, str | None]:
    for name, value in labels.items():
        if name not in LABELS or not (value is None or value in LABELS[name]):
            raise ValueError(f"names a label or a value that is not known: {name}={value!r}")
    return labels


#: What the subject says of how it ran (`bench.labels`): rows are ranked only with their like.
LabelFields = Annotated[dict[str, str | None], AfterValidator(_labels)]


class Picture(TypedDict):
    """Which token holds which patch (`bench.worker.pictures`)."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]


class RecordFields(TypedDict):
    """A record of the present schema: one case on one machine, measured or failed, with all its evidence."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    schema: Count
    record_key: Key
    case_key: Key
    group_key: Key
    baseline_key: Key
    machine_key: Key
    content_hash: str
    redacted_from: NotRequired[str | None]
    supersedes: str | None
    case: CaseFields
    status: Status
    error: Failure | None
    flags: NotRequired[list[Flag] | None]
    started_at: Moment
    finished_at: NotRequired[Moment | None]
    code: NotRequired[Code | None]
    protocol: ProtocolPart
    environment: NotRequired[Environment | None]
    machine: NotRequired[Machine | None]
    readings: list[ReadingFields]
    layers: NotRequired[list[Layer] | None]
    layers_info: NotRequired[LayersInfo | None]
    curves: NotRequired[list[CurveFields] | None]
    part_layers: NotRequired[dict[str, LayersOfPart] | None]
    workload: NotRequired[Object | None]
    counts: NotRequired[Object | None]
    params: NotRequired[Object | None]
    memory: NotRequired[Object | None]
    energy: NotRequired[Object | None]
    fidelity: NotRequired[Object | None]
    conversion: NotRequired[Object | None]
    quality: NotRequired[Quality | None]
    weights: NotRequired[Object | None]
    labels: NotRequired[LabelFields | None]
    timing: NotRequired[Timing | None]
    picture: NotRequired[Picture | None]
    claims: NotRequired[list[Any] | None]


class BundledFile(TypedDict):
    """A file of a bundle as its manifest lists it."""

    path: str
    bytes: Count
    sha256: str


class Manifest(TypedDict):
    """The table of contents of a bundle, with checksums."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    schema: Count
    kind: str
    files: list[BundledFile]
