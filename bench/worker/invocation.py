"""A group invocation: one fresh process that times every case of a group interleaved, with twin and reference GEMM.

The result is the raw samples file of the invocation (schema in `bench.records`); nothing is averaged here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from bench.hostwatch import HostWatch, wait_until_quiet
from bench.meters import latency
from bench.meters.allocator import pin_allocator_for_timing
from bench.meters.latency import Runner, Samples, WarmUp
from bench.protocol import Latency
from bench.recipe import Recipe
from bench.records import SCHEMA
from bench.worker import global_state, isolation
from bench.worker.child import Phase, StateChanged
from bench.worker.global_state import GlobalState
from bench.worker.probe import check_state
from bench.worker.subject import Subject, synchronise, timed_build

TWIN = "twin"
REFERENCE = "reference_gemm"
#: Side of the square fp32 product beside every group: long enough to time, short enough to cost little.
REFERENCE_SIZE = {"cpu": 512, "cuda": 4096}


class _Group:
    """The members of a group, built and run once, the twin first."""

    def __init__(self, spec: dict[str, Any], phase: Phase):
        self.spec, self.phase = spec, phase
        self.recipes = [Recipe.from_dict(item) for item in spec["recipes"]]
        self.device = self.recipes[0].case.device
        self.protocol = Latency(**spec["protocol"]["latency"])
        self.subjects: dict[str, Subject] = {}
        self.facts: dict[str, dict[str, Any]] = {}

    def load(self) -> list[Runner]:
        """Build every member, run it once, and return what is to be timed."""
        members = [(recipe.case.key, recipe) for recipe in self.recipes]
        members.insert(0, (TWIN, self.recipes[0]))  # first: it pays for the imports that all of them need
        for name, recipe in members:
            self.phase.enter("load", recipe.case.key)
            subject, load_ms = timed_build(recipe)
            if recipe.case.compile != "off":
                self.phase.enter("compile", recipe.case.key)
            with torch.inference_mode():
                first_ms = latency.time_block(self._runner(name, subject), 1)
            self.subjects[name] = subject
            self.facts[name] = {"load_ms": load_ms, "first_inference_ms": first_ms}
        runners = [self._runner(name, subject) for name, subject in self.subjects.items()]
        return [*runners, reference_gemm(self.device)]

    def _runner(self, name: str, subject: Subject) -> Runner:
        step = subject.step()
        if subject.case.cuda_graphs:
            step = captured(step)
        timer = event_timer(step) if self.device != "cpu" else None
        return Runner(name, step, synchronise(self.device), timer)

    def warm(self, runners: list[Runner]) -> dict[str, WarmUp]:
        """Warm every runner up."""
        protocol, done = self.protocol, {}
        for runner in runners:
            self.phase.enter("warmup", runner.name if runner.name in self.facts else None)
            state = global_state.read()
            done[runner.name] = latency.warm_up(
                runner, iterations=protocol.warmup_iterations,
                seconds=protocol.warmup_s if self.device == "cpu" else protocol.warmup_s_gpu,
                cap_s=protocol.warmup_cap_s, variation=protocol.steady_variation, beat=self.phase.beat,
            )  # fmt: skip
            if runner.name in self.subjects:
                check_state(state, self.subjects[runner.name].case.label)
        return done

    def measure(self, runners: list[Runner], warm: dict[str, WarmUp]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Interleaved samples, then throughput windows; and what the host did meanwhile."""
        protocol, seed = self.protocol, self.spec["seed"]
        times = {name: done.last_ms for name, done in warm.items()}
        rounds = latency.rounds_for(
            list(times.values()), samples=protocol.samples, min_samples=protocol.min_samples,
            case_seconds=protocol.case_seconds,
        )  # fmt: skip
        samples = {
            runner.name: Samples(latency.block_size(times[runner.name], protocol.min_sample_ms)) for runner in runners
        }
        self.phase.enter("measure")
        state = global_state.read()
        subjects = [runner for runner in runners if runner.name != REFERENCE]
        with HostWatch(self.device) as watch:
            latency.interleave(runners, samples, rounds, seed, beat=self.phase.beat)
            latency.throughput_windows(
                subjects, samples, times, windows=protocol.throughput_windows, window_s=protocol.throughput_window_s,
                seed=seed, beat=self.phase.beat,
            )  # fmt: skip
        self.blame(state, subjects)
        assert watch.report is not None
        return samples, watch.report.as_dict()

    def blame(self, state: GlobalState, runners: list[Runner]) -> None:
        """Nothing, if the state is as it was; else find the member whose forward changes it, which ends the session.

        Raises:
            StateChanged: it did change; the phase names the member if one more forward shows who it was.
        """
        changes = global_state.put_back(state)
        if not changes:
            return
        for runner in runners:
            subject = self.subjects[runner.name]
            self.phase.enter("measure", subject.case.key)
            runner.step()
            check_state(state, subject.case.label)
        self.phase.enter("measure")
        raise StateChanged(f"a forward changed {', '.join(changes)} while the group was timed; which one did not show")

    def layer_times(self, repeats: int) -> None:
        """Per-module times of every member, from passes of their own after all timing is done."""
        from bench.meters import layers

        for name, subject in self.subjects.items():
            if name == TWIN or subject.eager is not None:
                continue
            self.phase.enter("measure", name)
            self.facts[name]["layers"] = layers.module_times(
                subject.module, subject.args, subject.kwargs, repeats=repeats
            )


def reference_gemm(device: str) -> Runner:
    """A square fp32 product: its time beside a case says how fast the machine was in that session."""
    size = REFERENCE_SIZE[device.partition(":")[0]]
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator).to(device) for _ in range(2))
    out = torch.empty(size, size, device=device)
    return Runner(REFERENCE, lambda: torch.mm(a, b, out=out), synchronise(device))


def event_timer(step: Callable[[], Any]) -> Callable[[int], float]:
    """A timer by CUDA events: milliseconds on the device for a number of iterations."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def measure(iterations: int) -> float:
        start.record()
        for _ in range(iterations):
            step()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    return measure


def captured(step: Callable[[], Any]) -> Callable[[], Any]:
    """The step as a CUDA graph: captured once, replayed per call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.inference_mode():
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.inference_mode():
        step()
    return graph.replay


def _member(group: _Group, name: str, samples: Samples, warm: WarmUp) -> dict[str, Any]:
    return {**samples.as_dict(), **group.facts[name], "warmup": asdict(warm)}


def run(spec: dict[str, Any], phase: Phase) -> dict[str, Any]:
    """The raw samples of one invocation.

    Args:
        spec: `recipes` (baseline first), `protocol` parameters, `session`, `index`, `seed`.
        phase: tells the driver where we are.
    """
    started, clock = datetime.now(UTC).isoformat(), time.perf_counter()
    pinned = pin_allocator_for_timing()
    isolation.shift_heap(spec["seed"])
    group = _Group(spec, phase)
    torch.set_num_threads(group.recipes[0].case.threads)
    quiet = wait_until_quiet(group.protocol.quiet_wait_s, device=group.device)
    runners = group.load()
    with torch.inference_mode():
        warm = group.warm(runners)
        samples, host = group.measure(runners, warm)
        group.layer_times(spec["protocol"]["counting"]["layer_repeats"])
    names = [recipe.case.key for recipe in group.recipes]
    reference = samples[REFERENCE]
    return {
        "schema": SCHEMA, "session": spec["session"], "index": spec["index"], "seed": spec["seed"],
        "started_at": started, "seconds": time.perf_counter() - clock,
        "quiet": {"quiet": quiet.quiet, "waited_s": quiet.waited_s, "labels": list(quiet.labels)},
        "cases": {name: _member(group, name, samples[name], warm[name]) for name in names},
        "twin": {"of": names[0], **_member(group, TWIN, samples[TWIN], warm[TWIN])},
        "reference_gemm": {"ms": reference.latency_ms, "macs": REFERENCE_SIZE[group.device.partition(":")[0]] ** 3,
                           "warmup": asdict(warm[REFERENCE])},
        "host": host, "labels": list(host["labels"]), "threads": torch.get_num_threads(), "allocator": pinned.as_dict(),
    }  # fmt: skip
