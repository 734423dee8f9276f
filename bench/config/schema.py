"""The composed configuration, validated: one frozen model, errors that name the key, the value and the remedy."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from bench import workloads
from bench.config.axes import OVERRIDES
from bench.config.protocol import Energy, Protocol, Section
from bench.config.verbs import JOBS, RETRIES
from bench.errors import UsageError, did_you_mean, no_such
from bench.foreign_text import shortened

DTYPES = ("fp32", "tf32", "bf16", "fp16", "fp64")
#: Modes of the compiler in which it captures CUDA graphs itself.
CAPTURING_MODES = ("reduce-overhead", "max-autotune")


class Against(Section):
    """The other side of a comparison: the axes in which it differs from a block's members."""

    model: str | None = None
    method: str | None = None
    backend: str | None = None
    dtype: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _says_something(self) -> Against:
        if not self.named:
            raise ValueError("against names nothing: give a model, a method, a backend or a dtype")
        return self

    @property
    def named(self) -> dict[str, str]:
        """What it names, by axis."""
        return self.model_dump(exclude_none=True)


class Block(Section):
    """One rectangle of a grid: every combination of its lists is a case.

    `batches` and `resolutions` are shorthand for those axes of `shapes`. With `against` all members are timed together
    with the side that it names and compared with it; without, each model with method `none` is what its methods are
    compared with. `task` is what its models are scored on where that is not the suite's own.
    """

    models: list[str] = Field(min_length=1)
    methods: list[str] = Field(["none"], min_length=1)
    workload: str = "forward"
    shapes: dict[str, list[Any]] = Field(default_factory=dict)
    resolutions: list[int | None] = Field([None], min_length=1)
    batches: list[int] = Field([1], min_length=1)
    dtypes: list[str] = Field(["fp32"], min_length=1)
    backends: list[str] = Field(["eager"], min_length=1)
    against: Against | None = None
    task: str | None = None

    @field_validator("batches")
    @classmethod
    def _positive(cls, values: list[int]) -> list[int]:
        if any(value < 1 for value in values):
            raise ValueError("a batch is 1 or more")
        return values

    @field_validator("resolutions")
    @classmethod
    def _resolvable(cls, values: list[int | None]) -> list[int | None]:
        if any(value is not None and value < 1 for value in values):
            raise ValueError("a resolution is a positive number of pixels")
        return values

    @field_validator("dtypes")
    @classmethod
    def _known(cls, values: list[str]) -> list[str]:
        for value in values:
            if value not in DTYPES:
                raise ValueError(no_such("dtype", value, DTYPES))
        return values

    @model_validator(mode="after")
    def _of_the_workload(self) -> Block:
        """The block, its shapes checked; those of a workload of the user's own, a module, only where it is planned."""
        try:
            if not workloads.is_own(self.workload):
                self.check_shapes()
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self

    def check_shapes(self) -> None:
        """Raise UsageError unless there is such a workload and it has axes of these names and values."""
        workload = workloads.find(self.workload)
        for name, values in self.shape_lists.items():
            for value in values:
                workload.axis(name).checked(value)

    @property
    def shape_lists(self) -> dict[str, list[Any]]:
        """Values of the workload's axes that the block gives, shorthand included.

        Raises:
            ValueError: an axis is given twice, or has no values.
        """
        short = {"batch": "batches", "resolution": "resolutions"}
        lists = {axis: getattr(self, key) for axis, key in short.items() if key in self.model_fields_set}
        for name, values in self.shapes.items():
            if not values:
                raise ValueError(f"shapes.{name} has no values")
            if name in lists and lists[name] != values:
                raise ValueError(f"shapes.{name} and {short[name]} both give values: keep one")
        return {name: values for name, values in {**lists, **self.shapes}.items() if values != [None]}


def _as_list(value: Any) -> Any:
    """One text as the list of it, so that a single name or pattern needs no brackets on the command line."""
    return [value] if isinstance(value, str) else value


class Suite(Section):
    """A suite file; `models`, `methods` and the further keys of a block override the grid from the command line."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", description="the suite's name")
    title: str = Field("", description="its title, in a line")
    description: str = Field("", description="what it is about, in a few sentences")
    task: str = Field("none", description="what its models are scored on, where a block names no task of its own")
    grids: dict[str, list[Block]] = Field(description="blocks of cases by the name of a grid")
    models: Annotated[list[str] | None, BeforeValidator(_as_list)] = Field(
        None, description="these models alone: of the blocks that have them, else of every block"
    )
    methods: Annotated[list[str] | None, BeforeValidator(_as_list)] = Field(
        None, description="in the place of every block's methods"
    )
    workload: str | None = Field(None, description="in the place of every block's workload")
    shapes: dict[str, list[Any]] | None = Field(None, description="in the place of every block's shapes, axis by axis")
    resolutions: list[int | None] | None = Field(None, description="in the place of every block's resolutions")
    batches: list[int] | None = Field(None, description="in the place of every block's batches")
    dtypes: list[str] | None = Field(None, description="in the place of every block's types of number")
    backends: list[str] | None = Field(None, description="in the place of every block's backends")
    against: Against | None = Field(None, description="in the place of every block's other side")

    @property
    def overrides(self) -> dict[str, Any]:
        """What replaces the blocks' own values, by the block's key."""
        given = {key: getattr(self, key) for key in OVERRIDES if key != "models"}
        return {key: value for key, value in given.items() if value is not None}


class Device(Section):
    """Where and how the subject runs; each of these is an axis of a case."""

    name: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    threads: int | Literal["auto"] = "auto"
    compile: Literal["off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "off"
    cuda_graphs: bool = False
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"

    @field_validator("threads", mode="before")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        if number != "auto" and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            raise ValueError("threads is 1 or more, or auto")
        return number

    @model_validator(mode="after")
    def _consistent(self) -> Device:
        if self.cuda_graphs and self.name == "cpu":
            raise ValueError("device.cuda_graphs=true clashes with device.name=cpu: take device=cuda or switch it off")
        if self.cuda_graphs and self.compile in CAPTURING_MODES:
            raise ValueError(
                f"device.cuda_graphs=true clashes with device.compile={self.compile}, which captures graphs itself: "
                "take device.compile=default or max-autotune-no-cudagraphs, or switch cuda_graphs off"
            )
        return self


class Timeouts(Section):
    """Seconds that each phase of a worker may take."""

    start: float = Field(60, gt=0)
    load: float = Field(600, gt=0)
    compile: float = Field(1200, gt=0)
    warmup: float = Field(600, gt=0)
    measure: float = Field(3600, gt=0)


class Executor(Section):
    """How worker processes are run; what follows `timeouts_s` is of pools of machines alone."""

    name: str = Field("local", min_length=1)
    retries: int = Field(1, ge=0, le=10)
    breaker: int = Field(5, ge=1)
    memory_share: float = Field(0.8, gt=0, le=1)
    timeouts_s: Timeouts = Timeouts()
    inner: str = Field("local", min_length=1, description="what runs the processes on a machine of a pool")
    machine_retries: int = Field(2, ge=0, le=10)
    address: str | None = None
    slot: str = Field("bench_slot", pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")
    label: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")
    gpus: int = Field(0, ge=0, le=64)
    affinity: Literal["near", "none"] = "near"
    exclusive: bool = True
    working_dir: str | None = None
    folder: str | None = None
    cluster: Literal["slurm", "local"] = "slurm"
    parallel: int = Field(8, ge=1, le=10_000)
    minutes: int | None = Field(None, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)


class Tracking(Section):
    """Where the mirror goes."""

    enabled: bool = True
    uri: str | None = None
    folder: str = "mlflow"
    experiment: str | None = Field(None, min_length=1)

    @field_validator("uri")
    @classmethod
    def _supported(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"^(https?://|sqlite:///|postgresql(\+\w+)?://|mysql(\+\w+)?://)", value):
            raise ValueError(f"{value!r} is no MLflow address; use http://host:port, sqlite:///file or null")
        return value


class Report(Section):
    """Whether and how the page is written."""

    enabled: bool = True
    show_paths: bool = False
    figure_seconds: float | None = Field(5.0, gt=0)
    grid_g_per_kwh: float | None = Field(None, ge=0)
    price_per_kwh: float | None = Field(None, ge=0)
    currency: str = Field("EUR", min_length=1, max_length=8)


class Task(Section):
    """What quality is measured on; null takes the suite's own."""

    name: str | None = None


class Data(Section):
    """The user's own data; `data=<file or folder>` is short for its root."""

    root: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"root": value} if isinstance(value, str) else value


def _joined(value: Any) -> Any:
    """A list of places as one text with commas, which is how several places of a side are kept; else the value."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return value


def _as_key(value: Any) -> Any:
    """A key that is all digits, which the command line takes for a number, as the text that it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _of_this_machine(places: str) -> str:
    """Folders, separated by commas, `file://` addresses as the folders that they name.

    Raises:
        ValueError: one is an address of another store.
    """
    return ",".join(map(_folder_of, places.split(","))) if "://" in places else places


def _folder_of(place: str) -> str:
    scheme, found, rest = place.strip().partition("://")
    if not found or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return place
    if scheme.lower() == "file" and rest.startswith("/"):
        return unquote(rest)
    raise ValueError(
        f"{place!r} is no folder of this machine. A store behind an address has no lock that ends with its holder, "
        "takes no line at the end of a journal and renames nothing in one step: two drivers could write at once, and a "
        "kill could cost a record. Name a folder, and copy it there when the sweep has ended "
        "(docs/howto/central_store.md)"
    )


class Paths(Section):
    """Folders that a sweep writes to, relative to where it is started."""

    results: Annotated[str, BeforeValidator(_joined), AfterValidator(_of_this_machine)] = Field("results", min_length=1)
    site: Annotated[str, AfterValidator(_of_this_machine)] = Field("site", min_length=1)
    cache: Annotated[str, AfterValidator(_of_this_machine)] = Field("cache", min_length=1)


class Config(Section):
    """Everything a job needs to know."""

    job: Literal[JOBS] = "run"  # type: ignore[valid-type]
    grid: str = "default"
    model: str | None = None
    checkpoint: str | None = None
    seed: int = Field(0, ge=0, lt=2**31)
    row: Annotated[str | None, BeforeValidator(_as_key)] = None
    a: Annotated[str | None, BeforeValidator(_joined)] = None
    b: Annotated[str | None, BeforeValidator(_joined)] = None
    sources: Annotated[str | None, BeforeValidator(_joined)] = None
    since: Annotated[str | None, BeforeValidator(_as_key)] = None
    all: bool = False
    word: str | None = None
    trust: bool = False
    retry: Literal[RETRIES] = "none"  # type: ignore[valid-type]
    retry_failed: bool = False
    counts: bool = True
    suite: Suite
    protocol: Protocol
    device: Device = Device()
    executor: Executor = Executor()
    tracking: Tracking = Tracking()
    report: Report = Report()
    task: Task = Task()
    data: Data = Data()
    paths: Paths = Paths()

    @property
    def task_name(self) -> str:
        """The task in force where a block names none of its own: the one asked for, else the suite's."""
        return self.task.name or self.suite.task

    @property
    def retries(self) -> str:
        """Which rows are measured again; `retry_failed=true` is the older spelling of `retry=all`."""
        return "all" if self.retry_failed else self.retry

    def task_of(self, block: Block) -> str:
        """The task in force for a block: the one asked for, else the block's, else the suite's.

        With data of the user's the block's own is left out, for it brings its data along.
        """
        own = None if self.data.root else block.task
        return self.task.name or own or self.suite.task

    @model_validator(mode="after")
    def _clashes(self) -> Config:
        if self.grid not in self.suite.grids:
            raise ValueError(
                f'suite "{self.suite.name}" has no grid "{self.grid}"; {did_you_mean(self.grid, self.suite.grids)}'
            )
        root = self.data.root  # whether the task takes any is said by the task itself, see `bench.plan.plan`
        if root is not None and not _is_there(root) and not _is_there(root, folder=True):
            raise ValueError(f"data.root: there is no file or folder {root}")
        if self.checkpoint is not None and not _is_there(self.checkpoint):
            raise ValueError(f"checkpoint: there is no file {self.checkpoint}")
        if self.protocol.latency.l2 == "cold" and self.device.name == "cpu":
            raise ValueError(
                "protocol.latency.l2=cold clashes with device.name=cpu: the L2 cache that is flushed is a "
                "GPU's; take device=cuda or protocol.latency.l2=warm"
            )
        self._check_dtypes()
        _check_energy(self.protocol.energy)
        if self.job == "reproduce" and not (self.row or "").strip():
            raise ValueError("job=reproduce needs row=<key of a row, or a bundle>")
        if self.job == "verify" and self.row is not None and not _is_there(self.row):
            raise ValueError(f"row: there is no bundle {self.row}")
        if self.job == "merge" and not (self.sources or "").strip(", "):
            raise ValueError("job=merge needs sources=<results folders and bundles>; they go into paths.results")
        sides = (self.a, self.b)
        if self.job == "compare" and sides != (None, None) and not all((side or "").strip(", ") for side in sides):
            raise ValueError(
                "job=compare needs both a=<results> and b=<results>, or neither for the history of paths.results"
            )
        return self

    def _check_dtypes(self) -> None:
        """Raise ValueError for TF32 on a CPU, which would be fp32 under another name."""
        dtypes = self.suite.dtypes
        if dtypes is None:
            dtypes = [dtype for block in self.suite.grids[self.grid] for dtype in block.dtypes]
        if "tf32" in dtypes and self.device.name == "cpu":
            raise ValueError(
                "suite.dtypes=[tf32] clashes with device.name=cpu: only a GPU computes in TF32; take device=cuda "
                "or suite.dtypes=[fp32]"
            )


def _check_energy(energy: Energy) -> None:
    """Raise ValueError unless the source of joules has what it needs and nothing else, and its log is there."""
    if energy.backend == "external" and energy.csv is None:
        raise ValueError(
            "protocol.energy.backend=external clashes with protocol.energy.csv=null: name the file that the "
            "meter writes"
        )
    if energy.backend == "estimate" and energy.watts is None:
        raise ValueError(
            "protocol.energy.backend=estimate clashes with protocol.energy.watts=null: state the device's "
            "full-load watts, from the maker's data sheet"
        )
    if energy.csv is not None and energy.backend != "external":
        raise ValueError(
            f"protocol.energy.csv={energy.csv} clashes with protocol.energy.backend={energy.backend}: a wall "
            "meter's log is read by protocol.energy.backend=external"
        )
    if energy.watts is not None and energy.backend != "estimate":
        raise ValueError(
            f"protocol.energy.watts={energy.watts:g} clashes with protocol.energy.backend={energy.backend}: "
            "nothing is estimated unless asked for with protocol.energy.backend=estimate"
        )
    if energy.csv is not None and not _is_there(energy.csv):
        raise ValueError(f"protocol.energy.csv: there is no file {energy.csv}")


def _is_there(text: str, *, folder: bool = False) -> bool:
    """Whether there is such a file or folder; a name that no file can have is not there."""
    try:
        return Path(text).is_dir() if folder else Path(text).is_file()
    except (OSError, ValueError):
        return False


def _fields_at(location: tuple[Any, ...]) -> list[str]:
    """Names that would have been right where an unknown key was found."""
    model: Any = Config
    for part in location:
        model = _inner_model(model.model_fields[part].annotation) if _has(model, part) else model
        if model is None:
            return []
    return list(model.model_fields) if _is_model(model) else []


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _has(model: Any, part: Any) -> bool:
    return _is_model(model) and part in model.model_fields


def _inner_model(annotation: Any) -> Any:
    if _is_model(annotation):
        return annotation
    if get_origin(annotation) in (list, dict, Union, types.UnionType):
        for inner in get_args(annotation):
            found = _inner_model(inner)
            if found is not None:
                return found
    return None


def all_keys(model: type[BaseModel] | None = None, prefix: str = "") -> list[str]:
    """Every dotted key of the configuration."""
    keys = []
    for name, field in (model or Config).model_fields.items():
        keys.append(prefix + name)
        if _is_model(field.annotation):
            keys += all_keys(cast(type[BaseModel], field.annotation), f"{prefix}{name}.")
    return keys


def explain(error: ValidationError, prefix: tuple[str, ...] = ()) -> str:
    """One line per problem: where, what, what to do."""
    lines = []
    for item in error.errors():
        location = (*prefix, *item["loc"])
        where = ".".join(shortened(str(part)) for part in location)
        given = shortened(repr(item["input"]))
        if item["type"] == "extra_forbidden":
            lines.append(
                f'unknown key "{where}"; {did_you_mean(shortened(str(location[-1])), _fields_at(location[:-1]))}'
            )
        elif item["type"] == "value_error":
            message = str(item["msg"]).removeprefix("Value error, ")
            lines.append(f"{where}: {message}" if where else message)
        elif item["type"] == "literal_error":
            options = re.findall(r"'([^']+)'", item["ctx"]["expected"])
            lines.append(no_such(where, shortened(str(item["input"])), options))
        elif item["type"] == "missing":
            lines.append(f'the key "{where}" is missing')
        elif item["type"] == "list_type" and isinstance(item["input"], int | float | str):
            lines.append(f"{where}={given} is not valid: it is a list, {where}=[{shortened(str(item['input']))}]")
        else:
            lines.append(f"{where}={given} is not valid: {item['msg'][:1].lower()}{item['msg'][1:]}")
    return "\n".join(dict.fromkeys(lines))


def validate(tree: dict[str, Any]) -> Config:
    """The configuration that the composed tree describes.

    Raises:
        UsageError: an unknown key, a wrong type or range, or settings that clash.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UsageError(explain(error)) from error
