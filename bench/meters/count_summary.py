"""The result of a count: totals, conventions, coverage and rows, summed from the records of one trace."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bench.flags import Flag, flag
from bench.meters.count_flags import TOLERANCE, count_flags
from bench.meters.fvcore_count import OTHER_TERMS, SecondCount
from bench.meters.inputs import Batch
from bench.meters.macs_count import MacsCount
from bench.meters.parameters_read import ParameterReads
from bench.meters.trace import ModuleVisit, OperatorRecord
from bench.meters.value_checks import ValueChecks

#: Operators that may be an adaptive average pool, for which fvcore charges one per input element; and what it charges
#: for an output element of those that sample a map (its handles; bilinear is assumed
#: for grids).
POOLING = ("aten::mean", "aten::_adaptive_avg_pool2d")
SAMPLING = {"aten::upsample_nearest2d": 1, "aten::upsample_bilinear2d": 4, "aten::grid_sampler_2d": 4}


@dataclass
class Traced:
    """What one traced run left: its records, the modules it went through, signs of masking, and ways out of torch."""

    records: list[OperatorRecord]
    visits: dict[str, ModuleVisit]
    values: ValueChecks
    escapes: Counter[str]
    gaps: dict[str, float]
    seconds: float
    output: Any = None
    foreign: list[tuple[str, Tensor]] = field(default_factory=list)
    batch: Batch | None = None
    overwritten: int = 0
    in_threads: bool = False
    other_threads: bool = False
    reads: ParameterReads | None = None


def summary(traced: Traced, flags: list[Flag], module: nn.Module, args: Any) -> MacsCount:
    """The totals of a traced run, with its flags after the given ones."""
    records = traced.records
    work = [record for record in records if record.kind != "view"]
    own = method_macs(work, module)
    macs = sum(r.macs for r in work) - own
    norms = sum(r.norm_macs for r in work)
    vector = sum(r.vector_ops for r in work)
    unknown = [r for r in work if r.kind == "unknown"]
    weights = sum(r.weight_read + r.weight_written for r in work)
    activations = sum(r.activation_read + r.activation_written for r in work)
    uncounted = _uncounted(unknown, sum(r.elapsed_s for r in work))
    result = MacsCount(
        macs=macs,
        method_macs=own,
        fvcore_macs=None,
        vector_ops=vector,
        bit_operations=sum(r.bit_operations for r in work),
        traffic_bytes=weights + activations,
        read_bytes=sum(r.weight_read + r.activation_read for r in work),
        written_bytes=sum(r.weight_written + r.activation_written for r in work),
        weight_bytes=weights,
        activation_bytes=activations,
        dense_equivalent_macs=sum(r.dense_macs for r in work),
        nonzero_macs=round(sum(_nonzero(r) for r in work)),
        causal_unused_macs=sum(r.causal_unused_macs for r in work),
        elementwise_products=sum(r.elementwise_products for r in work),
        macs_by_dtype=_sums(work, lambda r: r.dtype),
        macs_by_phase=_sums(work, lambda r: r.phase),
        conventions={"matmul": macs, "fvcore": macs + own + norms + _sampled(traced), "all": macs + own + vector},
        at_least=bool(unknown),
        uncounted=uncounted,
        coverage=_coverage(records),
        second={},
        operators=_operators(work),
        tokens={path: visit.tokens for path, visit in traced.visits.items() if visit.tokens},
        dynamic=any(r.data_dependent for r in records),
        device=_device(module, args),
        seconds={"trace": traced.seconds},
        versions={"torch": torch.__version__},
        flags=list(flags),
        records=records,
        visits=traced.visits,
        batch=traced.batch,
        activations=sum(r.activations for r in work),
        parameters_read=None if traced.reads is None else traced.reads.found(),
        reads=traced.reads,
    )
    result.flags += count_flags(result, traced.values)
    return result


def joined(counts: Sequence[MacsCount], module: nn.Module) -> MacsCount:
    """The count of several runs of one network one after the other, as if one trace had seen them all.

    Args:
        counts: of each run, at least one, in order, the last of which gives what they give together; without second
            counts.
        module: the network.
    """
    traced = Traced(
        records=[record for count in counts for record in count.records],
        visits=_visits_of_all(counts),
        values=ValueChecks(),
        escapes=Counter(),
        gaps={},
        seconds=sum(count.seconds["trace"] for count in counts),
        batch=counts[0].batch,
        reads=_reads_of_all(counts),
    )
    result = summary(traced, [], module, ())
    known = {item["code"] for item in result.flags}
    others = [item for count in counts for item in count.flags if item["code"] not in known]
    result.flags += {item["text"]: item for item in others}.values()
    result.at_least = any(count.at_least for count in counts)
    return result


def _visits_of_all(counts: Sequence[MacsCount]) -> dict[str, ModuleVisit]:
    """What each module saw in all runs: its first shapes, every call."""
    found: dict[str, ModuleVisit] = {}
    for count in counts:
        for path, visit in count.visits.items():
            if path not in found:
                found[path] = replace(visit, order=len(found), tokens=list(visit.tokens))
            else:
                found[path].calls += visit.calls
                found[path].tokens += visit.tokens
    if "" in counts[-1].visits:  # the root is what runs: once, and it gives what the last run gives
        last = counts[-1].visits[""]
        found[""] = replace(last, order=found[""].order)
    return found


def _reads_of_all(counts: Sequence[MacsCount]) -> ParameterReads | None:
    reads = [count.reads for count in counts if count.reads is not None]
    return reduce(ParameterReads.and_those_of, reads) if len(reads) == len(counts) else None


def method_paths(module: nn.Module) -> list[str]:
    """Paths of the modules whose products are the method's own: they say so with `charged_to = "method"`."""
    return [path for path, part in module.named_modules() if getattr(part, "charged_to", None) == "method"]


def method_macs(records: Iterable[OperatorRecord], module: nn.Module) -> int:
    """Products that no answer of the network needs: all that a method makes for itself, and what is executed on zeros.

    A module that says `needed_share`, as a kernel that is run on a slice between zeros does, multiplies more than its
    answers need: the rest is executed, and counted here.
    """
    charged = method_paths(module)
    shares = {path: getattr(part, "needed_share", None) for path, part in module.named_modules()}
    needed = {path: share for path, share in shares.items() if isinstance(share, float)}
    total = 0
    for record in records:
        if is_below(record.path, charged):
            total += record.macs
        elif needed and record.macs:
            share = next((needed[path] for path in needed if is_below(record.path, [path])), 1.0)
            total += record.macs - round(share * record.macs)
    return total


def is_below(path: str, roots: Iterable[str]) -> bool:
    """Whether a module path is one of the roots or inside one."""
    return any(path == root or path.startswith(f"{root}.") for root in roots)


def _nonzero(record: OperatorRecord) -> float:
    return record.macs if record.nonzero_macs is None else record.nonzero_macs


def _sums(records: Iterable[OperatorRecord], key: Callable[[OperatorRecord], str]) -> dict[str, int]:
    totals: dict[str, int] = defaultdict(int)
    for record in records:
        if record.macs:
            totals[key(record)] += record.macs
    return dict(totals)


def _device(module: nn.Module, args: Any) -> str:
    tensors = [*module.parameters(), *(leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor))]
    return str(tensors[0].device) if tensors else "cpu"


def _uncounted(unknown: list[OperatorRecord], total_s: float) -> list[dict[str, Any]]:
    groups: dict[str, list[OperatorRecord]] = defaultdict(list)
    for record in unknown:
        groups[record.operator].append(record)
    return [
        {
            "operator": name,
            "calls": len(group),
            "module_paths": sorted({r.path for r in group}),
            "time_share": sum(r.elapsed_s for r in group) / total_s if total_s else None,
        }
        for name, group in groups.items()
    ]


def _coverage(records: list[OperatorRecord]) -> dict[str, Any]:
    calls = Counter(record.kind for record in records)
    total = sum(calls.values())
    return {
        "calls": total,
        "by_class": {kind: calls.get(kind, 0) for kind in ("compute", "vector", "move", "view", "unknown")},
        "known_share": (total - calls["unknown"]) / total if total else None,
    }


def _operators(work: list[OperatorRecord]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, str], list[OperatorRecord]] = defaultdict(list)
    for record in work:
        groups[record.operator, record.kind, record.dtype].append(record)
    rows = [
        {
            "operator": operator,
            "class": kind,
            "dtype": dtype,
            "calls": len(group),
            "macs": sum(r.macs for r in group),
            "vector_ops": sum(r.vector_ops for r in group),
            "read_bytes": sum(r.weight_read + r.activation_read for r in group),
            "written_bytes": sum(r.weight_written + r.activation_written for r in group),
        }
        for (operator, kind, dtype), group in groups.items()
    ]
    return sorted(rows, key=lambda row: (-row["macs"], -row["vector_ops"], row["operator"]))


def _sampled(traced: Traced) -> int:
    """What fvcore charges for enlarging, sampling and pooling maps, as far as the trace sees it.

    Pooling to one place is a mean here. It is one to fvcore as well where a network takes the mean itself, so that the
    mean of a pooling module alone is charged; that of `F.adaptive_avg_pool2d` to one place is not seen.
    """
    total = 0
    for record in traced.records:
        if record.operator in SAMPLING:
            total += SAMPLING[record.operator] * _elements(record.activation_written, record)
        elif record.operator in POOLING and (record.operator != "aten::mean" or _is_in_a_pool(record, traced)):
            total += _elements(record.activation_read, record)
    return total


def _elements(size: int, record: OperatorRecord) -> int:
    return size // getattr(torch, record.dtype).itemsize


def _is_in_a_pool(record: OperatorRecord, traced: Traced) -> bool:
    visit = traced.visits.get(record.path)
    return visit is not None and visit.op == "AdaptiveAvgPool2d"


def join_second(result: MacsCount, second: SecondCount, traced: Traced) -> None:
    """Store fvcore's count beside the first and flag a difference above the tolerance, with its likely reason."""
    result.versions["fvcore"] = second.version
    result.fvcore_macs = second.total
    result.second = {
        "counter": "fvcore",
        "version": second.version,
        "macs": second.total,
        "products": second.products,
        "by_operator": second.by_operator,
        "unsupported": second.unsupported,
        "error": second.error,
        "relative_difference": None,
        "tolerance": TOLERANCE,
        "agrees": None,
    }
    if second.products is None:
        text = f"fvcore could not trace this network ({second.error}); the operator trace stands alone"
        result.flags.append(flag("second_count_failed", "info", text))
        return
    extra = sum(second.by_operator.get(name, 0) for name in OTHER_TERMS)
    result.conventions["fvcore"] += extra - _sampled(traced)
    first = result.dense_equivalent_macs
    difference = (second.products - first) / first if first else (0.0 if not second.products else float("inf"))
    result.second["relative_difference"] = difference if first else None
    result.second["agrees"] = abs(difference) <= TOLERANCE
    if not result.second["agrees"]:
        result.flags.append(flag("counts_differ", "warn", _reason(second, first, traced)))


def _reason(second: SecondCount, first: float, traced: Traced) -> str:
    assert second.products is not None
    lead = f"fvcore counts {second.products / 1e9:.5g} GMACs of products, the operator trace {first / 1e9:.5g}: "
    skipped = [name for name in second.unsupported if name.split("::")[0] not in ("prim",)]
    if second.products < first and skipped:
        return lead + f"fvcore skips {', '.join(skipped[:5])}"
    unknown = sorted({r.operator for r in traced.records if r.kind == "unknown"})
    if unknown:
        return lead + f"the trace does not know {', '.join(unknown[:5])}"
    return lead + "no skipped operator explains it; look at both lists of operators"
