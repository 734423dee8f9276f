"""How many streams one machine keeps up with: the batch is doubled while 99 of 100 steps come in time."""

from __future__ import annotations

from bench.reading import Reading, reading, unavailable
from bench.sample_sizes import samples_for_percentile, sure_percentile
from bench.workloads.steps import Stream
from bench.workloads.stream_facts import TIMED_SECONDS, times_of_steps
from bench.workloads.workload import Built, Shape

METRIC = "streams_max"


def most_streams(subject: Built, shape: Shape) -> list[Reading]:
    """The largest doubling of one stream that keeps the rate of its inputs, up to the shape's `streams`."""
    limit, rate = shape.get("streams"), getattr(subject.module, "rate_hz", None)
    if limit is None:
        return []
    if not rate:
        return [unavailable(METRIC, "the module does not say how fast its inputs come (rate_hz)", "step")]
    apart, largest, batch, ended = 1e3 / float(rate), 0, 1, ""
    seconds = max(TIMED_SECONDS, 1.5 * samples_for_percentile(0.99) / float(rate))
    while batch <= int(limit):
        try:
            within, why = _within(subject, {**shape, "batch": batch}, seconds)
        except (MemoryError, RuntimeError) as error:
            ended = f"{batch} could not be run ({type(error).__name__})"
            break
        if within is None or within > apart:
            ended = f"{batch}: {why}" if within is None else f"{batch} take {within:.3g} ms"
            break
        largest, batch = batch, 2 * batch
    told = f"doubled from 1 at {rate:g} steps/s; {ended or f'the search ended at {limit}'}"
    return [reading(METRIC, largest, "measured", part="step", n=1, method_note=told)]


def _within(subject: Built, shape: Shape, seconds: float) -> tuple[float | None, str]:
    """Milliseconds that 99 of 100 steps of so many streams keep within; None and why where they are too few."""
    stream = Stream(subject, shape)
    times = times_of_steps(stream, stream.warmed()[1], subject, seconds)
    return sure_percentile([time for one_pass in times for time in one_pass], 0.99)
