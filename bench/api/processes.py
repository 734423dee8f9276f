"""Modules of the caller's in fresh processes: a sweep of one group whose results folder is gone afterwards."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.given import Given, dtype_of, name_of
from bench.errors import BenchError, DoesNotFit, UsageError
from bench.meters.table import METERS

if TYPE_CHECKING:
    from torch import nn

    from bench.config.protocol import Protocol
    from bench.config.schema import Config
    from bench.plan.case import Case
    from bench.sweep.loop import Driver

#: Sections that come from timed processes.
TIMED = {"latency", "throughput"}
#: Section -> the meter that gives it; a score needs a task, which a module that was handed over has not.
METER_OF = {meter.section: meter.name for meter in METERS if meter.section not in ("", "quality")}


@dataclass(frozen=True)
class Asked:
    """What fresh processes are asked for.

    Attributes:
        sections: of the metrics that are wanted.
        protocol: how they are measured.
        threads: of every process; None for the machine's own number.
        progress: whether a bar is drawn; None where somebody looks.
        title: what stands before the bar's steps.
        calibrations: a results folder from which the machine's peaks are read and in which they are kept; None where
            they are not wanted.
    """

    sections: frozenset[str]
    protocol: Protocol
    threads: int | None = None
    progress: bool | None = None
    title: str = ""
    calibrations: Path | None = None


def measured_records(
    module: nn.Module, baseline: nn.Module | None, given: Given, asked: Asked, baseline_name: str | None = None
) -> list[dict[str, Any]]:
    """Records of fresh processes; the module's own comes first.

    Args:
        module: what is measured.
        baseline: a module for the same inputs that it is timed beside.
        given: the module as a subject.
        asked: what of it is measured, and how.
        baseline_name: what the rows call the other module; default its class.

    Raises:
        UsageError: the module cannot be handed to another process.
        BenchError: it failed, with the phase and the message.
    """
    from bench.plan.plan import threads as default_threads

    modules = {"none": module} if baseline is None else {"none": baseline, given.name: module}
    own = "none" if baseline is None else given.name
    with tempfile.TemporaryDirectory(prefix="bench-measure-") as scratch:
        config = _configuration(given, asked, Path(scratch))
        cases: dict[str, Case] = {}
        pickles: dict[str, Path] = {}
        for method, item in modules.items():
            path = _pickle(item, given.call, Path(scratch), hashlib.sha256(method.encode()).hexdigest()[:8])
            source = "given" if method == "none" else f"given+{hashlib.sha256(path.read_bytes()).hexdigest()}"
            cases[method] = given.case(
                model=given.name if baseline is None else name_of(baseline, baseline_name),
                method=method,
                dtype=dtype_of(item),
                threads=default_threads(config),
                protocol=asked.protocol.hash,
                subject_digest=source,
            )
            pickles[cases[method].key] = path
        records = _swept(config, cases, pickles, asked)
    for record in records:
        _check_measured(record)
    return sorted(records, key=lambda record: record["case_key"] != cases[own].key)


def _configuration(given: Given, asked: Asked, folder: Path) -> Config:
    """The configuration of a sweep of one group, whose results are gone afterwards."""
    from bench.config.schema import validate

    return validate(
        {
            "suite": {"name": "measure", "grids": {"default": [{"models": ["given"], "methods": ["none"]}]}},
            "protocol": asked.protocol.model_dump(),
            "device": {"name": given.device, "threads": asked.threads or "auto"},
            "tracking": {"enabled": False},
            "paths": {"results": str(folder / "results")},
        }
    )


def _swept(
    config: Config, cases: Mapping[str, Case], pickles: Mapping[str, Path], asked: Asked
) -> list[dict[str, Any]]:
    """The records of these cases, timed together; `pickles` hold their modules by case key."""
    from bench.api.progress import Bar
    from bench.config.catalogue import Entry
    from bench.plan.plan import Group, Plan
    from bench.plan.recipe import Recipe
    from bench.sweep.loop import Driver

    first = next(iter(cases.values()))
    plan = Plan(config.suite, (Group(tuple(cases.values())),), {first.model: Entry(first.model, "")}, {}, {})
    calibrated = asked.calibrations is not None
    timed = bool(asked.sections - set(METER_OF))
    steps = len(cases) + (asked.protocol.latency.invocations if timed else 0) + calibrated
    with Bar(steps, asked.progress, asked.title) as bar:
        driver = Driver(
            config,
            plan,
            [bar],
            recipes=lambda case: Recipe(case, pickle=str(pickles[case.key])),
            meters=_meters(asked.sections),
            calibrated=calibrated,
            timed=timed,
        )
        if asked.calibrations is None:
            return list(driver.run({}).records)
        with _calibration(driver, asked.calibrations):
            return list(driver.run({}).records)


@contextmanager
def _calibration(driver: Driver, kept: Path) -> Iterator[None]:
    """Give the sweep the calibration that a results folder keeps, and the folder the one that the sweep makes."""
    from bench.plan.plan import threads
    from bench.store.records import Store

    config = driver.config
    own, other = (
        store.calibration_path(driver.machine_key, config.device.name, threads(config))
        for store in (driver.store, Store(kept))
    )
    if other.is_file():
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(other, own)
    yield
    if own.is_file():
        other.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(own, other)


def _check_measured(record: dict[str, Any]) -> None:
    """Raise BenchError for a record of a failure, with its phase and message; DoesNotFit where memory ran out."""
    error = record["error"]
    if record["status"] not in ("ok", "contaminated") and error:
        kind = DoesNotFit if record["status"] == "oom" else BenchError
        raise kind(
            f"{record['case']['model']} {record['status']} in the phase {error['phase']}: "
            f"{error['type']}: {error['message']}"
        )


def _pickle(module: nn.Module, call: Any, folder: Path, name: str) -> Path:
    from bench.meters import handed_over

    path = folder / f"{name}.pickle"
    try:
        handed_over.write(path, module, call[0], call[1])
    except Exception as error:
        raise UsageError(
            f"{type(module).__name__} cannot be handed to a fresh process ({error}); measure it through a builder: "
            "`python -m bench model=package.module:Callable`"
        ) from error
    return path


def _meters(sections: frozenset[str]) -> tuple[str, ...]:
    """The meters whose metrics are wanted; what no meter and no clock gives is the workload's own."""
    meters = [METER_OF[section] for section in METER_OF if section in sections]
    return tuple([*meters, "facts"] if sections - set(METER_OF) - TIMED else meters)
