"""One of every figure, made of synthetic records: for tests and for looking at."""

import random

from bench.analysis import history
from reports import atlas
from reports.figures import (
    batch_gain,
    courses,
    flagship,
    gap,
    layer_savings,
    machine_roofline,
    noise,
    pareto,
    roofline,
    savings,
    scaling,
    source_map,
    time_split,
    tradeoff,
    waterline,
)
from reports.figures.figure import Figure
from reports.rows import rows_of
from tests.synthetic import record, suite_records


def gallery() -> list[Figure]:
    """Every figure with enough in it to be crowded."""
    problems: list[str] = []
    records = suite_records()
    for step, rate in enumerate((0.5, 0.8, 0.9)):
        records.append(
            record(
                method="evit",
                setting=f"keep_rate={rate}",
                macs=1.25e9 * rate,
                latency_ms=40 * rate + step,
                accuracy=88 + step,
            )
        )
    rows = rows_of(records, problems)
    batches = [record(batch=b, latency_ms=40.0 * b**0.8, baseline_ms=40.0 * b**0.8) for b in (1, 2, 4, 8, 16)]
    case = record(method="tome", setting="r=13", macs=0.74e9, latency_ms=28.0, invocations=5)
    made = [module.figure(rows) for module in (savings, gap, pareto, tradeoff)]
    return [
        waterline.figure({**case, "layers": layers(13)}),
        *made,
        noise.figure(case, samples_of(case)),
        scaling.figure(rows_of(batches, problems)),
        source_map.figure({**case, "picture": picture()}),
        layer_savings.figure({**case, "layers": layers(13)}, {**record(), "layers": layers(0)}),
        batch_gain.figure(rows_of(sweep(), problems)),
        time_split.figure(*matched()),
        roofline.figure({**case, "layers": layers(13)}),
        machine_roofline.figure(rows),
        of_suites(),
        courses.figure(followed(), 3),
    ]


def of_suites() -> Figure:
    """The flagship picture of eight suites, some cases disturbed."""
    made = []
    for place in range(8):
        fields = {"suite": f"suite_{place:02d}", "model": f"net_{place}"}
        made.append(record(**fields))
        for step, method in enumerate(("tome", "evit", "diffrate")):
            item = record(method=method, macs=(0.4 + 0.2 * step) * 1.25e9, latency_ms=30.0 + step + place, **fields)
            made.append({**item, "status": "contaminated"} if place % 5 == 0 else item)
    found = atlas.typical(atlas.points(rows_of(made, [])))
    suites = {name: [p for p in found if p.row.case.suite == name] for name in ("suite_00", "suite_01")}
    look = flagship.looks_by_suite(found)
    return flagship.figure(found, look, title="t", views={"all": found, **suites}, control="Suite", grey_legend=True)


def followed() -> tuple[history.Course, ...]:
    """Courses of twelve days, whether or not the library that finds levels is there."""
    made = []
    for day in range(1, 13):
        for method in ("tome", "evit", "diffrate"):
            item = record(method=method, setting="r=8", latency_ms=30.0 if day < 6 else 36.0, invocations=4)
            item["timing"]["session"] = f"s{day}"
            made.append({**item, "started_at": f"2026-10-{day:02d}T00:00:00+00:00", "content_hash": f"{method}{day}"})
    return history.follow(made).courses


def sweep():
    """Seven methods on one network over four batches, those with long settings and two of one method among them."""
    settings = [
        ("tome", "r=8", 0.9),
        ("tome", "r=13", 1.0),
        ("evit", "keep_rate=0.7", 1.3),
        ("eet", "keep_rate=0.7", 1.1),
        ("diffrate", f"merge={list(range(197, 185, -1))}, prune={list(range(198, 186, -1))}", 0.95),
        ("token_transforming", "keep_rate=0.7, temperature=0.2", 0.8),
        ("stvit", "tokens=16", 1.8),
    ]
    made = []
    for batch in (1, 8, 32, 256):
        base = 40.0 * batch**0.9
        made.append(record(batch=batch, latency_ms=base, baseline_ms=base))
        for method, setting, gain in settings:
            ratio = gain * batch**0.08
            made.append(
                record(
                    method=method,
                    setting=setting,
                    batch=batch,
                    macs=1.25e9 / (gain + 0.4),
                    latency_ms=base / ratio,
                    baseline_ms=base,
                )
            )
    return made


def matched():
    """A case with matching in every block and its baseline, with layer times."""
    case, base = record(method="tome", setting="r=13", macs=0.74e9, latency_ms=28.0), record()
    case["layers"] = layers(13)
    for block in range(12):
        case["layers"].append(
            {
                **case["layers"][0],
                "module_path": f"blocks.{block}.reduce",
                "op": "Merge",
                "macs": 1e5,
                "time_ms": 0.5,
                "time_low_ms": 0.45,
                "time_high_ms": 0.55,
            }
        )
    base["layers"] = layers(0)
    for item in (case, base):
        item["layers_info"] = {"end_to_end_ms": 1.04 * sum(row["time_ms"] for row in item["layers"])}
    return case, base


def picture(grid: int = 8):
    """A grey ramp whose patches merge by rows of two and lose their last one."""
    merged = [1 + place // 2 for place in range(grid * grid)]
    pixels = [[8 * (row + column) % 256 for column in range(32)] for row in range(32)]
    return {
        "pixels": pixels,
        "grid": grid,
        "owners": [list(range(1, grid * grid + 1)), [*merged[:-1], -1]],
        "protected": 1,
    }


def layers(r: int, tokens: int = 197, width: int = 384, depth: int = 12):
    """Layer rows of a small transformer that loses `r` tokens per block."""
    rng, rows = random.Random(r), []

    def add(name, op, macs, read, write, weight, count):
        time = max(2e3 * macs / 1.76e11, 1e3 * (read + write) / 1.37e10) * rng.uniform(1.1, 1.6)
        rows.append({
            "index": len(rows), "name": name, "module_path": name, "op": op, "dtype": "fp32", "macs": macs,
            "vector_ops": 0.0, "read_bytes": read, "write_bytes": write, "weight_bytes": weight, "time_ms": time,
            "time_low_ms": 0.97 * time, "time_high_ms": 1.03 * time, "provenance_bytes": "counted", "tokens": count,
        })  # fmt: skip

    for block in range(depth):
        for name, before, after in (("attn.qkv", 1, 3), ("attn.proj", 1, 1), ("mlp.fc1", 1, 4), ("mlp.fc2", 4, 1)):
            size, weight = 4.0 * tokens * width, 4.0 * before * after * width**2
            add(f"blocks.{block}.norm_{name[-1]}", "layer_norm", 0.0, size, size, 0.0, tokens)
            macs = float(tokens * before * after * width**2)
            add(f"blocks.{block}.{name}", "linear", macs, before * size + weight, after * size, weight, tokens)
        tokens -= min(r, (tokens - 1) // 2)
    return rows


def samples_of(case):
    """Raw samples files of a record: its own, its baseline's and the twin's."""
    rng = random.Random(0)

    def draw(median):
        return [median * (1 + abs(rng.gauss(0, 0.02)) + 0.2 * (rng.random() < 0.04)) for _ in range(80)]

    return {
        run["samples_file"]: {
            "cases": {
                case["case_key"]: {"latency_ms": draw(run["median_ms"])},
                case["baseline_key"]: {"latency_ms": draw(run["baseline_median_ms"])},
            },
            "twin": {"latency_ms": draw(run["twin_median_ms"])},
        }
        for run in case["timing"]["invocations"]
    }
