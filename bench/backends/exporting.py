"""Conversion by way of a file: exported, translated and written once per shapes, loaded in every process.

A backend gives two functions: `write` makes the files of a graph, `load` makes a program of them.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.backends.backend import Backend, Conditions, ConversionFailed, Converted, telling
from bench.backends.check import compare
from bench.backends.graph import Graph, exported, outside_inference, placed
from bench.backends.program import Loaded, Program
from bench.backends.structure import take_apart

#: The folder of what would be shipped, and beside it the file that says that it is whole.
ARTEFACT = "artefact"
FACTS = "conversion.json"


@dataclass(frozen=True)
class Way:
    """How one backend gets from a graph to a program.

    Attributes:
        backend: whose way it is.
        write: writes the files of a graph into a folder; gives details for the record.
        load: loads what `write` wrote, for inputs like these.
    """

    backend: Backend
    write: Callable[[Graph, Path, Conditions], dict[str, Any]]
    load: Callable[[Path, Sequence[Any], Conditions], Program]


def converted(
    way: Way, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions
) -> Converted:
    """The module through a file and a runtime.

    An artefact that is in the folder already is loaded, if it still answers as this module does.

    Raises:
        ConversionFailed: an operator, a type or a number of threads that the backend cannot hold to.
    """
    from bench.backends.calls import RuntimeModule

    for name in way.backend.needs:
        importlib.import_module(name)  # before the clock: importing a library converts nothing
    found = _of_before(way, module, args, kwargs, conditions)
    fresh = found is None
    if found is None:
        found = convert_again(way, module, args, kwargs, conditions, conditions.folder)

    def other_shape(other: tuple[Any, ...], named: dict[str, Any]) -> Loaded:
        return convert_again(way, module, other, named, conditions, None)

    taken = found.facts["conversion_ms"]
    return Converted(
        module=RuntimeModule(found, args, kwargs, other_shape),
        artefact_bytes=found.facts["artefact_bytes"],
        conversion_ms=taken if fresh else None,
        why_no_time="" if fresh else f"loaded from the file that an earlier process had written in {taken:.4g} ms",
        versions=way.backend.versions(),
        precision=found.program.precision,
        threads=found.program.threads,
        details={**found.facts, **found.program.details},
    )


def convert_again(
    way: Way, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions, folder: Path | None
) -> Loaded:
    """The program of a module for inputs of these shapes; its files stay in the folder, or go when it goes.

    Raises:
        ConversionFailed: the backend cannot run it as asked.
    """
    keeper = None
    if folder is None:
        keeper = tempfile.TemporaryDirectory(prefix="bench-artefact-")
        folder = Path(keeper.name) / "made"
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / ARTEFACT).mkdir(parents=True)
    start = time.perf_counter_ns()
    graph = exported(way.backend.name, module, args, kwargs)
    with outside_inference(), telling(way.backend.name, "conversion"):
        details = way.write(graph, part / ARTEFACT, conditions)
    taken_ms = (time.perf_counter_ns() - start) / 1e6
    files = sizes(part / ARTEFACT)
    facts = {
        "conversion_ms": taken_ms,
        "artefact_bytes": sum(files.values()),
        "files": files,
        "outputs": graph.places,
        **details,
    }
    (part / FACTS).write_text(json.dumps(facts), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)  # whole or not at all: a process that dies meanwhile leaves nothing to load
    return _loaded(way, folder, graph.tensors, conditions, graph.form, facts, keeper)


def _of_before(
    way: Way, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions
) -> Loaded | None:
    """What an earlier process left in the folder, if it answers as this module does."""
    folder = conditions.folder
    if folder is None or not (folder / FACTS).is_file():
        return None
    with outside_inference():
        tensors, _ = take_apart((tuple(args), dict(kwargs)), "input")
        expected, form = take_apart(module(*args, **kwargs), "output")
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if len(facts["outputs"]) != len(expected):
            return None
        found = _loaded(way, folder, tensors, conditions, placed(form, facts["outputs"]), facts)
        given = found.program.call(tensors)
        same = compare(expected, [given[place] for place in facts["outputs"]], conditions.dtype)
    return found if same.agrees else None


def _loaded(
    way: Way,
    folder: Path,
    tensors: Sequence[Any],
    conditions: Conditions,
    form: Any,
    facts: dict[str, Any],
    keeper: Any = None,
) -> Loaded:
    start = time.perf_counter_ns()
    with outside_inference(), telling(way.backend.name, "loading"):
        program = way.load(folder / ARTEFACT, tensors, conditions)
    facts = {**facts, "runtime_load_ms": (time.perf_counter_ns() - start) / 1e6}
    hold_to(way.backend, program, conditions)
    return Loaded(program, form, facts, keeper)


def hold_to(backend: Backend, program: Program, conditions: Conditions) -> None:
    """Raise ConversionFailed unless the runtime says that it computes in the case's type with the case's threads."""
    if program.precision != conditions.dtype:
        raise ConversionFailed(
            f"{backend.name} computes in {program.precision} on this machine where the case asks for "
            f"{conditions.dtype}: its numbers would be those of another type; take dtype {program.precision}"
        )
    if program.threads is not None and program.threads != conditions.threads:
        raise ConversionFailed(
            f"{backend.name} takes {program.threads} threads on this machine where the case asks for "
            f"{conditions.threads}; set device.threads={program.threads}"
        )


def sizes(folder: Path) -> dict[str, int]:
    """File -> bytes of everything under a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}
