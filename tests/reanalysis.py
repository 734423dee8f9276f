"""A session's numbers from its raw sample files again, by plain NumPy and SciPy: nothing of the bench takes part."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats


def raw_files(folder, record):
    """The raw samples of every process of a record's session, in order."""
    found = [
        gzip.decompress((Path(folder) / line["samples_file"]).read_bytes()) for line in record["timing"]["invocations"]
    ]
    return [json.loads(text) for text in found]


def geometric(values):
    """Geometric mean with a t-interval on logs: (value, low, high, n)."""
    logs = np.log(values)
    n, centre = len(logs), logs.mean()
    reach = stats.t.ppf(0.975, n - 1) * logs.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return (*np.exp([centre, centre - reach, centre + reach]), n)


def is_set_aside(raw, limit):
    return max(np.mean(part["preempted"]) for part in [*raw["cases"].values(), raw["twin"]]) > limit


def counted(raws, protocol):
    """The processes that count: those not set aside, or all if too few of those are left."""
    clean = [raw for raw in raws if not is_set_aside(raw, protocol["preempted_share"])]
    return clean if len(clean) >= protocol["invocations"] or len(clean) == len(raws) else raws


def readings(folder, record):
    """(value, low, high, n) by metric, and the noise floor."""
    key, base, batch = record["case_key"], record["baseline_key"], record["case"]["batch"]
    used = counted(raw_files(folder, record), record["protocol"]["parameters"]["latency"])
    own, baseline = ([raw["cases"][name] for raw in used] for name in (key, base))
    medians, of_base, of_twin = (
        np.array([np.median(part["latency_ms"]) for part in parts])
        for parts in (own, baseline, [raw["twin"] for raw in used])
    )
    rates = [np.median([1e3 * batch * w["iterations"] / w["ms"] for w in part["throughput"]]) for part in own]
    found = {
        "latency_ms": geometric(medians),
        "throughput_per_s": geometric(rates),
        "first_inference_ms": geometric([part["first_inference_ms"] for part in own]),
        "load_ms": geometric([part["load_ms"] for part in own]),
    }
    if all(len(part["latency_ms"]) >= 64 for part in own):
        found["latency_p90_ms"] = geometric([np.percentile(part["latency_ms"], 90) for part in own])
    found["aa_ratio" if key == base else "speedup"] = geometric(of_base / (of_twin if key == base else medians))
    return found, geometric(of_base / of_twin)


def line(raw, record):
    """What the record says of one process."""
    part = raw["cases"][record["case_key"]]
    values = np.array(part["latency_ms"])
    low, high = np.percentile(values, [25, 75])
    third = len(values) // 3
    return {
        "n": len(values),
        "median_ms": np.median(values),
        "twin_median_ms": np.median(raw["twin"]["latency_ms"]),
        "baseline_median_ms": np.median(raw["cases"][record["baseline_key"]]["latency_ms"]),
        "gemm_median_ms": np.median(raw["reference_gemm"]["ms"]),
        "iqr_over_median": (high - low) / np.median(values),
        "outlier_share": np.mean((values < low - 1.5 * (high - low)) | (values > high + 1.5 * (high - low))),
        "drift": np.median(values[-third:]) / np.median(values[:third]) - 1,
        "preempted_share": np.mean(part["preempted"]),
        "block": part["block"],
        "minor_faults_per_iteration": sum(part["minor_faults"]) / (len(values) * part["block"]),
        "set_aside": is_set_aside(raw, record["protocol"]["parameters"]["latency"]["preempted_share"]),
    }


def assert_agrees(folder, record):
    """Every timed reading, the noise floor and the line of every process are in the record to the last digits."""
    found, floor = readings(folder, record)
    rows = {row["metric"]: row for row in record["readings"]}
    for metric, numbers in found.items():
        of_row = [rows[metric][name] for name in ("value", "ci_low", "ci_high", "n")]
        assert of_row == pytest.approx(numbers, rel=1e-12), metric
    of_record = record["timing"]["noise_floor"]
    assert [of_record[name] for name in ("value", "low", "high", "n")] == pytest.approx(floor, rel=1e-12)
    for told, raw in zip(record["timing"]["invocations"], raw_files(folder, record), strict=True):
        again = line(raw, record)
        assert {name: told[name] for name in again} == pytest.approx(again, rel=1e-12)
