"""Kinetics' cost model beside measured decode steps: `python -m suites.decode.kinetics_check RESULTS`.

For every measured plain decode step of the house's decoders the model is asked with this machine's own intensity: what one of
its cores computes while it moves one number of the case's type. The model adds arithmetic and traffic of the cache and charges
no weights (the paper prices large batches); beside it stands the same with the weights' traffic. Markdown on standard output.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.analysis.roofline import bandwidth_of, peak_of
from bench.canonical import parse_settings
from bench.errors import BenchError
from bench.store.records import Record, Store
from bench.workloads.generate import CONTEXT
from suites.common.decoder_shape import DecoderShape, head_macs, linear_macs, parameters
from suites.common.decoder_shapes import SHAPES
from suites.decode.kinetics import Cost

NUMBER_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Line:
    """One measured step: its case, predicted and measured seconds; with and without the weights' traffic."""

    model: str
    batch: int
    keys: int
    cache_only: float
    with_weights: float
    measured: float


def step_cost(shape: DecoderShape, batch: int, keys: int, intensity: float) -> Cost:
    """Operations of one step of a batch that sees `keys` positions, and of its cache's traffic at that intensity."""
    attention = sum(2 * layer.heads * layer.head for layer in shape.layers)
    compute = batch * 2.0 * (linear_macs(shape) + head_macs(shape) + attention * keys)
    cached = sum(2 * layer.kv_heads * layer.head for layer in shape.layers)
    return Cost(compute, intensity * batch * keys * cached)


def predicted(
    shape: DecoderShape, batch: int, keys: int, *, peak_ops: float, bandwidth: float, number: int
) -> tuple[float, float]:
    """Seconds of one step by the model, without and with the weights' traffic.

    Args:
        shape: with key heads in every layer.
        batch: sequences.
        keys: positions that are seen, the new one included.
        peak_ops: operations per second.
        bandwidth: bytes per second.
        number: bytes of a number.
    """
    intensity = peak_ops * number / bandwidth
    cost = step_cost(shape, batch, keys, intensity)
    return cost.total / peak_ops, (cost.total + intensity * parameters(shape)) / peak_ops


def lines_of(records: Iterable[Record]) -> list[Line]:
    """The measured plain steps of known decoders on machines whose peaks are known, by model, batch and context."""
    found = [line for record in records if (line := _line(record)) is not None]
    return sorted(found, key=lambda line: (line.model, line.batch, line.keys))


def _line(record: Record) -> Line | None:
    case = record["case"]
    shape = SHAPES.get(str(case["model"]))
    plain = case.get("method") in ("none", "dynamic_cache") and case.get("workload") == "generate"
    if shape is None or not plain or any(layer.latent is not None for layer in shape.layers):
        return None
    step = next(
        (r["value"] for r in record["readings"] if r["metric"] == "latency_ms" and r.get("part") == "decode"), None
    )
    machine, threads = record.get("machine") or {}, int(case.get("threads") or 1)
    peak, _ = peak_of(machine, str(case["dtype"]), device=str(case["device"]), threads=threads)
    bandwidth, _ = bandwidth_of(machine, device=str(case["device"]), threads=threads)
    number = NUMBER_BYTES.get(str(case["dtype"]))
    if step is None or peak is None or bandwidth is None or number is None:
        return None
    keys = int(parse_settings(str(case.get("shape") or "")).get("context", CONTEXT.default)) + 1
    without, whole = predicted(shape, int(case["batch"]), keys, peak_ops=peak, bandwidth=bandwidth, number=number)
    return Line(str(case["model"]), int(case["batch"]), keys, without, whole, float(step) / 1e3)


def markdown(lines: Sequence[Line]) -> str:
    """The table: predicted and measured milliseconds, and how many times the prediction a step takes."""
    head = "| model | batch | keys | model, ms | with weights, ms | measured, ms | measured over model with weights |"
    rows = [
        f"| {line.model} | {line.batch} | {line.keys} | {1e3 * line.cache_only:.3f} | {1e3 * line.with_weights:.3f} "
        f"| {1e3 * line.measured:.3f} | {line.measured / line.with_weights:.2f} |"
        for line in lines
    ]
    return "\n".join([head, "| --- " * 7 + "|", *rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of results folders; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m suites.decode.kinetics_check", description=__doc__)
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
