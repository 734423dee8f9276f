"""A built subject made ready to be timed: run once, compiled and captured if its case says so, each step costed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter_ns  # taken before the user's code could put another clock in its place
from typing import Any

from bench.flags import Flag
from bench.worker.cuda import Captured, captured
from bench.worker.parts import as_step, parts_of
from bench.worker.settle import settle
from bench.worker.subject import Subject, synchronise
from bench.workloads.workload import Part


@dataclass(frozen=True)
class Ready:
    """What is timed, and the milliseconds it took to come that far; None where the case does not ask for that step.

    Attributes:
        parts: what the workload makes of the subject, as its case wants it run; the whole first.
        first_inference_ms: the first run; of a compiled module the first one after that which compiled it.
        compile_ms: the forward that compiled the module; None also if the compiler had nothing left to do.
        compiled: what the compiler did: graphs, breaks between them, kernels that its cache on disk had already.
        capture_ms: warming up and capturing the CUDA graph.
        flags: what the first run showed: state that it changes, gradients that it takes.
        gradients: whether the forward takes gradients itself, which it cannot in inference mode.
    """

    parts: tuple[Part, ...]
    first_inference_ms: float
    compile_ms: float | None = None
    compiled: dict[str, int] | None = None
    capture_ms: float | None = None
    flags: tuple[Flag, ...] = ()
    gradients: bool = False

    @property
    def whole(self) -> Part:
        """One run of the workload."""
        return self.parts[0]

    @property
    def step(self) -> Callable[[], Any]:
        """One run as a call without arguments, prepared and put back."""
        return as_step(self.whole)

    def facts(self) -> dict[str, Any]:
        """The costs as plain JSON types."""
        return {
            "first_inference_ms": self.first_inference_ms,
            "compile_ms": self.compile_ms,
            "compiled": self.compiled,
            "capture_ms": self.capture_ms,
        }


def make_ready(subject: Subject) -> Ready:
    """The subject's parts after a first run, compilation and capture; call it in the mode that the workload runs in.

    Raises:
        CaptureFailed: the case wants CUDA graphs and the forward cannot be captured.
    """
    wait, parts = synchronise(subject.case.device), parts_of(subject)
    step = as_step(parts[0])
    compile_ms = compiled = None
    if subject.case.compile != "off":
        before = _compiler_counts()
        taken = _milliseconds(step, wait)
        compiled = {name: count - before[name] for name, count in _compiler_counts().items()}
        compile_ms = taken if compiled["graphs"] else None
    settled = settle(subject, parts[0], lambda run: _milliseconds(run, wait))
    first, parts[0] = settled.first_ms, settled.part
    if not subject.case.cuda_graphs:
        return Ready(tuple(parts), first, compile_ms, compiled, flags=settled.flags, gradients=settled.gradients)
    graph: list[Captured] = []
    capture_ms = _milliseconds(lambda: graph.append(captured(step)), wait)
    whole = replace(parts[0], call=graph[0], counted=step)
    return Ready((whole, *parts[1:]), first, compile_ms, compiled, capture_ms)


def _milliseconds(run: Callable[[], Any], wait: Callable[[], None]) -> float:
    wait()
    start = perf_counter_ns()
    run()
    wait()
    return (perf_counter_ns() - start) / 1e6


def _compiler_counts() -> dict[str, int]:
    """What torch's compiler has counted so far in this process."""
    from torch._dynamo.utils import counters

    return {
        "graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
        "cache_hits": counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"],
        "cache_misses": counters["inductor"]["fxgraph_cache_miss"],
    }


def compile_time(ready: Ready) -> tuple[float | None, str]:
    """Milliseconds of compiling from nothing, or None and why there is no such number."""
    if ready.compile_ms is None:
        return None, "the compiler made no graph of the forward"
    if ready.compiled and ready.compiled["cache_hits"]:
        return (
            None,
            (
                f"the compiler's cache on disk had a graph of it already (it then took {ready.compile_ms:.4g} ms); for "
                "a cold start TORCHINDUCTOR_CACHE_DIR has to name an empty folder"
            ),
        )
    return ready.compile_ms, ""
