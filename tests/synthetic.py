"""Complete, plausible records without a network or torch: for tests of the table, comparisons, tracking and reports.

Numbers are made from a seeded generator and hang together (medians, ratios and readings agree), so that a test can
recompute one from the other.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

from bench.analysis import assemble
from bench.plan.case import Case
from bench.reading import Reading, reading, unavailable
from bench.store.records import Store, write_json

MACHINE = "synthetic000cpu0"
PEAKS = {
    "peaks": [
        {
            "dtype": "fp32",
            "threads": 1,
            "unit": "op/s",
            "value": 1.76e11,
            "low": 1.74e11,
            "high": 1.78e11,
            "n": 5,
        },
        {
            "dtype": "bf16",
            "threads": 1,
            "unit": "op/s",
            "value": 1.23e12,
            "low": 1.2e12,
            "high": 1.26e12,
            "n": 5,
        },
    ],
    "bandwidth": {"unit": "B/s", "value": 1.37e10, "low": 1.34e10, "high": 1.4e10, "n": 5},
}
ENVIRONMENT = {
    "cpu": {"model": "Synthetic CPU 3000", "physical_cores": 2, "logical_cores": 2},
    "memory_bytes": 25_000_000_000,
    "os": "Linux 6.1",
    "python": "3.11.7",
    "packages": {"torch": "2.13.0", "fvcore": "0.1.5.post20221221"},
    "gpus": [],
}
CODE = {"version": "0.1.0", "commit": None, "dirty": None}
PROTOCOL = {"version": 1, "name": "quick", "hash": "feedc0de00000001", "parameters": {"invocations": 3}}


class _Kept:
    """The protocol of every record here."""

    @staticmethod
    def as_record() -> dict[str, Any]:
        """As `bench.config.protocol.Protocol` has it, but made once."""
        return copy.deepcopy(PROTOCOL)


def layer_rows(macs: float, latency_ms: float, blocks: int = 4) -> list[dict[str, Any]]:
    """Per-layer rows whose MACs sum to `macs` and whose times sum to 95 % of the latency."""
    rows, share = [], 1.0 / blocks
    for block in range(blocks):
        for name, op, part, traffic in (("norm1", "layer_norm", 0.0, 3e5), ("mlp.fc1", "linear", 1.0, 2e6)):
            layer_macs, time = macs * share * part, latency_ms * 0.95 * share * (0.9 if part else 0.1)
            rows.append({
                "index": len(rows), "name": f"blocks.{block}.{name}", "module_path": f"blocks.{block}.{name}", "op": op,
                "input_shapes": [[1, 197, 192]], "output_shapes": [[1, 197, 192]], "dtype": "fp32",
                "macs": layer_macs, "vector_ops": 0.0 if part else 4e5, "read_bytes": traffic,
                "write_bytes": traffic / 2, "weight_bytes": traffic / 4, "activation_bytes": traffic * 1.25,
                "intensity": 2 * layer_macs / (1.5 * traffic), "time_ms": time, "time_low_ms": time * 0.97,
                "time_high_ms": time * 1.03, "share": time / latency_ms, "calls": 1, "provenance_bytes": "counted",
                "tokens": 197 - 13 * block,
            })  # fmt: skip
    return rows


def _run(
    case: Case, session: str, index: int, baseline_ms: float, latency_ms: float, noise: float, rng: random.Random
) -> dict[str, Any]:
    """The line of one timed process in a record: the host drifts, and the case varies around it."""
    drift = 1 + rng.gauss(0, noise * 3)
    base = baseline_ms * drift
    median = base if case.is_baseline else latency_ms * drift * (1 + rng.gauss(0, noise))
    return {
        "index": index,
        "samples_file": f"samples/{session}/{index:02d}.json.gz",
        "n": 50,
        "median_ms": median,
        "baseline_median_ms": base,
        "twin_median_ms": base * (1 + rng.gauss(0, noise / 3)),
        "gemm_median_ms": 1.5 * drift,
        "throughput_per_s": case.batch * 1000 / median,
        "first_inference_ms": median * 2,
        "load_ms": 300.0,
        "steady_state": True,
        "set_aside": False,
        "labels": [],
        "iqr_over_median": 0.03,
        "outlier_share": 0.02,
    }


def _readings(case: Case, middle: float, n: int, macs: float, ratio: float, accuracy: float | None) -> list[Reading]:
    """The readings of a measured case whose processes have this mean latency in ms."""
    interval = {"ci_low": middle * 0.97, "ci_high": middle * 1.03, "n": n}
    readings = [
        reading("params", 5.7e6, "counted"),
        reading("size_bytes", 2.29e7, "counted"),
        reading("macs", macs, "counted"),
        reading("macs_fvcore", macs * 1.004, "counted"),
        reading("latency_ms", middle, "measured", statistic="geometric mean of medians", **interval),
        unavailable("latency_p99_ms", "50 samples; 662 are needed"),
        reading(
            "throughput_per_s",
            case.batch * 1000 / middle,
            "measured",
            n=n,
            ci_low=case.batch * 970 / middle,
            ci_high=case.batch * 1030 / middle,
            statistic="geometric mean",
        ),
        reading("peak_memory_bytes", 3.1e7, "measured", statistic="peak of live tensor bytes"),
        unavailable("energy_j", "no energy counter is readable on this machine"),
    ]
    if not case.is_baseline:
        readings.append(reading("speedup", ratio, "measured", ci_low=ratio * 0.98, ci_high=ratio * 1.02, n=n))
    if accuracy is None:
        readings.append(unavailable("accuracy", "random weights: accuracy has no meaning"))
    else:
        readings.append(reading("accuracy", accuracy, "measured", ci_low=accuracy - 1.5, ci_high=accuracy + 1.2, n=450))
    return readings


def record(
    *,
    model: str = "deit_tiny",
    method: str = "none",
    setting: str = "",
    macs: float = 1.25e9,
    baseline_macs: float = 1.25e9,
    latency_ms: float = 40.0,
    baseline_ms: float = 40.0,
    accuracy: float | None = None,
    invocations: int = 3,
    noise: float = 0.01,
    seed: int = 0,
    machine_key: str = MACHINE,
    status: str = "ok",
    error: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    **case_fields: Any,
) -> dict[str, Any]:
    """One record as `bench.sweep` would assemble it, not yet sealed (`Store.write` seals)."""
    fields: dict[str, Any] = {
        "suite": "vit_tokens",
        "resolution": 224,
        "protocol": PROTOCOL["hash"],
        "task": "digits",
    }
    case = Case(model=model, method=method, setting=setting, **{**fields, **case_fields})
    rng = random.Random(f"{seed}{case.key}")
    session = f"session-{case.group_key}"
    runs = [_run(case, session, index, baseline_ms, latency_ms, noise, rng) for index in range(invocations)]
    middle = sum(r["median_ms"] for r in runs) / len(runs)
    readings = _readings(case, middle, len(runs), macs, baseline_ms / latency_ms, accuracy)
    if status != "ok":
        readings = [unavailable(item.metric, f"the case ended as {status}") for item in readings]
    # copies: who changes one record changes no other
    shared = copy.deepcopy((environment or ENVIRONMENT, PEAKS, CODE))
    context = assemble.Context(_Kept(), shared[0], machine_key, shared[1], shared[2])
    ok = status == "ok"
    return {
        **assemble.blank(case, context, "2026-11-01T12:00:00+00:00", "2026-11-01T12:01:00+00:00"),
        "status": status,
        "error": error,
        "flags": [],
        "readings": [item.as_dict() for item in readings],
        "layers": layer_rows(macs, middle) if ok else [],
        "layers_info": {"end_to_end_ms": middle, "unexplained_ms": middle * 0.05, "method_note": "separate pass"},
        "counts": {"coverage": 1.0, "uncounted": [], "flags": []},
        "timing": {
            "session": session,
            "paired": True,
            "stop_reason": "precision reached",
            "noise_floor": {"low": 0.995, "high": 1.005},
            "invocations": runs if ok else [],
        },
    }


def samples(item: dict[str, Any], index: int) -> dict[str, Any]:
    """The raw samples file of one invocation of a record."""
    run = item["timing"]["invocations"][index]
    rng = random.Random(index)
    draw = [run["median_ms"] * (1 + abs(rng.gauss(0, 0.02))) for _ in range(run["n"])]
    return {
        "schema": 1,
        "session": item["timing"]["session"],
        "index": index,
        "started_at": item["started_at"],
        "cases": {
            item["case_key"]: {"latency_ms": draw, "throughput": [{"iterations": 5, "ms": 5 * run["median_ms"]}]}
        },
        "twin": {"latency_ms": draw},
        "reference_gemm": {"ms": [run["gemm_median_ms"]] * 10, "macs": 134_217_728},
        "host": {},
        "labels": [],
    }


def suite_records() -> list[dict[str, Any]]:
    """A small suite: two models, a baseline and three methods each, one failed case."""
    rows = []
    for model, macs, base, top in (("deit_tiny", 1.25e9, 40.0, 92.0), ("deit_small", 4.6e9, 130.0, 95.0)):
        rows.append(record(model=model, macs=macs, baseline_macs=macs, latency_ms=base, baseline_ms=base, accuracy=top))
        for setting, share in (("r=8", 0.78), ("r=13", 0.59)):
            rows.append(
                record(
                    model=model,
                    method="tome",
                    setting=setting,
                    macs=macs * share,
                    baseline_macs=macs,
                    latency_ms=base * (share + 0.12),
                    baseline_ms=base,
                    accuracy=top - 6 * (1 - share),
                )
            )
        rows.append(
            record(
                model=model,
                method="evit",
                setting="keep_rate=0.7",
                macs=macs * 0.66,
                baseline_macs=macs,
                latency_ms=base * 0.72,
                baseline_ms=base,
                accuracy=top - 1.0,
            )
        )
    rows.append(
        record(
            model="deit_small",
            method="diffrate",
            setting="merge=[1], prune=[1]",
            status="crashed",
            error={
                "phase": "load",
                "type": "ValueError",
                "message": "12 blocks need 12 entries, got 1",
                "log_tail": "Traceback ...",
            },
        )
    )
    return rows


def store(root: Path, records: list[dict[str, Any]] | None = None, *, with_samples: bool = True) -> Store:
    """A results folder holding `records` (default: `suite_records`) and their raw samples."""
    made = Store(root)
    for item in suite_records() if records is None else records:
        made.write(item)
        for run in item["timing"]["invocations"] if with_samples else []:
            path = made.root / run["samples_file"]
            if not path.exists():
                write_json(path, samples(item, run["index"]))
    return made
