"""`bench.compare`: two modules on the same inputs, timed interleaved, with a verdict for each metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.api.given import checked_device, checked_threads, given_subject, name_of
from bench.api.measuring import protocol_named, wanted_metrics
from bench.api.processes import Asked, measured_records
from bench.metrics import METRICS

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bench.api.results import Compared
    from bench.config.protocol import Protocol

#: What is compared when nothing is asked for: these metrics alone, not the sections of the same names.
DEFAULT = ("latency_ms", "throughput_per_s", "macs", "params", "peak_memory_bytes")


def compare(
    a: nn.Module,
    b: nn.Module,
    inputs: Any = None,
    metrics: Sequence[str] | None = None,
    protocol: str | Protocol = "quick",
    *,
    names: tuple[str, str] | None = None,
    kwargs: dict[str, Any] | None = None,
    device: str | torch.device = "cpu",
    batch: int | None = None,
    threads: int | None = None,
    workload: str = "forward",
    shape: Mapping[str, Any] | None = None,
    backend: str = "eager",
    progress: bool | None = None,
) -> Compared:
    """What `b` gains over `a` on the same inputs, a row per metric: both values, their ratio, and a verdict.

    Both are timed interleaved in the same processes, so that what slows the machine slows both; the ratio of times is
    paired by process. A ratio above 1 says that `b` is better. FASTER, SLOWER, SAME and AMBIGUOUS are those of
    docs/statistics.md, counts are BETTER, WORSE or the SAME exactly, and memory within 2 %.

    Args:
        a: what is compared with.
        b: what it is compared to; both take the same inputs.
        inputs: of one forward, as `bench.measure` takes them.
        metrics: sections or single metrics, as `bench.measure` takes them; by default latency, throughput, MACs,
            parameters and memory, a row each.
        protocol: as `bench.measure` takes it; under `glance` a ratio has no interval, and so no verdict.
        names: of the two sides; default their classes, or `a` and `b` where these are alike.
        kwargs: keyword inputs beside positional ones.
        device: where to run.
        batch: samples per forward; by default told from the inputs.
        threads: of the timed processes.
        workload: what one run is.
        shape: the workload's axes by name.
        backend: `eager`, `compile`, ...
        progress: whether a bar is drawn; by default on a terminal and in a notebook.

    Raises:
        UsageError: as `bench.measure` raises it.
        BenchError: a module failed, with the phase and the message.
    """
    from bench.meters import handed_over

    wanted = list(DEFAULT) if metrics is None else wanted_metrics(metrics)
    threads = checked_threads(threads)
    for one in (a, b):
        handed_over.check_module(one)
    names = names or _names(a, b)
    b, subject = given_subject(
        b, names[1], inputs, kwargs, batch, workload, shape or {}, backend, checked_device(device)
    )
    sections = frozenset(METRICS[metric].section for metric in wanted)
    asked = Asked(sections, protocol_named(protocol), threads, progress)
    second, first = measured_records(b, a, subject, asked, names[0])
    return _compared(first, second, wanted, names)


def _names(a: nn.Module, b: nn.Module) -> tuple[str, str]:
    first, second = name_of(a, None), name_of(b, None)
    return (first, second) if first != second else ("a", "b")


def _compared(first: dict[str, Any], second: dict[str, Any], wanted: Sequence[str], names: tuple[str, str]) -> Compared:
    import pandas

    from bench.analysis import table
    from bench.analysis.compare import compare as judged
    from bench.api.results import Compared

    found = judged([first], [second], metrics=wanted, label_a=names[0], label_b=names[1])
    rows = [
        {
            "metric": row.metric,
            "part": row.part,
            "a": row.a,
            "b": row.b,
            "unit": row.unit,
            "ratio": row.ratio.value if row.ratio else _ratio(row),
            "low": row.ratio.low if row.ratio else None,
            "high": row.ratio.high if row.ratio else None,
            "verdict": row.kind,
            "why": row.text,
        }
        for row in found.rows
    ]
    made = Compared(rows)
    made.long = pandas.concat([table.from_records([record]) for record in (first, second)], ignore_index=True)
    flags = [flag["text"] for record in (first, second) for flag in record["flags"] if flag["severity"] != "info"]
    made.attrs = {"names": names, "notes": list(dict.fromkeys(flags))}
    return made


def _ratio(row: Any) -> float | None:
    """How many times better the second side is by a metric that has a direction; None where that says nothing."""
    better = METRICS[row.metric].better
    if not row.a or not row.b or better == "none":
        return None
    return float(row.a / row.b if better == "lower" else row.b / row.a)
