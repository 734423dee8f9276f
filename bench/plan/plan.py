"""From a validated configuration to cases and groups; nothing here imports torch."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError

from bench import backends, workloads
from bench.canonical import BASELINE_METHOD, OWN_NETWORKS, settings_text
from bench.config import cards
from bench.config import catalogue as catalogues
from bench.config.catalogue import Catalogue, Entry
from bench.config.schema import Against, Block, Config, Suite, explain
from bench.config.signatures import UNKNOWN, class_constant, signature
from bench.errors import UsageError
from bench.host import environment as machine
from bench.plan.case import Case
from bench.scores import DEFAULT_SCORE, RULES
from bench.workloads.workload import Workload

#: Where Linux describes the processors.
PROCESSORS = Path("/sys/devices/system/cpu")
#: Models that a message names.
MOST_NAMED = 5
#: With up to this many physical cores of our own we time on one thread: a second busy one would stall every barrier.
SMALL_HOST_CORES = 4


@dataclass(frozen=True)
class Group:
    """Cases that are compared with one of them, the baseline, and timed together."""

    cases: tuple[Case, ...]

    @property
    def key(self) -> str:
        """The key of the baseline, which is what the group shares."""
        return self.cases[0].group_key

    @property
    def baseline(self) -> Case:
        """The case the others are compared with."""
        return self.cases[0].baseline

    @property
    def label(self) -> str:
        """What the members share, for people."""
        return self.baseline.label


@dataclass(frozen=True)
class Plan:
    """All cases of a sweep in groups, and the catalogue entries behind their names.

    `unscored` says which models a task that was asked for by name does not score; empty without such a task or model.
    """

    suite: Suite
    groups: tuple[Group, ...]
    models: dict[str, Entry]
    methods: dict[str, Entry]
    tasks: dict[str, Entry]
    unscored: str = ""

    @property
    def cases(self) -> list[Case]:
        """Every case, group by group."""
        return [case for group in self.groups for case in group.cases]

    @property
    def scores(self) -> dict[str, str]:
        """The metric that each task scores, as far as its source says so."""
        named = {name: class_constant(task.path, "metric") for name, task in self.tasks.items()}
        return {name: str(metric) if metric in RULES else DEFAULT_SCORE for name, metric in named.items()}


def threads(config: Config) -> int:
    """The number of threads in force: one where few cores are ours, else as many as those, unless set."""
    if config.device.threads != "auto":
        return int(config.device.threads)
    cores = own_cores()
    return 1 if cores <= SMALL_HOST_CORES else cores


def own_cores() -> int:
    """Physical cores that this process may use: its affinity and its container's quota take the rest away."""
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    usable = cores_behind_affinity() or min(physical, machine.usable_cores() or physical)
    quota = machine.cgroup_limits()["cpu_cores"]
    return max(1, min(usable, int(quota or usable)))


def cores_behind_affinity(root: Path = PROCESSORS) -> int | None:
    """Physical cores of the processors that this process may run on; None if unknown.

    One core can have several processors.

    Args:
        root: where the kernel describes the processors.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    try:
        files = [root / f"cpu{number}/topology/core_cpus_list" for number in os.sched_getaffinity(0)]
        return len({file.read_text(encoding="utf-8").strip() for file in files})
    except OSError:  # an old kernel, or a container that hides it
        return None


def check_device(name: str) -> None:
    """Raise UsageError unless the device is there; the error names the devices that are."""
    if name == "cpu":
        return
    from bench.host.gpus import count_visible
    from bench.host.visible_gpus import index_of

    count, why = count_visible()
    if count == 0:
        raise UsageError(f"device {name} is not there: {why}; use device=cpu")
    if index_of(name) >= count:
        there = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise UsageError(f"device {name} is not there: CUDA sees {there}")
    if version("torch").endswith("+cpu"):
        raise UsageError(
            f"device {name} clashes with torch {version('torch')}, which is built without CUDA: install a "
            "CUDA build of torch or use device=cpu"
        )


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_digest(root: Path) -> str:
    """What the user's data is: of a file its hash, of a folder that of the names and sizes of all files below it."""
    if root.is_file():
        return file_digest(root)
    rows = sorted((str(p.relative_to(root)), p.stat().st_size) for p in root.rglob("*") if p.is_file())
    if not rows:
        raise UsageError(f"data.root: the folder {root} holds no files")
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def _blocks(config: Config, catalogue: Catalogue) -> list[Block]:
    """The grid's blocks with the command line's lists put in; `suite.models` selects, the others replace."""
    suite = config.suite
    blocks = [_block(block, {"models": _named(block.models, catalogue)}) for block in suite.grids[config.grid]]
    replaced = suite.overrides
    if config.model is not None:
        named = _named([config.model], catalogue)
        chosen = {
            "models": named,
            "methods": [BASELINE_METHOD],
            "resolutions": [None],
            "against": None,
            **replaced,
        }
        return [_block(_alike(blocks, named[0], config, catalogue), chosen)]
    if suite.models is None:
        return [_block(block, replaced) for block in blocks]
    known = {model: None for block in blocks for model in block.models}
    spelled = {_canonical(model): model for model in known}  # one may quote or order settings in another way
    wanted = [spelled.get(_canonical(model), model) for model in _named(suite.models, catalogue, known)]
    result = []
    for block in blocks:
        models = [model for model in block.models if model in wanted]
        result += [_block(block, {"models": models, **replaced})] if models else []
    homes: dict[int, tuple[Block, list[str]]] = {}
    for model in (model for model in wanted if model not in known):
        block = _alike(blocks, model, config, catalogue)
        homes.setdefault(id(block), (block, []))[1].append(model)
    return result + [_block(_bare(block, suite), {"models": new, **replaced}) for block, new in homes.values()]


def _canonical(spec: str) -> str:
    name, settings = catalogues.parse_spec(spec)
    return f"{name}({settings_text(settings)})"


def _alike(blocks: list[Block], spec: str, config: Config, catalogue: Catalogue) -> Block:
    """The block that a model is measured as: one that has it, else the last of its workload, else the last of all.

    The workload is the one asked for, the one on its card, or a forward for a network of a library or of one's own.
    """
    own = [block for block in blocks if _canonical(spec) in map(_canonical, block.models)]
    if own:
        return own[-1]
    name, _ = catalogues.parse_spec(spec)
    entry = catalogue.model(name)
    card = cards.of_rows(entry.folder, entry.name, "model") if entry.folder is not None else None
    of_others = ":" in name  # `timm:resnet18`, `mypackage.nets:mine`
    wanted = config.suite.workload or (card.workload if card else workloads.FORWARD if of_others else None)
    return ([block for block in blocks if block.workload == wanted] or blocks)[-1]


def _bare(block: Block, suite: Suite) -> Block:
    """What of a block holds for other models: of bare functions neither the sizes nor whom another is compared with."""
    if (suite.workload or block.workload) != workloads.OPERATOR:
        return block
    kept = block.model_dump(exclude_unset=True)
    for key in ("shapes", "batches", "resolutions", "against", "task"):
        kept.pop(key, None)
    return Block(**kept)


def _named(specs: Iterable[str], catalogue: Catalogue, among: Iterable[str] = ()) -> list[str]:
    """Specs of models, each once, with the models that a pattern names in place of the pattern.

    Raises:
        UsageError: a pattern names none.
    """
    named: dict[str, None] = {}
    for spec in specs:
        for model in catalogue.matching(spec, among) if catalogues.is_pattern(spec) else [spec]:
            named[model] = None
    return list(named)


def _block(block: Block, changes: dict[str, Any]) -> Block:
    """The block with these keys set; axes of a shape replace one by one, another workload drops the old shape."""
    kept = block.model_dump(exclude_unset=True)
    if "workload" in changes and changes["workload"] != block.workload:
        kept = {key: value for key, value in kept.items() if key not in ("shapes", "batches", "resolutions")}
    short = {"batches": "batch", "resolutions": "resolution"}
    shapes = {**kept.get("shapes", {}), **changes.get("shapes", {})}
    for key, axis in short.items():
        if key in changes:
            shapes.pop(axis, None)
        if axis in changes.get("shapes", {}):
            kept.pop(key, None)
    try:
        return Block(**{**kept, **changes, "shapes": shapes})
    except ValidationError as error:
        raise UsageError(explain(error, ("suite",))) from error


def default_resolution(model: Entry, settings: dict[str, Any]) -> int | None:
    """The resolution that a model takes when none is asked for; None if it does not say."""
    preset = {**model.settings, **settings}.get("resolution")
    known = signature(model.path).settings.get("resolution")
    value = preset if preset is not None else (known[1] if known else None)
    return value if isinstance(value, int) else None


def own_backend(model: Entry, asked: str) -> str:
    """The backend that runs a model: the one asked for, or the model's own where eager torch cannot run it.

    Raises:
        UsageError: it runs in one backend only, and another one is asked for.
    """
    if not model.backend or asked == model.backend:
        return asked
    if asked != backends.EAGER:
        raise UsageError(
            f'backend {asked} clashes with model "{model.name}", which {model.backend} runs as it is: take '
            f"suite.backends=[{model.backend}]"
        )
    return model.backend


class _Expansion:
    """Turns blocks into cases, resolving each name once."""

    def __init__(self, config: Config, catalogue: Catalogue):
        self.config, self.catalogue = config, catalogue
        self.models: dict[str, Entry] = {}
        self.methods: dict[str, Entry] = {}
        self.digests: dict[str, str] = {}
        self._specs: dict[str, tuple[str, dict[str, Any]]] = {}
        self.threads = threads(config)
        self.checkpoint = file_digest(Path(config.checkpoint)) if config.checkpoint else None
        self.data = data_digest(Path(config.data.root)) if config.data.root else None

    def cases(self, blocks: Iterable[Block]) -> Iterator[Case]:
        for block in blocks:
            workload = workloads.find(block.workload)
            block.check_shapes()
            for name in block.backends:
                backends.find(name)  # a name that does not exist is told before anything runs
            lists = block.shape_lists
            shapes = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
            methods = [BASELINE_METHOD, *block.methods] if block.against is None else block.methods
            axes = itertools.product(block.models, shapes, block.dtypes, block.backends, methods)
            for model, shape, dtype, backend, method in axes:
                own = {"model": model, "method": method, "dtype": dtype, "backend": backend}
                own["task"] = self.config.task_of(block)
                yield from self._sides(workload, shape, own, block.against)

    def _sides(
        self, workload: Workload, shape: dict[str, Any], own: dict[str, str], against: Against | None
    ) -> Iterator[Case]:
        """The case of these axes, after the side that it is compared with where the block names one."""
        case = self.case(workload, shape, **own)
        if against is None:
            yield case
            return
        other = self.case(workload, shape, **{**own, "method": BASELINE_METHOD, **against.named})
        try:
            compared = case.compared_with(other)
        except ValueError as error:
            raise UsageError(f"against {against.named}: {case.label} and {other.label}: {error}") from error
        yield compared.baseline
        yield compared

    def case(
        self, workload: Workload, given: dict[str, Any], *, model: str, method: str, dtype: str, backend: str, task: str
    ) -> Case:
        entry, model_settings = self._model(model)
        backend = own_backend(entry, backend)
        method_name, settings, digest = self._method(method)
        shape = workload.shape(given)
        resolution = shape.pop("resolution", None)
        self._check_resolution(entry, resolution)
        if "resolution" in {axis.name for axis in workload.axes}:
            resolution = resolution or default_resolution(entry, model_settings)
        device = self.config.device
        return Case(
            suite=suite_of(self.config, entry, self.catalogue),
            model=entry.name,
            model_settings=settings_text(model_settings),
            method=method_name,
            setting=settings_text(settings),
            device=device.name,
            dtype=dtype,
            batch=int(shape.pop("batch")),
            resolution=resolution,
            task=self._task(entry, task),
            data=self.data,
            checkpoint=self.checkpoint,
            seed=self.config.seed,
            threads=self.threads,
            compile=_compile_mode(device.compile, backend),
            cuda_graphs=device.cuda_graphs,
            memory_format=device.memory_format,
            protocol=self.config.protocol.hash,
            subject_digest=self._digest(entry) + (f"+{digest}" if digest else ""),
            workload=workload.name,
            shape=settings_text(shape),
            backend=backend,
        )

    def _task(self, model: Entry, asked: str) -> str:
        """The task that a case of this model is scored on, `none` without one.

        Args:
            model: whose catalogue entry names the task that it is made for.
            asked: the task in force for its block.
        """
        native = model.task if model.task == asked else None
        if self.checkpoint is not None and native is not None and not self.config.data.root:
            raise UsageError(
                f"checkpoint={self.config.checkpoint} clashes with task={native}, which trains the weights of "
                f'"{model.name}" itself: use task=none, or a task of your own data with data.root=...'
            )
        return (asked if self.config.data.root else native) or "none"

    def _digest(self, entry: Entry) -> str:
        if entry.name not in self.digests:
            self.digests[entry.name] = entry.digest
        return self.digests[entry.name]

    def _parsed(self, spec: str) -> tuple[str, dict[str, Any]]:
        if spec not in self._specs:
            self._specs[spec] = catalogues.parse_spec(spec)
        return self._specs[spec]

    def _model(self, spec: str) -> tuple[Entry, dict[str, Any]]:
        name, settings = self._parsed(spec)
        if name not in self.models:
            self.models[name] = self.catalogue.model(name)
        catalogues.check_model(self.models[name], settings)
        return self.models[name], settings

    def _method(self, spec: str) -> tuple[str, dict[str, Any], str]:
        name, settings = self._parsed(spec)
        if name == BASELINE_METHOD:
            if settings:
                raise UsageError(f'"{spec}": the method none has no settings')
            return name, {}, ""
        if name not in self.methods:
            self.methods[name] = self.catalogue.method(name)
        catalogues.check_method(self.methods[name], settings)
        return name, settings, self._digest(self.methods[name])

    def _check_resolution(self, model: Entry, resolution: int | None) -> None:
        if resolution is None or model.accepts("resolution") or signature(model.path) is UNKNOWN:
            return
        raise UsageError(
            f'resolutions=[{resolution}] clashes with model "{model.name}", which takes no resolution: '
            "use suite.resolutions=[null]"
        )


def check_data(config: Config, task: Entry | None) -> None:
    """Raise UsageError unless `data.root` is set for a task that takes it, and only then: its constructor's `root`."""
    takes = task is not None and task.accepts("root")
    if takes and config.data.root is None:
        raise UsageError(
            f"task={config.task_name} clashes with data.root=null: name the user's file or folder with data.root=..."
        )
    if config.data.root is not None and not takes:
        raise UsageError(
            f"data.root={config.data.root} clashes with task={config.task_name}, which has its own data: add "
            "task=imagefolder, task=textfile or task=given_costs"
        )


def _compile_mode(mode: str, backend: str) -> str:
    """The compiler's mode in force: the backend `compile` is the default mode unless another one is set."""
    if backend == "compile":
        return "default" if mode == "off" else mode
    return mode if backend == "eager" else "off"


def make(config: Config, catalogue: Catalogue) -> Plan:
    """The cases of a configuration, in groups of the grid's order, each once.

    Raises:
        UsageError: an unknown model, method or setting, a device that is not there, or settings that clash.
    """
    check_device(config.device.name)
    blocks = _blocks(config, catalogue)
    if config.checkpoint is not None:
        models = {model for block in blocks for model in block.models}
        if len(models) > 1:
            raise UsageError(
                f"checkpoint={config.checkpoint} clashes with {len(models)} models: name the one it belongs to with "
                f"suite.models=[{min(models)}]"
            )
    asked = dict.fromkeys(config.task_of(block) for block in blocks)
    tasks = {name: catalogue.task(name) for name in asked if name != "none"}
    check_data(config, next(iter(tasks.values()), None))
    expansion = _Expansion(config, catalogue)
    groups: dict[str, dict[str, Case]] = {}
    for case in expansion.cases(blocks):
        groups.setdefault(case.group_key, {})[case.key] = case
    made = tuple(Group(tuple(members.values())) for members in groups.values())
    unscored = _unscored(config, [case for group in made for case in group.cases])
    return Plan(_suite(config, made), made, expansion.models, expansion.methods, tasks, unscored)


def suite_of(config: Config, model: Entry, catalogue: Catalogue) -> str:
    """The suite that a case belongs to: the chosen one, unless that only lends its grid to a network of the user's."""
    own = config.model is not None and model.name not in catalogue.models
    return OWN_NETWORKS if own else config.suite.name


def _suite(config: Config, groups: Iterable[Group]) -> Suite:
    """The suite of a plan, under the name that all its cases have."""
    if {case.suite for group in groups for case in group.cases} == {OWN_NETWORKS}:
        return config.suite.model_copy(update={"name": OWN_NETWORKS})
    return config.suite


def _unscored(config: Config, cases: Iterable[Case]) -> str:
    """Which models the task that was asked for by name does not score, and why."""
    if config.task.name in (None, "none"):
        return ""
    models = list(dict.fromkeys(case.model for case in cases if case.task == "none"))
    if not models:
        return ""
    named = ", ".join(models[:MOST_NAMED]) + (", ..." if len(models) > MOST_NAMED else "")
    return (
        f"task={config.task.name} has no weights for {named}: their cost is measured and no quality; weights of your "
        "own come with checkpoint=..., images or text of your own with data.root=..."
    )
