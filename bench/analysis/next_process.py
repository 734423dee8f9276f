"""What the next process of a session is to do, by what those before it showed: pure decisions over raw samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench.allocation import (
    BLOCK,
    FEWEST_BLOCKS,
    FEWEST_TO_TELL,
    STILL_FALLING,
    Bounds,
    Costs,
    common_warm_up,
    planned_iterations,
)
from bench.analysis.session import Invocation, further_parts, is_long, is_set_aside, member
from bench.config.protocol import Latency, Protocol
from bench.plan.process import ProcessPlan

#: Names of what is timed in a process beside its cases, and what stands between a case and a part of it.
TWIN, REFERENCE, OF = "twin", "reference_gemm", "/"
#: No round takes less: no clock tells it.
LEAST_S = 1e-9


def next_process(done: Sequence[Invocation], keys: Sequence[str], baseline: str, protocol: Protocol) -> ProcessPlan:
    """The plan of the process after those that there are.

    The first that counts does everything in full; the others warm up and sample by what it showed, as far as the
    protocol asks for that. Extras are taken until as many processes that count have them as are wanted.

    Args:
        done: the session's processes, in order.
        keys: case keys of its members.
        baseline: the one that the others are compared with.
        protocol: of the sweep.
    """
    latency = protocol.latency
    clean = [item for item in done if not is_set_aside(item, latency)]
    throughput = _wanted(clean, "throughput", latency.throughput_processes)
    layers = _wanted(clean, "layers", protocol.counting.layer_processes)
    if not clean:
        return ProcessPlan(throughput=throughput, layers=layers)
    warm = warm_ups(clean[0], latency)
    return ProcessPlan(rounds(clean[0], keys, baseline, latency, warm), warm, throughput, layers)


def _wanted(clean: Sequence[Invocation], extra: str, processes: int | None) -> bool:
    return processes is None or sum(_plan(item).get(extra, True) for item in clean) < processes


def _plan(invocation: Invocation) -> dict[str, Any]:
    """What a process was told to do; nothing of one that was measured before there were plans: it did all."""
    return invocation.get("plan") or {}


def _warmed(invocation: Invocation) -> Iterator[tuple[str, dict[str, Any]]]:
    """The warm-up of all that a process timed, by the names that its worker gives."""
    for key, name in [*((key, key) for key in invocation["cases"]), (TWIN, TWIN)]:
        yield name, member(invocation, key)["warmup"]
        for part in further_parts([invocation], key):
            yield f"{name}{OF}{part}", member(invocation, key, part)["warmup"]
    if "warmup" in invocation["reference_gemm"]:
        yield REFERENCE, invocation["reference_gemm"]["warmup"]


def warm_ups(first: Invocation, latency: Latency) -> dict[str, float]:
    """Seconds of warm-up by name: the same for all whose full warm-up tells enough (`common_warm_up`).

    What ran too seldom in the first process to tell is not in it, and warms up in full again.
    """
    if not latency.warm_by_evidence:
        return {}
    traces = {}
    for name, warm in _warmed(first):
        trace = np.asarray(warm.get("trace_ms") or [], dtype=float)
        if len(trace) >= FEWEST_TO_TELL and bool((trace > 0).all()):
            traces[name] = trace, float(warm["seconds"])
    if not traces:
        return {}
    shortest = min(seconds for _, seconds in traces.values())
    logs = [np.log(trace[: max(FEWEST_TO_TELL, round(len(trace) * shortest / s))]) for trace, s in traces.values()]
    slices = min(len(each) for each in logs)
    sliced = np.array([[float(part.mean()) for part in np.array_split(each, slices)] for each in logs])
    needed = shortest * float(common_warm_up(sliced)) / slices
    return dict.fromkeys(traces, min(needed, STILL_FALLING * latency.warmup_s))


def rounds(
    first: Invocation, keys: Sequence[str], baseline: str, latency: Latency, warm: dict[str, float]
) -> int | None:
    """Samples of each member in a further process; None for as many as the first takes.

    Args:
        first: the process that shows what samples are worth.
        keys: case keys of the members.
        baseline: the one that the others are compared with.
        latency: limits.
        warm: seconds of warm-up of a further process.
    """
    bounds = _bounds(latency)
    taken = len(member(first, baseline)["latency_ms"])
    if bounds is None or "stages_s" not in first or taken < FEWEST_BLOCKS * BLOCK or is_long(first, latency):
        return None
    logs = {key: np.log(member(first, key)["latency_ms"]) for key in (*keys, TWIN)}
    cases = [logs[key] for key in keys if key != baseline]
    both = latency.twin_control and bool(cases)
    baselines = [logs[baseline], logs[TWIN]] if both else [logs[baseline]]
    others = np.array(cases or [logs[TWIN]])
    planned = planned_iterations(np.array(baselines), others, costs(first, warm), bounds, latency.by_rounds)
    slowest = max(_sample_s(part) for part in [*first["cases"].values(), first["twin"]])
    return min(planned, max(taken, int(latency.case_seconds / slowest)))


def _bounds(latency: Latency) -> Bounds | None:
    """The protocol's bounds of what is planned; None where nothing is."""
    if latency.fewest_samples is None or latency.most_samples is None:
        return None
    return Bounds(latency.fewest_samples, latency.most_samples, latency.between, latency.one_piece)


def costs(first: Invocation, warm: dict[str, float]) -> Costs:
    """Seconds of a further process without its samples and without extras, and of a round of samples."""
    stages, waited = first["stages_s"], first.get("quiet", {}).get("waited_s", 0.0)
    warm_s = sum(warm.get(name, found["seconds"]) for name, found in _warmed(first))
    rest = first["seconds"] - waited - sum(stages.values())
    samples = len(first["reference_gemm"]["ms"])
    return Costs(max(0.0, rest) + warm_s, max(stages["sampled"] / samples, LEAST_S))


def _sample_s(part: dict[str, Any]) -> float:
    """Seconds of a member's sample, about."""
    return float(np.median(part["latency_ms"])) * part["block"] / 1e3
