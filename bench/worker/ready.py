"""A built subject made ready to be timed: run once, compiled and captured if its case says so, each step with its cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.worker.cuda import Captured, captured
from bench.worker.subject import Subject, synchronise


@dataclass(frozen=True)
class Ready:
    """What is timed, and the milliseconds it took to come that far; None where the case does not ask for that step.

    Attributes:
        step: one forward as its case wants it run.
        first_inference_ms: the first forward; of a compiled module the first one after that which compiled it.
        compile_ms: the forward that compiled the module; None also if the compiler had nothing left to do.
        compiled: what the compiler did: graphs, breaks between them, kernels that its cache on disk had already.
        capture_ms: warming up and capturing the CUDA graph.
    """

    step: Callable[[], Any]
    first_inference_ms: float
    compile_ms: float | None = None
    compiled: dict[str, int] | None = None
    capture_ms: float | None = None

    def facts(self) -> dict[str, Any]:
        """The costs as plain JSON types."""
        return {
            "first_inference_ms": self.first_inference_ms, "compile_ms": self.compile_ms, "compiled": self.compiled,
            "capture_ms": self.capture_ms,
        }  # fmt: skip


def make_ready(subject: Subject) -> Ready:
    """The subject's step after a first forward, compilation and capture; call it in inference mode.

    Raises:
        CaptureFailed: the case wants CUDA graphs and the forward cannot be captured.
    """
    wait, step = synchronise(subject.case.device), subject.step()
    compile_ms = compiled = None
    if subject.case.compile != "off":
        before = _compiler_counts()
        taken = _milliseconds(step, wait)
        compiled = {name: count - before[name] for name, count in _compiler_counts().items()}
        compile_ms = taken if compiled["graphs"] else None
    first = _milliseconds(step, wait)
    if not subject.case.cuda_graphs:
        return Ready(step, first, compile_ms, compiled)
    graph: list[Captured] = []
    capture_ms = _milliseconds(lambda: graph.append(captured(step)), wait)
    return Ready(graph[0], first, compile_ms, compiled, capture_ms)


def _milliseconds(run: Callable[[], Any], wait: Callable[[], None]) -> float:
    wait()
    start = time.perf_counter_ns()
    run()
    wait()
    return (time.perf_counter_ns() - start) / 1e6


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
        return None, (
            f"the compiler's cache on disk had a graph of it already (it then took {ready.compile_ms:.4g} ms); for a cold "
            "start TORCHINDUCTOR_CACHE_DIR has to name an empty folder"
        )
    return ready.compile_ms, ""
