"""Kinetics' cost model beside measured decode steps: `python -m reports.kinetics RESULTS`.

The model (Sadhukhan et al. 2025, arXiv 2506.05333) adds a step's arithmetic and the traffic of its cache at the
intensity of the device, that is 2 x MACs / peak + cache bytes / bandwidth, and charges no weights, since the paper
prices large batches. Every number is of the record: MACs of the decode part, bytes of the cache, this machine's
calibrated peak and bandwidth. Beside it stands the same with the weights' traffic. Markdown on standard output.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.analysis.roofline_of_record import bandwidth_of, peak_of
from bench.canonical import parse_settings
from bench.errors import BenchError
from bench.store.records import Record, Store

#: Bytes of one number of a case's type.
NUMBER_BYTES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Line:
    """One measured step: its case, predicted seconds without and with the weights' traffic, measured seconds."""

    case: str
    batch: int
    context: int
    cache_only: float
    with_weights: float
    measured: float


def predicted(
    macs: float, cache_bytes: float, weight_bytes: float, *, peak_ops: float, bandwidth: float
) -> tuple[float, float]:
    """Seconds of one step by the model, without and with the weights' traffic.

    Args:
        macs: products of the whole batch.
        cache_bytes: read by the whole batch.
        weight_bytes: read once.
        peak_ops: operations per second, two per product.
        bandwidth: bytes per second.
    """
    seconds = 2 * macs / peak_ops + cache_bytes / bandwidth
    return seconds, seconds + weight_bytes / bandwidth


def lines_of(records: Iterable[Record]) -> list[Line]:
    """The measured decode steps of machines whose peaks are known, by case, batch and context."""
    found = [line for record in records if (line := _line(record)) is not None]
    return sorted(found, key=lambda line: (line.case, line.batch, line.context))


def _line(record: Record) -> Line | None:
    case, machine = record["case"], record.get("machine") or {}
    values = {(r["metric"], r.get("part") or ""): r["value"] for r in record.get("readings") or []}
    step, macs = values.get(("latency_ms", "decode")), values.get(("macs", "decode"))
    cache, params = values.get(("cache_bytes", "request")), values.get(("params", ""))
    known = {"device": str(case["device"]), "threads": int(case.get("threads") or 1)}
    peak, _ = peak_of(dict(machine), str(case["dtype"]), **known)  # type: ignore[arg-type]
    bandwidth, _ = bandwidth_of(dict(machine), **known)  # type: ignore[arg-type]
    number = NUMBER_BYTES.get(str(case["dtype"]))
    if not step or not macs or cache is None or not params or not peak or not bandwidth or number is None:
        return None
    batch = int(case["batch"])
    without, whole = predicted(macs * batch, cache, params * number, peak_ops=peak, bandwidth=bandwidth)
    context = int(parse_settings(str(case.get("shape") or "")).get("context", 0))
    method = "" if case["method"] == "none" else f", {case['method']}({case['setting']})"
    return Line(f"{case['model']}{method}", batch, context, without, whole, float(step) / 1e3)


def markdown(lines: Sequence[Line]) -> str:
    """The table: predicted and measured milliseconds, and how many times the prediction a step takes."""
    head = "| case | batch | context | model, ms | with weights, ms | measured, ms | measured over model with weights |"
    rows = [
        f"| {line.case} | {line.batch} | {line.context} | {1e3 * line.cache_only:.3f} | {1e3 * line.with_weights:.3f} "
        f"| {1e3 * line.measured:.3f} | {line.measured / line.with_weights:.2f} |"
        for line in lines
    ]
    return "\n".join([head, "| --- " * 7 + "|", *rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of results folders; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.kinetics", description="Kinetics' cost model beside measured decode steps, as Markdown."
    )
    parser.add_argument("results", nargs="+", type=Path, help="results folders")
    options = parser.parse_args(arguments)
    try:
        records = [record for folder in options.results for record in Store(folder).iterate()]
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(markdown(lines_of(records)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
