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

from bench.canonical import BASELINE_METHOD, settings_text
from bench.config import catalogue as catalogues
from bench.config.catalogue import Catalogue, Entry
from bench.config.schema import Block, Config, Suite, explain
from bench.config.signatures import UNKNOWN, signature
from bench.errors import UsageError
from bench.host import machine
from bench.plan.case import Case

#: Where Linux describes the processors.
PROCESSORS = Path("/sys/devices/system/cpu")
#: With up to this many physical cores of our own we time on one thread: a second busy one would stall every barrier.
SMALL_HOST_CORES = 4


@dataclass(frozen=True)
class Group:
    """Cases that differ only in method and setting and are timed together; the baseline is one of them."""

    cases: tuple[Case, ...]

    @property
    def key(self) -> str:
        """The key of the baseline, which is what the group shares."""
        return self.cases[0].group_key

    @property
    def baseline(self) -> Case:
        """The case the others are compared with."""
        return next(case for case in self.cases if case.is_baseline)

    @property
    def label(self) -> str:
        """What the members share, for people."""
        return self.baseline.label


@dataclass(frozen=True)
class Plan:
    """All cases of a sweep in groups, and the catalogue entries behind their names."""

    suite: Suite
    groups: tuple[Group, ...]
    models: dict[str, Entry]
    methods: dict[str, Entry]
    task: Entry | None

    @property
    def cases(self) -> list[Case]:
        """Every case, group by group."""
        return [case for group in self.groups for case in group.cases]


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
    """Physical cores of the processors that this process may run on, of which one core can have several; None if unknown.

    Args:
        root: where the kernel describes the processors.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    try:
        files = [root / f"cpu{number}/topology/core_cpus_list" for number in os.sched_getaffinity(0)]
        return len({file.read_text().strip() for file in files})
    except OSError:  # an old kernel, or a container that hides it
        return None


def check_device(name: str) -> None:
    """Nothing, if the device is there.

    Raises:
        UsageError: it is not, with what is.
    """
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
        raise UsageError(f"device {name} clashes with torch {version('torch')}, which is built without CUDA: install a "
                         "CUDA build of torch or use device=cpu")  # fmt: skip


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(root: Path) -> str:
    """Hash of the names and sizes of all files below a folder: what a data set is, short of reading it."""
    rows = sorted((str(p.relative_to(root)), p.stat().st_size) for p in root.rglob("*") if p.is_file())
    if not rows:
        raise UsageError(f"data.root: the folder {root} holds no files")
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def _blocks(config: Config) -> list[Block]:
    """The grid's blocks with the command line's lists put in; `suite.models` selects, the others replace."""
    suite = config.suite
    blocks = suite.grids[config.grid]
    replaced = {
        name: value
        for name in ("methods", "resolutions", "batches", "dtypes")
        if (value := getattr(suite, name)) is not None
    }
    if config.model is not None:
        chosen = {"models": [config.model], "methods": [BASELINE_METHOD], "resolutions": [None], **replaced}
        return [_block(blocks[-1], chosen)]
    if suite.models is None:
        return [_block(block, replaced) for block in blocks]
    result = []
    for block in blocks:
        models = [model for model in block.models if model in suite.models]
        result += [_block(block, {"models": models, **replaced})] if models else []
    known = {model for block in blocks for model in block.models}
    new = [model for model in suite.models if model not in known]
    return result + ([_block(blocks[-1], {"models": new, **replaced})] if new else [])


def _block(block: Block, changes: dict[str, Any]) -> Block:
    try:
        return Block(**{**block.model_dump(), **changes})
    except ValidationError as error:
        raise UsageError(explain(error, ("suite",))) from error


def default_resolution(model: Entry, settings: dict[str, Any]) -> int | None:
    """The resolution that a model takes when none is asked for; None if it does not say."""
    preset = {**model.settings, **settings}.get("resolution")
    known = signature(model.path).settings.get("resolution")
    value = preset if preset is not None else (known[1] if known else None)
    return value if isinstance(value, int) else None


class _Expansion:
    """Turns blocks into cases, resolving each name once."""

    def __init__(self, config: Config, catalogue: Catalogue):
        self.config, self.catalogue = config, catalogue
        self.models: dict[str, Entry] = {}
        self.methods: dict[str, Entry] = {}
        self.digests: dict[str, str] = {}
        self.threads = threads(config)
        self.checkpoint = file_digest(Path(config.checkpoint)) if config.checkpoint else None
        self.data = folder_digest(Path(config.data.root)) if config.data.root else None

    def cases(self, blocks: Iterable[Block]) -> Iterator[Case]:
        for block in blocks:
            methods = [BASELINE_METHOD, *block.methods]
            axes = itertools.product(block.models, block.resolutions, block.batches, block.dtypes, methods)
            for model, resolution, batch, dtype, method in axes:
                yield self.case(model, method, resolution, batch, dtype)

    def case(self, model_spec: str, method_spec: str, resolution: int | None, batch: int, dtype: str) -> Case:
        model, model_settings = self._model(model_spec)
        method, settings, digest = self._method(method_spec)
        self._check_resolution(model, resolution)
        resolution = resolution or default_resolution(model, model_settings)
        native = model.task if model.task == self.config.task_name else None
        task = self.config.task_name if self.config.data.root else native
        if self.checkpoint is not None and native is not None and not self.config.data.root:
            raise UsageError(
                f'checkpoint={self.config.checkpoint} clashes with task={native}, which trains the weights of "{model.name}" '
                "itself: use task=none, or task=imagefolder with data.root=..."
            )
        device = self.config.device
        return Case(
            suite=self.config.suite.name, model=model.name, model_settings=settings_text(model_settings),
            method=method, setting=settings_text(settings), device=device.name, dtype=dtype, batch=batch,
            resolution=resolution, task=task or "none", data=self.data, checkpoint=self.checkpoint,
            seed=self.config.seed, threads=self.threads, compile=device.compile, cuda_graphs=device.cuda_graphs,
            memory_format=device.memory_format, protocol=self.config.protocol.hash,
            subject_digest=self._digest(model) + (f"+{digest}" if digest else ""),
        )  # fmt: skip

    def _digest(self, entry: Entry) -> str:
        if entry.name not in self.digests:
            self.digests[entry.name] = entry.digest
        return self.digests[entry.name]

    def _model(self, spec: str) -> tuple[Entry, dict[str, Any]]:
        name, settings = catalogues.parse_spec(spec)
        if name not in self.models:
            self.models[name] = self.catalogue.model(name)
        catalogues.check_model(self.models[name], settings)
        return self.models[name], settings

    def _method(self, spec: str) -> tuple[str, dict[str, Any], str]:
        name, settings = catalogues.parse_spec(spec)
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


def make(config: Config, catalogue: Catalogue) -> Plan:
    """The cases of a configuration, in groups of the grid's order, each once.

    Raises:
        UsageError: an unknown model, method or setting, a device that is not there, or settings that clash.
    """
    check_device(config.device.name)
    blocks = _blocks(config)
    if config.checkpoint is not None:
        models = {model for block in blocks for model in block.models}
        if len(models) > 1:
            raise UsageError(
                f"checkpoint={config.checkpoint} clashes with {len(models)} models: name the one it belongs to with "
                f"suite.models=[{min(models)}]"
            )
    task = None
    if config.task_name != "none":
        task = catalogue.task(config.task_name)
    expansion = _Expansion(config, catalogue)
    groups: dict[str, dict[str, Case]] = {}
    for case in expansion.cases(blocks):
        groups.setdefault(case.group_key, {})[case.key] = case
    made = tuple(Group(tuple(members.values())) for members in groups.values())
    return Plan(config.suite, made, expansion.models, expansion.methods, task)
