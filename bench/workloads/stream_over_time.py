"""What becomes of a stream that goes on and on: whether its steps take longer, its state grows, its answers drift.

The clip comes round again and again and the state is never put back, so that a list that grows or a sum that loses
digits shows.
"""

from __future__ import annotations

import statistics
from typing import Any

from bench.flags import flag
from bench.reading import Reading, reading, unavailable
from bench.workloads.steps import Stream
from bench.workloads.workload import Built, Spans, clock_of

#: Blocks of whole cycles whose times are compared; rounds of so many until these seconds have passed, and most of them.
BLOCKS, TREND_SECONDS, ROUNDS = 8, 0.5, 64
#: A stream's steps take longer where nearly every pair of blocks says so, and the last blocks by so much.
RANKED, RISEN = 0.8, 1.25
#: Seconds after which a drift is read at the next place where it can be.
DRIFT_SECONDS = 10.0


def trend(stream: Stream, state: Any, subject: Built) -> tuple[list[Reading], list[dict[str, str]]]:
    """Time of the last steps over that of the first ones, and flags where steps take longer or the state grows."""
    from bench.tensors import copy_of, held_bytes, weights_of

    own, per = weights_of(stream.module), max(stream.period, stream.cycle)
    clock, current, at = clock_of(subject), copy_of(state, stream.module), stream.warm
    began, times, held = clock(), list[float](), list[int]()
    while not times or (len(times) < ROUNDS * BLOCKS and (clock() - began) / 1e9 < TREND_SECONDS):
        for _ in range(BLOCKS):
            spans = Spans(subject.synchronise, clock)
            for _ in range(per):
                with spans.span("step"):
                    _, current = stream.module.step(stream.inputs[at], current)
                at = stream.warm if at + 1 == stream.length else at + 1
            times.append(statistics.median(spans.read()["step"]))
            held.append(held_bytes(current, without=own))
    each = len(times) // BLOCKS
    blocks = [statistics.median(times[place * each : (place + 1) * each]) for place in range(BLOCKS)]
    return _time_trend(blocks, len(times) * per), _grown(held, len(times) * per) + _slower(blocks, len(times) * per)


def _time_trend(blocks: list[float], steps: int) -> list[Reading]:
    """The last quarter's time over the first one's."""
    if not blocks[0]:
        return []
    note = f"medians of the last and of the first quarter of {steps} steps on end, in one process"
    return [reading("step_time_trend", _ratio(blocks), "measured", part="step", n=1, method_note=note)]


def _ratio(blocks: list[float]) -> float:
    quarter = BLOCKS // 4
    return statistics.fmean(blocks[-quarter:]) / statistics.fmean(blocks[:quarter])


def _slower(blocks: list[float], steps: int) -> list[dict[str, str]]:
    pairs = [(blocks[i], blocks[j]) for i in range(BLOCKS) for j in range(i + 1, BLOCKS)]
    rank = sum((after > before) - (after < before) for before, after in pairs) / len(pairs)
    if not blocks[0] or rank < RANKED or _ratio(blocks) < RISEN:
        return []
    text = f"its steps take longer and longer: {_ratio(blocks):.3g} times as long after {steps} steps"
    return [flag("step_time_grows", "warn", text)]


def _grown(held: list[int], steps: int) -> list[dict[str, str]]:
    """A state that holds more at every look in the second half than ever in the first; what wavers does not."""
    half = len(held) // 2
    if min(held[half:]) <= max(held[:half]):
        return []
    text = f"its state grows: {held[0]} B at first, {held[-1]} B after {steps} more steps"
    return [flag("stream_state_grows", "warn", text)]


def drift(stream: Stream, state: Any, subject: Built) -> list[Reading]:
    """How far the answer is off after many steps, where the module keeps sums that rounding may pile up in.

    The module says after how many steps (`drift_steps`), and where its count of time matters after how many it comes
    round (`time_repeats`). The answer at the end of a round of the clip is compared with that of the reference.
    """
    wanted = int(getattr(stream.module, "drift_steps", 0))
    if not wanted:
        return []
    from bench.tensors import copy_of

    clock, repeats = clock_of(subject), int(getattr(stream.module, "time_repeats", 1))
    began = clock()
    outputs, current = stream.steps(copy_of(state, stream.module), stream.warm, stream.length - stream.warm)
    steps, late = stream.length, False
    while steps < wanted or (steps - stream.length) % repeats:
        late = late or (clock() - began) / 1e9 > DRIFT_SECONDS
        if late and (steps - stream.length) % repeats == 0:
            break
        outputs, current = stream.steps(current, 0, stream.length)
        steps += stream.length
    output = next((each for each in reversed(outputs) if each is not None), None)
    if output is None:
        return [unavailable("drift_error", f"no output in the last {len(outputs)} steps", "step")]
    found = getattr(stream.module, "reference", stream.module.offline)(stream.clip(stream.length))
    expected = found[-1] if isinstance(found, list | tuple) else found
    if expected.dim() > output.dim():
        expected = expected.select(int(getattr(stream.module, "output_dim", 1)), -1)
    error = float((output - expected).abs().max()) / (float(expected.abs().max()) or 1.0)
    note = f"after {steps} steps on end, over the largest absolute reference; the module asks for {wanted}"
    return [reading("drift_error", error, "measured", part="step", method_note=note)]
