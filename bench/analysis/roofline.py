"""Where a network's time must go on a machine: per-layer bounds, the waterline and the two factors of efficiency.

Definitions (SI; one multiply-accumulate is 2 operations). A layer with F operations and B bytes on a unit with peak P
and bandwidth W has compute time Tc = F/P, memory time Tm = B/W and attainable time T = max(Tc, Tm). Layers run one
after another, so T_att = sum of T and E_att = t_ideal / T_att with t_ideal = sum of Tc. With the measured time t,
E = t_ideal / t = E_att x E_kernel. The bar of a layer is Tm wide and h = Tc/Tm high; the water level is 1.

Vector operations (norms, softmax, elementwise) are never added to F: such a layer has F = 0, its bytes still cost time,
and its efficiency is not defined. An unknown peak, bandwidth or byte count makes what follows from it `None`, never
another dtype's value; `Waterline.notes` says what is missing.

Sources: the roofline model, S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009; latency = operations
/ (peak x efficiency), the efficiency gap and the name waterline, A. Lavin, arXiv 2404.03617. The geometry of the bars
is our own derivation ("waterline, after Lavin 2024").
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.reading import Reading, reading, unavailable

OPERATIONS_PER_MAC = 2
#: Relative slack before a measured time counts as faster than its bound: float noise only.
SLACK = 1e-9

State = Literal["compute-bound", "memory-bound", "balanced", "unknown"]

BEATS_BOUND = "beats the DRAM bound: cache-resident, fast algorithm, wrong bytes or wrong peak"
OVERLAP = "overlap or profiler overhead: the layers' times sum to more than the end-to-end time"
FUSED_NOTE = "what-if: a bound only, no halo is recomputed and nothing was measured"


@dataclass(frozen=True)
class Layer:
    """What one layer does and on what: operations, bytes, its own unit's peak (op/s) and bandwidth (B/s), times in ms.

    `handed_on_bytes` is what the next layer in order reads of this one's output; fusing the two saves it twice.
    `vector_ops` and the byte parts are carried for display and enter no formula. `uncounted` names operators whose
    operations and bytes are not known, so that `ops` and `bytes` are at least what stands there.
    """

    name: str
    ops: float
    bytes: float | None
    peak: float | None
    bandwidth: float | None
    time_ms: float | None = None
    time_low_ms: float | None = None
    time_high_ms: float | None = None
    handed_on_bytes: float | None = None
    op: str = ""
    block: str = ""
    dtype: str = ""
    vector_ops: float = 0.0
    read_bytes: float | None = None
    write_bytes: float | None = None
    bytes_source: str = ""
    tokens: int | None = None
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bar:
    """A layer, or several drawn as one, in all three views; times in ms, `None` where an input is unknown.

    Widths are `memory_ms` in the op:byte view, `attainable_ms` and `time_ms` in the others; `height` is Tc/Tm, and
    water fills from `height` to `top` = T/Tm (1 for a submerged layer). `attainable_is_bound` marks a T that can only
    be larger.
    """

    name: str
    ops: float
    bytes: float | None
    compute_ms: float | None
    memory_ms: float | None
    attainable_ms: float | None
    attainable_is_bound: bool
    height: float | None
    top: float | None
    water_ms: float | None
    intensity: float | None
    ridge: float | None
    efficiency: float | None
    efficiency_low: float | None
    efficiency_high: float | None
    state: State
    time_ms: float | None
    time_low_ms: float | None
    time_high_ms: float | None
    badges: tuple[str, ...] = ()
    share_attainable: float | None = None
    share_measured: float | None = None
    members: tuple[str, ...] = ()
    layer: Layer | None = None


@dataclass(frozen=True)
class Totals:
    """Sums over a network, times in ms, efficiencies as fractions (above 1 is possible and kept).

    `attainable_is_bound` means that `attainable_ms` is a lower and `e_att` an upper bound, because the bytes of
    `layers_without_bytes` layers are unknown. `single_dot` is the efficiency of one roofline dot for the whole network,
    sum Tc / max(sum Tc, sum Tm). `efficiency` and `e_kernel` take the sum of the layers' times, `end_to_end_efficiency`
    the time of the whole forward; `unexplained_ms` is what no drawn layer accounts for.
    """

    ops: float
    bytes: float | None
    ideal_ms: float | None
    memory_ms: float | None
    attainable_ms: float | None
    attainable_is_bound: bool
    layers_without_bytes: int
    water_ms: float | None
    e_att: float | None
    single_dot: float | None
    measured_ms: float | None
    efficiency: float | None
    e_kernel: float | None
    end_to_end_ms: float | None
    end_to_end_efficiency: float | None
    unexplained_ms: float | None


@dataclass(frozen=True)
class Waterline:
    """Bars in execution order with their totals; `hidden`: layers without operations or bytes; `notes`: caveats."""

    bars: tuple[Bar, ...]
    totals: Totals
    hidden: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()


def waterline(layers: Sequence[Layer], *, end_to_end_ms: float | None = None) -> Waterline:
    """The bars and totals of layers that run one after another.

    Args:
        layers: in execution order; each with the peak of its own dtype.
        end_to_end_ms: measured time of the whole forward, for the part that no layer explains.
    """
    hidden = tuple(layer for layer in layers if layer.ops == 0 and layer.bytes == 0)
    bars = [bar_of(layer) for layer in layers if not (layer.ops == 0 and layer.bytes == 0)]
    totals = _totals(bars, hidden, end_to_end_ms)
    return Waterline(with_shares(bars, totals), totals, hidden, tuple(_notes(bars, hidden, totals)))


def bar_of(layer: Layer) -> Bar:
    """The bounds of one layer, without its shares of the whole."""
    compute = _ratio_ms(layer.ops, layer.peak) if layer.ops else 0.0
    memory = _ratio_ms(layer.bytes, layer.bandwidth) if layer.bytes != 0 else 0.0
    bound = compute is not None and layer.bytes is None and layer.bandwidth is not None
    attainable = max(compute, memory) if compute is not None and memory is not None else compute if bound else None
    height = compute / memory if compute is not None and memory else None
    bar = Bar(
        name=layer.name,
        ops=layer.ops,
        bytes=layer.bytes,
        compute_ms=compute,
        memory_ms=memory,
        attainable_ms=attainable,
        attainable_is_bound=bound,
        height=height,
        top=max(1.0, height) if height is not None else None,
        water_ms=attainable - compute if attainable is not None and compute is not None and not bound else None,
        intensity=layer.ops / layer.bytes if layer.bytes else None,
        ridge=layer.peak / layer.bandwidth if layer.peak and layer.bandwidth else None,
        efficiency=_efficiency(layer.ops, compute, layer.time_ms),
        efficiency_low=_efficiency(layer.ops, compute, layer.time_high_ms),
        efficiency_high=_efficiency(layer.ops, compute, layer.time_low_ms),
        state=_state(compute, memory),
        time_ms=layer.time_ms,
        time_low_ms=layer.time_low_ms,
        time_high_ms=layer.time_high_ms,
        members=(layer.name,),
        layer=layer,
    )
    return replace(bar, badges=_badges(bar))


def fused(layers: Sequence[Layer], blocks: Sequence[Sequence[int]] | None = None) -> list[Layer]:
    """The layers with each block merged into one and twice its inner bytes removed: a what-if, a bound only.

    A merged layer has the summed operations, the summed bytes less twice what each member hands to the next member, and
    a peak that keeps its compute time the sum of its members'. It has no measured time.

    Args:
        layers: in execution order.
        blocks: runs of consecutive positions to merge; by default neighbours with the same non-empty `block`.

    Raises:
        ValueError: a block is not a run of consecutive positions, or two blocks overlap.
    """
    runs = [list(block) for block in (_runs_of_blocks(layers) if blocks is None else blocks) if len(block) > 1]
    taken = [position for run in runs for position in run]
    if len(set(taken)) != len(taken) or any(run != list(range(run[0], run[0] + len(run))) for run in runs):
        raise ValueError(f"blocks to fuse must be separate runs of consecutive layers, not {runs}")
    starts = {run[0]: run for run in runs}
    inner = {position for run in runs for position in run[1:]}
    return [
        _merged([layers[p] for p in starts[i]]) if i in starts else layer
        for i, layer in enumerate(layers)
        if i not in inner
    ]


_NUMBERED = re.compile(r"_\d+$")
_LISTS_OF_BLOCKS = ("blocks", "layers", "layer")


def readings(line: Waterline) -> list[Reading]:
    """The readings `ideal_ms` and `attainable_ms` of one forward, modelled, or unavailable with the reason."""
    totals, why = line.totals, "; ".join(line.notes) or "a peak or the bandwidth is unknown"
    made = [
        unavailable("ideal_ms", why)
        if totals.ideal_ms is None
        else reading("ideal_ms", totals.ideal_ms, "modelled", statistic="operations / measured peak")
    ]
    if totals.attainable_ms is None:
        return [*made, unavailable("attainable_ms", why)]
    note = (
        f"at least: the bytes of {totals.layers_without_bytes} layers are unknown" if totals.attainable_is_bound else ""
    )
    statistic = "sum over layers of max(Tc, Tm)"
    return [*made, reading("attainable_ms", totals.attainable_ms, "modelled", statistic=statistic, method_note=note)]


# ---------------------------------------------------------------------------------------------- inside


def _ratio_ms(amount: float | None, rate: float | None) -> float | None:
    return None if amount is None or rate is None else 1e3 * amount / rate


def _efficiency(ops: float, compute: float | None, time: float | None) -> float | None:
    """Tc / t; not defined, rather than 0, for a layer without operations."""
    return compute / time if ops and compute is not None and time else None


def _state(compute: float | None, memory: float | None) -> State:
    if compute is None or memory is None:
        return "unknown"
    if compute == memory:
        return "balanced"
    return "compute-bound" if compute > memory else "memory-bound"


def _badges(bar: Bar) -> tuple[str, ...]:
    faster = bar.time_ms is not None and bar.attainable_ms is not None and bar.time_ms < bar.attainable_ms * (1 - SLACK)
    return (BEATS_BOUND,) if faster else ()


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum, or `None` if any part is unknown."""
    parts = list(values)
    return None if any(part is None for part in parts) else math.fsum(part for part in parts if part is not None)


def _over(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _totals(bars: Sequence[Bar], hidden: Sequence[Layer], end_to_end_ms: float | None) -> Totals:
    ideal, attainable = _sum(b.compute_ms for b in bars), _sum(b.attainable_ms for b in bars)
    memory, bound = _sum(b.memory_ms for b in bars), any(b.attainable_is_bound for b in bars)
    measured = _sum(b.time_ms for b in bars) if bars else None
    spent = None if measured is None else measured + math.fsum(layer.time_ms or 0.0 for layer in hidden)
    overlapping = end_to_end_ms is not None and spent is not None and spent > end_to_end_ms * (1 + SLACK)
    explained = end_to_end_ms is not None and measured is not None and not overlapping
    dot = max(ideal, memory) if ideal is not None and memory is not None else None
    shape = _over(ideal, attainable) if ideal else None
    return Totals(
        ops=math.fsum(b.ops for b in bars),
        bytes=_sum(b.bytes for b in bars),
        ideal_ms=ideal,
        memory_ms=memory,
        attainable_ms=attainable,
        attainable_is_bound=bound,
        layers_without_bytes=sum(b.bytes is None for b in bars),
        water_ms=_sum(b.water_ms for b in bars),
        e_att=shape,
        single_dot=_over(ideal, dot) if ideal else None,
        measured_ms=measured,
        efficiency=_over(ideal, measured) if ideal else None,
        e_kernel=_over(attainable, measured),
        end_to_end_ms=end_to_end_ms,
        end_to_end_efficiency=_over(ideal, end_to_end_ms) if ideal else None,
        unexplained_ms=max(0.0, end_to_end_ms - measured) if explained else None,  # type: ignore[operator]
    )


def with_shares(bars: Sequence[Bar], totals: Totals) -> tuple[Bar, ...]:
    """The bars with their shares of the attainable and of the measured time of all layers."""
    return tuple(
        replace(
            bar,
            share_attainable=_over(bar.attainable_ms, totals.attainable_ms),
            share_measured=_over(bar.time_ms, totals.measured_ms),
        )
        for bar in bars
    )


def _notes(bars: Sequence[Bar], hidden: Sequence[Layer], totals: Totals) -> Iterable[str]:
    without_peak = sorted({b.layer.dtype or "?" for b in bars if b.layer and b.compute_ms is None})
    if without_peak:
        yield f"the peak for {', '.join(without_peak)} is unknown: no ideal, no water, no efficiency"
    if any(b.layer and b.layer.bandwidth is None for b in bars):
        yield "the DRAM bandwidth is unknown: ideal time and efficiency only"
    if totals.layers_without_bytes:
        yield f"the bytes of {totals.layers_without_bytes} layers are unknown: E_att is an upper bound (<=)"
    uncounted = sum(bool(b.layer and b.layer.uncounted) for b in bars)
    if uncounted:
        yield (
            f"{uncounted} layers hold operators that could not be counted: ideal and attainable time are at least these"
        )
    if hidden:
        yield f"{len(hidden)} layers without operations or bytes (views) are not drawn"
    without_time = sum(b.time_ms is None for b in bars)
    if without_time:
        yield f"{without_time} layers have no measured time"
    if totals.end_to_end_ms is not None and totals.measured_ms is not None and totals.unexplained_ms is None:
        yield OVERLAP
    beating = sum(BEATS_BOUND in b.badges for b in bars)
    if beating:
        yield f"{beating} layers: {BEATS_BOUND}"


def summed(name: str, members: Sequence[Bar]) -> Bar:
    """Several bars as one whose times are the sums, so that totals stay whatever is grouped."""
    compute, memory = _sum(b.compute_ms for b in members), _sum(b.memory_ms for b in members)
    attainable, time = _sum(b.attainable_ms for b in members), _sum(b.time_ms for b in members)
    low, high = _sum(b.time_low_ms for b in members), _sum(b.time_high_ms for b in members)
    ops, size = math.fsum(b.ops for b in members), _sum(b.bytes for b in members)
    ridges = {b.ridge for b in members if b.ops}
    bar = Bar(
        name=name,
        ops=ops,
        bytes=size,
        compute_ms=compute,
        memory_ms=memory,
        attainable_ms=attainable,
        attainable_is_bound=any(b.attainable_is_bound for b in members),
        height=_over(compute, memory),
        top=_over(attainable, memory),
        water_ms=_sum(b.water_ms for b in members),
        intensity=_over(ops, size),
        ridge=ridges.pop() if len(ridges) == 1 else None,
        efficiency=_efficiency(ops, compute, time),
        efficiency_low=_efficiency(ops, compute, high),
        efficiency_high=_efficiency(ops, compute, low),
        state=_state(compute, memory),
        time_ms=time,
        time_low_ms=low,
        time_high_ms=high,
        members=tuple(n for b in members for n in b.members),
        layer=None,
    )
    return replace(bar, badges=_badges(bar))


def _runs_of_blocks(layers: Sequence[Layer]) -> list[list[int]]:
    runs: list[list[int]] = []
    for position, layer in enumerate(layers):
        if runs and layer.block and layers[runs[-1][-1]].block == layer.block:
            runs[-1].append(position)
        else:
            runs.append([position])
    return runs


def _merged(members: Sequence[Layer]) -> Layer:
    """One layer in the place of several: see `fused`."""
    ops = math.fsum(layer.ops for layer in members)
    compute = _sum(_ratio_ms(layer.ops, layer.peak) if layer.ops else 0.0 for layer in members)
    size = _sum(layer.bytes for layer in members)
    inner = math.fsum(layer.handed_on_bytes or 0.0 for layer in members[:-1])
    first, last = members[0], members[-1]
    return Layer(
        name=first.block or " + ".join(layer.name for layer in members),
        ops=ops,
        bytes=None if size is None else max(0.0, size - 2 * inner),
        peak=1e3 * ops / compute if ops and compute else first.peak if not ops else None,
        bandwidth=first.bandwidth,
        handed_on_bytes=last.handed_on_bytes,
        op="fused",
        block=first.block,
        dtype="/".join(dict.fromkeys(layer.dtype for layer in members if layer.dtype)),
        vector_ops=math.fsum(layer.vector_ops for layer in members),
        bytes_source=FUSED_NOTE,
    )


def block_of(module_path: str) -> str:
    """The repeated block that a module path belongs to: `blocks.3.mlp.fc1` is in `blocks.3`, a lone layer in none.

    A block ends at the path's first number, at the last of several in a row (`features.1.0`), or at that of a list of
    blocks inside a stage (`layers.0.blocks.1`).
    """
    own = module_path.rsplit(".", 2)[-2:]
    if len(own) == 2 and own[0] in _LISTS_OF_BLOCKS and own[1].isdigit():
        return module_path  # what the block does itself, such as its residual additions
    parts = module_path.split(".")[:-1]
    start = next((i for i, part in enumerate(parts) if part.isdigit() or _NUMBERED.search(part)), None)
    if start is None:
        return ""
    end = start + 1
    while end < len(parts) and parts[end].isdigit():
        end += 1
    if (
        parts[end : end + 1]
        and parts[end] in _LISTS_OF_BLOCKS
        and parts[end + 1 : end + 2]
        and parts[end + 1].isdigit()
    ):
        end += 2
    return ".".join(parts[:end])
