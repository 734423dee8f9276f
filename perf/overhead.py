"""What a fresh process costs here, and whether a forked one measures the same as a plainly started one.

Run `python -m perf.overhead`. First the seconds of a probe and an invocation by part; then the same small network timed
in forked and in plainly started processes, alternating, with the ratio of the two and its interval.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.api import protocol_named
from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.statistics import ratio_interval_paired
from bench.worker.client import Done, Workers

TIMEOUTS = {"start": 60.0, "load": 60.0, "compile": 60.0, "warmup": 60.0, "measure": 300.0}
PAIRS = 6
MODEL = {"width": 192, "heads": 3, "depth": 4, "patch": 16}

#: A worker's life without the server: everything a forked worker does, after importing torch itself.
PLAIN = "import sys, pathlib; from bench.worker import child; sys.exit(child.run(pathlib.Path(sys.argv[1])))"


def spec(kind: str) -> dict[str, Any]:
    """What a worker is told: one small ViT, timed alone."""
    case = Case(suite="overhead", model="vit", resolution=224)
    recipe = Recipe(case, "suites.common.vit:vit", MODEL).as_dict()
    protocol = protocol_named("quick").model_dump()
    if kind == "probe":
        return {"recipe": recipe, "protocol": protocol, "meters": ["params", "macs", "memory", "energy"]}
    return {"recipes": [recipe], "protocol": protocol, "session": "overhead", "index": 0, "seed": 1}


def plainly(kind: str, folder: Path) -> tuple[dict[str, Any], float]:
    """The same job in a process of its own from the start; its result and its seconds."""
    files = {"phase_file": str(folder / "phase"), "outcome_file": str(folder / "outcome.json")}
    (folder / "spec.json").write_text(json.dumps({**spec(kind), **files, "kind": kind, "memory_limit_bytes": None}))
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", PLAIN, str(folder / "spec.json")], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    return json.loads((folder / "outcome.json").read_text(encoding="utf-8"))["result"], seconds


def measured_seconds(result: dict[str, Any]) -> float:
    """Seconds of an invocation that were spent warming up and in measured windows."""
    members = [*result["cases"].values(), result["twin"]]
    gemm = result["reference_gemm"]
    warm = sum(member["warmup"]["seconds"] for member in members) + gemm["warmup"]["seconds"]
    samples = sum(sum(member["latency_ms"]) * member["block"] for member in members) + sum(gemm["ms"]) * gemm["block"]
    windows = sum(window["ms"] for member in members for window in member["throughput"])
    layers = sum(2 * m["layers"]["repeats"] * m["layers"]["plain"] for m in members if "layers" in m)
    return warm + (samples + windows + layers) / 1e3


def parts(result: dict[str, Any], seconds: float) -> dict[str, float]:
    """Where an invocation's seconds outside warm-up and measured windows go; `seconds`: the whole process."""
    members = [*result["cases"].values(), result["twin"]]
    known = {
        "starting, handing over and ending": seconds - result["seconds"],
        "looking whether the host is quiet": result["quiet"]["waited_s"],
        "building the networks": sum(member["load_ms"] for member in members) / 1e3,
        "first forwards": sum(member["first_inference_ms"] for member in members) / 1e3,
    }
    rest = seconds - measured_seconds(result) - sum(known.values())
    return {**known, "between samples, snapshots, the rest": rest}


def middle(result: dict[str, Any]) -> float:
    """The median sample of the only case."""
    return statistics.median(next(iter(result["cases"].values()))["latency_ms"])


def main() -> None:
    """Print both tables."""
    forked: list[float] = []
    plain: list[float] = []
    overheads: dict[str, list[dict[str, float]]] = {"forked": [], "plain": []}
    with tempfile.TemporaryDirectory() as scratch, Workers(TIMEOUTS) as workers:
        folder, log = Path(scratch), Path(scratch) / "log"
        probe = workers.run("probe", spec("probe"), log=log)
        for _ in range(PAIRS):
            outcome = workers.run("invocation", spec("invocation"), log=log)
            assert isinstance(outcome, Done), outcome.message
            forked.append(middle(outcome.result))
            overheads["forked"].append(parts(outcome.result, outcome.seconds))
            result, seconds = plainly("invocation", folder)
            plain.append(middle(result))
            overheads["plain"].append(parts(result, seconds))
        print(f"server: torch imported once in {workers.ready['import_s']:.2f} s, {workers.ready['threads']} thread")
        print(f"probe (counts twice, memory three ways): {probe.seconds:.2f} s in all")
    print("\n| seconds of an invocation outside warm-up and measured windows | forked | plain |\n|---|---|---|")
    for part in overheads["forked"][0]:
        cells = (statistics.median(found[part] for found in values) for values in overheads.values())
        print(f"| {part} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    wholes = (statistics.median(sum(found.values()) for found in values) for values in overheads.values())
    print("| all of it | " + " | ".join(f"{whole:.2f}" for whole in wholes) + " |\n")
    ratio = ratio_interval_paired(forked, plain)
    print(
        f"time in forked over plain processes: {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}], n = {ratio.n} "
        "pairs"
    )


if __name__ == "__main__":
    main()
