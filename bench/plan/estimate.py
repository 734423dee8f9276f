"""How long a sweep will take, from counts and the protocol; a guess that is only ever shown as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench import workloads
from bench.config.protocol import Protocol
from bench.plan.case import Case
from bench.plan.plan import Group

#: Share of the peak that networks typically reach; only the estimate of the time left depends on it.
TYPICAL_EFFICIENCY = 0.4
#: Operations per second of one core of a machine that was never calibrated.
UNKNOWN_PEAK = 5e10
OVERHEAD_MS = 2.0
#: What a run is taken to cost where it cannot be counted beforehand.
UNKNOWN_MACS = 1e9
PROBE_S = 2.5
#: Runs of the whole that a probe makes: counts, memory, checks.
PROBE_RUNS = 25
#: The same of a workload whose runs may last seconds, with what its facts take.
PROBE_FEW_RUNS = 8
BUILD_S = 0.3
PROCESS_S = 0.8
#: Of counting a case on the meta device.
COUNT_S = 2.0
QUALITY_SAMPLES = 400
#: The same where one run may last seconds: tasks score such runs on fewer samples, many at once.
QUALITY_FEW_SAMPLES = 64
#: Warm-up runs and samples that a run which may last seconds gets at least.
FEW_RUNS = 3


def run_ms(macs: float | None, peak: float | None, threads: int) -> float:
    """A guess at one run's time from its MACs and the machine's peak in op/s."""
    rate = (peak or UNKNOWN_PEAK * threads) * TYPICAL_EFFICIENCY
    return OVERHEAD_MS + 1e3 * 2 * (UNKNOWN_MACS if macs is None else macs) / rate


def parts_ms(macs: Mapping[str, float | None] | None, case: Case, peak: float | None, threads: int) -> list[float]:
    """A guess at the time of one run of every part of a case's workload, the whole first.

    Args:
        macs: of one run by part, the whole first; None for a part, and for all of them, where they are not known:
            then each is taken for a whole run.
        case: what is to be measured.
        peak: op/s of the machine, None if it was never calibrated.
        threads: that it runs on.
    """
    known = macs or dict.fromkeys(workloads.find(case.workload).parts)
    return [run_ms(count, peak, threads) for count in known.values()]


def group_seconds(group: Group, parts: Mapping[str, Sequence[float]], protocol: Protocol) -> float:
    """A guess at the seconds of one group: its probes and its processes.

    Args:
        group: what is timed together.
        parts: of `parts_ms`, by case key.
        protocol: how often everything is repeated.
    """
    base, few = group.baseline, group.baseline.workload != workloads.FORWARD
    timed = [base, *(case for case in group.cases if case.key != base.key)]
    members = [base, *timed]  # the baseline has a twin
    slowest = max(max(parts[case.key]) for case in members) / 1e3
    latency, on_gpu = protocol.latency, base.device != "cpu"
    processes = latency.long_least if _is_long(slowest, protocol) else latency.invocations
    seconds = PROCESS_S * processes + sum(
        _member_seconds(parts[case.key], protocol, on_gpu, few, slowest, number)
        for number in range(processes)
        for case in members
    )
    probes = sum(_probe_seconds(parts[case.key][0] / 1e3, case, few) for case in group.cases)
    return probes + seconds


def _is_long(slowest: float, protocol: Protocol) -> bool:
    return protocol.latency.long_run_s is not None and slowest >= protocol.latency.long_run_s


def _takes(processes: int | None, number: int) -> bool:
    """Whether a process of this number takes what the first `processes` take."""
    return processes is None or number < processes


def _member_seconds(
    parts: Sequence[float], protocol: Protocol, on_gpu: bool, few: bool, slowest: float, number: int
) -> float:
    """Seconds of one member in the process of this number: built, warmed up, sampled part by part, its layers timed.

    How many samples later processes take is known only once the first has been measured; here they take as many.
    """
    latency, long = protocol.latency, _is_long(slowest, protocol)
    least, warm_runs = (FEW_RUNS, FEW_RUNS) if few else (latency.min_samples, latency.warmup_iterations)
    least, warm_runs = (latency.long_samples, 1) if long else (least, warm_runs)
    rounds = max(least, min(latency.samples, latency.case_seconds / slowest))
    brief = latency.warm_by_evidence and not on_gpu and number > 0
    least_warm = 0.0 if brief or long else latency.warmup_s_gpu if on_gpu else latency.warmup_s
    layers = protocol.counting.layer_repeats if _takes(protocol.counting.layer_processes, number) else 0
    layers = min(layers, 1) if long else layers
    windowed = not few and not long and _takes(latency.throughput_processes, number)
    total = BUILD_S
    for t in (part / 1e3 for part in parts):
        warm = max(least_warm, warm_runs * t)
        # a GPU's caches are warmed by a step before each sample, and its windows are rehearsed
        samples = rounds * (2 * t if on_gpu else t)
        windows = (latency.throughput_windows + on_gpu) * max(latency.throughput_window_s, 2 * t) if windowed else 0.0
        total += warm + samples + windows + layers * t * 1.5
    return total


def _probe_seconds(seconds: float, case: Case, few: bool) -> float:
    """Seconds of the probe of a case: runs of it, its score, and what its workload measures besides."""
    samples = QUALITY_FEW_SAMPLES if few else QUALITY_SAMPLES
    quality = 0.0 if case.task == "none" else samples / case.batch * seconds
    return PROBE_S + (PROBE_FEW_RUNS if few else PROBE_RUNS) * seconds + quality + _facts_seconds(case)


def _facts_seconds(case: Case) -> float:
    """What the workload says of its own measurements, as a pipeline's runs under load; 0 where it says nothing."""
    told = getattr(workloads.module_of(case.workload), "facts_seconds", None)
    return float(told(case.full_shape)) if told is not None else 0.0


def in_words(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
