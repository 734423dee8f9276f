"""How long a sweep will take, from counts and the protocol; a guess that is only ever shown as one."""

from __future__ import annotations

from bench.config.protocol import Protocol
from bench.plan.plan import Group

#: Share of the peak that networks typically reach; only the estimate of the time left depends on it.
TYPICAL_EFFICIENCY = 0.4
#: Operations per second of one core of a machine that was never calibrated.
UNKNOWN_PEAK = 5e10
OVERHEAD_MS = 2.0
PROBE_S = 2.5
PROBE_FORWARDS = 25
BUILD_S = 0.3
PROCESS_S = 0.8
#: Of counting a case on the meta device.
COUNT_S = 1.0
QUALITY_SAMPLES = 400


def forward_ms(macs: float | None, peak: float | None, threads: int) -> float:
    """A guess at one forward's time from its MACs and the machine's peak in op/s."""
    rate = (peak or UNKNOWN_PEAK * threads) * TYPICAL_EFFICIENCY
    return OVERHEAD_MS + 1e3 * 2 * (macs or 1e9) / rate


def group_seconds(group: Group, iteration_ms: float, protocol: Protocol) -> float:
    """A guess at the seconds of one group: its probes and its processes."""
    latency, t = protocol.latency, iteration_ms / 1e3
    on_gpu = group.baseline.device != "cpu"
    rounds = max(latency.min_samples, min(latency.samples, latency.case_seconds / t))
    warm = max(latency.warmup_s_gpu if on_gpu else latency.warmup_s, latency.warmup_iterations * t)
    # a GPU's caches are warmed by a step before each sample, and its windows are rehearsed
    samples = rounds * (2 * t if on_gpu else t)
    windows = (latency.throughput_windows + on_gpu) * max(latency.throughput_window_s, 2 * t)
    layers = protocol.counting.layer_repeats * t * 1.5
    member = BUILD_S + warm + samples + windows + layers
    probes = sum(_probe_seconds(t, case.batch, case.task) for case in group.cases)
    return probes + latency.invocations * (PROCESS_S + (len(group.cases) + 1) * member)


def _probe_seconds(seconds: float, batch: int, task: str) -> float:
    quality = 0.0 if task == "none" else QUALITY_SAMPLES / batch * seconds
    return PROBE_S + PROBE_FORWARDS * seconds + quality


def in_words(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
