"""A built subject through its case's backend: converted, checked against eager, with what that cost as readings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import backends, workloads
from bench.backends.backend import Backend, Conditions, ConversionFailed, Converted
from bench.backends.check import Agreement, OutputsDiffer, kind_of, require_agreement
from bench.flags import Flag, flag
from bench.plan.case import Case
from bench.reading import Reading, reading, unavailable


def is_foreign(case: Case) -> bool:
    """Whether the case runs outside torch."""
    return backends.find(case.backend).foreign


def has_own_threads(case: Case) -> bool:
    """Whether others than the calling thread work for the case even where it has one thread."""
    return backends.find(case.backend).own_threads


def convert(
    case: Case, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], artefacts: Path | None
) -> Converted:
    """The module as the case's backend runs it.

    Args:
        case: whose backend, device, type and threads they are.
        module: the eager module in evaluation mode, on its device and in its type.
        args: example inputs.
        kwargs: further ones by name.
        artefacts: folder in which the processes of one sweep leave each other what they have converted.

    Raises:
        UsageError: there is no such backend.
        BackendMissing: it cannot run here, with the remedy.
        ConversionFailed: it cannot run this module as the case asks, with the operator.
    """
    folder = None if artefacts is None else artefacts / case.key
    conditions = Conditions(case.device, case.dtype, case.threads, folder, case.compile)
    room = backends.require(case.backend, conditions)
    if room.BACKEND.foreign:
        _require_plain(case, room.BACKEND)
    result = room.convert(module, args, kwargs, conditions)
    if not isinstance(result, Converted):
        raise TypeError(f"convert of backend {case.backend} gave a {type(result).__name__}, not a Converted")
    return result


def _require_plain(case: Case, backend: Backend) -> None:
    """Raise ConversionFailed unless the case asks for nothing that only torch can do."""
    calls = workloads.find(case.workload).calls
    if calls != ("forward",) or workloads.find(case.workload).grad:
        raise ConversionFailed(
            f"{backend.name} runs whole forwards without gradients; workload {case.workload} needs torch: take backend "
            "eager or compile"
        )
    if case.memory_format != "contiguous":
        raise ConversionFailed(
            f"memory_format={case.memory_format} says how torch lays tensors out, and {backend.name} has layouts of "
            "its own: take device.memory_format=contiguous"
        )
    if case.cuda_graphs:
        raise ConversionFailed(f"a CUDA graph of torch does not hold what {backend.name} runs: take cuda_graphs=false")


def check(
    case: Case, eager: Callable[[], Any], converted: Callable[[], Any], execution: str | None = None
) -> tuple[Agreement | None, list[Flag]]:
    """How far the converted answers are from eager's on the same inputs, and a flag where that cannot be said.

    Args:
        case: whose type says how far they may be.
        eager: one forward of the eager module.
        converted: one forward of the converted one.
        execution: the row's label: whole numbers may differ by codes.

    Raises:
        OutputsDiffer: another runtime answers otherwise than the type allows. Torch's own compiler is only flagged: it
            computes in the same kernels' types, and a choice between near ties may fall otherwise.
    """
    # copies: a compiled module that replays graphs writes every output to the same place
    expected, kind = copy.deepcopy(eager()), kind_of(case.dtype, execution)
    try:
        return require_agreement(case.backend, expected, converted(), kind), []
    except OutputsDiffer as error:
        if not _repeats(expected, eager(), kind):
            text = f"{case.backend} could not be compared with eager, whose outputs change from run to run"
            return None, [flag("conversion_unchecked", "warn", text)]
        if is_foreign(case):
            raise
        return None, [flag("compiled_output", "warn", str(error))]


def _repeats(first: Any, second: Any, kind: str) -> bool:
    """Whether two eager forwards of the same input agree."""
    try:
        require_agreement(backends.EAGER, first, second, kind)
    except OutputsDiffer:
        return False
    return True


def readings(converted: Converted) -> list[Reading]:
    """What the conversion cost and what would be shipped; nothing of a subject that was not converted."""
    return [
        _reading(
            "artefact_bytes", converted.artefact_bytes, converted.why_no_artefact, "size on disk of what is shipped"
        ),
        _reading(
            "conversion_ms", converted.conversion_ms, converted.why_no_time, "the first conversion in a fresh process"
        ),
    ]


def _reading(metric: str, value: float | None, why: str, note: str) -> Reading:
    if value is None:
        return unavailable(metric, why or "the backend does not say")
    return reading(metric, value, "measured", n=1, statistic="one process", method_note=note)


def details(case: Case, converted: Converted, agreement: Agreement | None) -> dict[str, Any]:
    """What the record keeps of the conversion, as plain JSON types."""
    return {
        "backend": case.backend,
        "versions": converted.versions,
        "precision": converted.precision,
        "threads": converted.threads,
        **converted.details,
        "agreement": None if agreement is None else agreement.as_dict(),
    }
