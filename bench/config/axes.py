"""Every axis of a case, once: what it is called, its default, whether rows that differ in it may be ranked together.

Configuration, keys, groups, ranks, the tidy table, pages, exports and tracking names derive from this table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "integer", "flag"]

#: Value of `against` of a case that others are compared with although a method is applied to it or it runs elsewhere.
ITSELF = "itself"


def _pixels(value: Any) -> str:
    return "input as given" if value is None else f"{value} px"


def _shape(value: Any) -> str:
    """The numbers of a shape that are set: `context 128, new tokens 16`."""
    said = [part for part in str(value or "").split(", ") if part and not part.endswith("=None")]
    return ", ".join(part.replace("=", " ").replace("_", " ") for part in said)


def _task(value: Any) -> str:
    return "no task" if value == "none" else f"task {value}"


@dataclass(frozen=True)
class Axis:
    """One field of a case.

    Attributes:
        name: the field of `bench.plan.case.Case` and the column of the tidy table.
        title: what people call it.
        default: the usual value.
        kind: type of its column.
        grid: the list of a grid's block that gives its values, empty where it is set once for a sweep.
        condition: rows that differ in it are never ranked together.
        crossable: `against` may name another value of it for the other side; then both sides are ranked together.
        identity: part of the case's key; a suite's name is not.
        source: a digest of code or a name of data, which two commits of one case may differ in.
        late: newer than the first schema: left out of the key at its default, so that older keys hold.
        quiet: said on pages only where it is not the default or differs.
        show: its value in words.
    """

    name: str
    title: str
    default: Any = None
    kind: Kind = "text"
    grid: str = ""
    condition: bool = False
    crossable: bool = False
    identity: bool = True
    source: bool = False
    late: bool = False
    quiet: bool = False
    show: Callable[[Any], str] = str


AXES: tuple[Axis, ...] = (
    Axis("suite", "suite", identity=False),
    Axis("model", "model", grid="models", crossable=True),
    Axis("model_settings", "model's settings", "", crossable=True),
    Axis("method", "method", "none", grid="methods", crossable=True),
    Axis("setting", "method's settings", "", crossable=True),
    Axis("workload", "workload", "forward", condition=True, late=True, quiet=True),
    Axis("device", "device", "cpu", condition=True, crossable=True),
    Axis("dtype", "dtype", "fp32", grid="dtypes", condition=True, crossable=True),
    Axis("batch", "batch", 1, "integer", "batches", condition=True, show=lambda value: f"batch {value}"),
    Axis("resolution", "resolution", None, "integer", "resolutions", condition=True, show=_pixels),
    Axis("shape", "shape", "", condition=True, late=True, quiet=True, show=_shape),
    Axis("backend", "backend", "eager", grid="backends", condition=True, crossable=True, late=True, quiet=True),
    Axis("task", "task", "none", condition=True, show=_task),
    Axis("data", "data", None, condition=True, source=True, quiet=True),
    Axis("checkpoint", "checkpoint", None, source=True),
    Axis("seed", "seed", 0, "integer"),
    Axis(
        "threads",
        "threads",
        1,
        "integer",
        condition=True,
        quiet=True,
        show=lambda n: f"{n} thread" + ("" if n == 1 else "s"),
    ),
    Axis(
        "compile",
        "compilation",
        "off",
        condition=True,
        crossable=True,
        quiet=True,
        show=lambda value: f"compile {value}",
    ),
    Axis(
        "cuda_graphs",
        "CUDA graphs",
        False,
        "flag",
        condition=True,
        crossable=True,
        quiet=True,
        show=lambda on: f"CUDA graphs {'on' if on else 'off'}",
    ),
    Axis("memory_format", "memory format", "contiguous", condition=True, crossable=True, quiet=True),
    Axis("protocol", "protocol", "", source=True),
    Axis("subject_digest", "subject's source", "", source=True),
    Axis("against", "compared with", "", late=True),
    Axis("against_digest", "source of the other side", "", late=True, source=True),
)

BY_NAME: dict[str, Axis] = {axis.name: axis for axis in AXES}


def names(which: Callable[[Axis], bool] = lambda axis: True, of: Iterable[Axis] = AXES) -> tuple[str, ...]:
    """The names of the axes for which this holds, in the table's order."""
    return tuple(axis.name for axis in of if which(axis))


#: Axes in which two rows of one ranking must be equal.
CONDITIONS = names(lambda axis: axis.condition)
#: Axes of a key that code or data stands behind: two commits of one case may differ in them.
SOURCES = names(lambda axis: axis.source)
#: Lists of a grid's block by the axis that they give values of.
GRID_LISTS = {axis.name: axis.grid for axis in AXES if axis.grid}
#: Axes that `against` may give the other side another value of.
CROSSABLE = names(lambda axis: axis.crossable)
#: Keys of a grid's block that a suite, and so the command line, may give for all its blocks.
OVERRIDES = (*GRID_LISTS.values(), "workload", "shapes", "against")
