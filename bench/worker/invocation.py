"""A group invocation: one fresh process that times every case of a group interleaved, with twin and reference GEMM.

The result is the raw samples file of the invocation (schema in `bench.store.records`); nothing is averaged here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from time import perf_counter  # taken before the user's code could put another clock in its place
from typing import Any

import torch

from bench import workloads
from bench.config.protocol import Latency
from bench.host import gpu_clocks
from bench.host.gpus import is_drawn_on
from bench.host.hostwatch import HostWatch, Limits, wait_until_quiet
from bench.meters import latency
from bench.meters.allocator import pin_allocator_for_timing
from bench.meters.latency import Runner, Samples, WarmUp
from bench.moment import utc_microsecond
from bench.plan.process import ProcessPlan
from bench.plan.recipe import Recipe
from bench.store.records import SCHEMA
from bench.worker import conversion, cuda, global_state, isolation
from bench.worker.child import InvalidOutput, Phase, StateChanged
from bench.worker.global_state import GlobalState
from bench.worker.outputs import has_nan
from bench.worker.parts import as_forward, running
from bench.worker.probe import check_state
from bench.worker.ready import Ready, make_ready
from bench.worker.subject import Subject, synchronise, timed_build
from bench.workloads.workload import Part

TWIN = "twin"
#: Between a member's key and the name of a part in the name of what is timed; the whole has the member's key alone.
OF = "/"
REFERENCE = "reference_gemm"
#: Label of an invocation on a device that also draws a desktop: told, but nothing to wait for.
DRAWN_ON = "GPU with a display"
#: Side of the square fp32 product beside every group: long enough to time, short enough to cost little.
REFERENCE_SIZE = {"cpu": 512, "cuda": 4096}
#: Runs of every member whose outputs are looked at after the timing, and seconds after which there are no more.
LOOKS, LOOK_S = 10, 1.0
#: Stages of a process whose seconds are told: what is none of them is done whatever is planned.
STAGES = ("warm", "sampled", "extras")


class _Members:
    """The members of a group, built and run once, the twin first."""

    def __init__(self, spec: dict[str, Any], phase: Phase):
        self.spec, self.phase = spec, phase
        self.recipes = [Recipe.from_dict(item) for item in spec["recipes"]]
        self.device = self.recipes[0].case.device
        self.protocol = Latency(**spec["protocol"]["latency"])
        self.plan = ProcessPlan.from_dict(spec.get("plan"))
        self.long_ms = math.inf if self.protocol.long_run_s is None else 1e3 * self.protocol.long_run_s
        self.limits = Limits(**{item.name: getattr(self.protocol, item.name) for item in fields(Limits)})
        self.subjects: dict[str, Subject] = {}
        self.ready: dict[str, Ready] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.nan: dict[str, bool] = {}
        self.looked_ms: dict[str, float] = {}
        self.stages = dict.fromkeys(STAGES, 0.0)
        self.workload = self.recipes[0].case.workload
        self.few = self.workload != workloads.FORWARD  # a run may last seconds
        self.flush: cuda.L2Flush | None = None

    def load(self) -> list[Runner]:
        """Build every member, run it once, and return what is to be timed."""
        members = [(recipe.case.key, recipe) for recipe in self.recipes]
        members.insert(0, (TWIN, self.recipes[0]))  # first: it pays for the imports that all of them need
        for name, recipe in members:
            foreign = conversion.is_foreign(recipe.case)
            self.phase.enter("compile" if foreign else "load", recipe.case.key)
            subject, load_ms = timed_build(recipe, self.spec.get("artefacts"))
            if recipe.case.compile != "off":
                self.phase.enter("compile", recipe.case.key)
            with running(self.workload):
                ready = make_ready(subject)
                if foreign:  # the file may be another process's: nothing is timed that answers otherwise
                    conversion.check(recipe.case, *subject.both_ways(), subject.execution)
            self.subjects[name], self.ready[name] = subject, ready
            self.facts[name] = {"load_ms": load_ms, **ready.facts()}
        self.phase.enter("load")
        if self.protocol.l2 == "cold":
            self.flush = cuda.l2_flush(self.device)
        runners = [
            self._runner(name, part, is_whole=place == 0)
            for name in self.subjects
            for place, part in enumerate(self.ready[name].parts)
        ]
        return [*runners, reference_gemm(self.device, self.recipes[0].case.dtype)]

    def _runner(self, name: str, part: Part, *, is_whole: bool) -> Runner:
        clock = None if self.device == "cpu" else cuda.EventClock()
        return Runner(
            name if is_whole else f"{name}{OF}{part.name}",
            part.call,
            synchronise(self.device),
            clock,
            before=_both(part.prepare, self.flush),
            after=part.reset,
            spans=part.spans,
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Seconds of what is inside count to a stage of the process."""
        began = perf_counter()
        yield
        self.stages[name] += perf_counter() - began

    def warm(self, runners: list[Runner]) -> dict[str, WarmUp]:
        """Warm every runner up."""
        done = {}
        for runner in runners:
            self.phase.enter("warmup", self._key(runner.name))
            state = global_state.read()
            looked_ms = self.looked_ms.get(runner.name, 0.0)
            if looked_ms >= self.long_ms:  # the run that was looked at has warmed it up
                done[runner.name] = WarmUp(1, looked_ms / 1e3, looked_ms, 0.0, None)
                continue
            done[runner.name] = self._warmed(runner)
            if runner.name != REFERENCE:
                check_state(state, self._subject(runner.name).case.label)
        return done

    def _warmed(self, runner: Runner) -> WarmUp:
        """A warm-up in full, or as long as the plan says; a full one is traced where plans are made from it."""
        protocol, on_cpu = self.protocol, self.device == "cpu"
        full = protocol.warmup_s if on_cpu else protocol.warmup_s_gpu
        by_evidence = protocol.warm_by_evidence and on_cpu
        return latency.warm_up(
            runner,
            iterations=protocol.warmup_iterations,
            seconds=self.plan.warmup_s.get(runner.name, full),
            cap_s=protocol.warmup_cap_s,
            variation=protocol.steady_variation,
            heartbeat=self.phase.heartbeat,
            few=self.few,
            long_ms=self.long_ms,
            patient=not by_evidence,
            traced=by_evidence and not self.plan.warmup_s,
        )

    def _rounds(self, times: dict[str, float]) -> int:
        """Samples of each member: as planned, or what a first process gets by these times of one run, in ms."""
        if self.plan.rounds is not None:
            return self.plan.rounds
        return latency.rounds_for(
            list(times.values()),
            samples=self.protocol.samples,
            min_samples=self.protocol.min_samples,
            case_seconds=self.protocol.case_seconds,
            few=self.few,
            long_ms=self.long_ms,
            long_samples=self.protocol.long_samples,
        )

    def measure(self, runners: list[Runner], warm: dict[str, WarmUp]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Interleaved samples, then throughput windows; and what host and board did, under `host` and `gpu`."""
        protocol, seed = self.protocol, self.spec["seed"]
        times = {name: done.last_ms for name, done in warm.items()}
        samples = {
            runner.name: Samples(latency.block_size(times[runner.name], protocol.min_sample_ms)) for runner in runners
        }
        self.phase.enter("measure")
        state = global_state.read()
        subjects = [runner for runner in runners if runner.name != REFERENCE]
        with gpu_clocks.sampling(self.device) as board, HostWatch(self.device, limits=self.limits) as watch:
            between, rounds = (lambda: self._between(board)), self._rounds(times)
            with self.stage("sampled"):
                latency.interleave(runners, samples, rounds, seed, turn=self._turn, between=between, loss=self._loss())
            with self.stage("extras"):
                back_to_back = not self.few and max(times.values()) < self.long_ms
                self._throughput(subjects if back_to_back else [], samples, times)
        self.phase.turn_to(None)
        self.find_state_changer(state, subjects)
        assert watch.report is not None
        return samples, {"host": watch.report.as_dict(), "gpu": board.as_dict()}

    def _throughput(self, runners: list[Runner], samples: dict[str, Samples], times: dict[str, float]) -> None:
        """Throughput windows of what can run back to back; where the plan wants none it is None, not empty."""
        if not self.plan.throughput:
            for runner in runners:
                samples[runner.name].throughput = None
            return
        latency.throughput_windows(
            runners,
            samples,
            times,
            windows=self.protocol.throughput_windows,
            window_s=self.protocol.throughput_window_s,
            seed=self.spec["seed"],
            turn=self._turn,
            heartbeat=self._heartbeat,
        )

    def _loss(self) -> float | None:
        """What a preemption must have cost to count, where the calling thread does all the work; else every one."""
        alone = self.device == "cpu" and torch.get_num_threads() == 1
        alone = alone and not any(conversion.has_own_threads(recipe.case) for recipe in self.recipes)
        return self.protocol.preempted_loss if alone else None

    def _subject(self, name: str) -> Subject:
        """The subject that a runner's part is of."""
        return self.subjects[name.partition(OF)[0]]

    def _key(self, name: str) -> str | None:
        """The case that a runner stands for: the twin for the baseline, the reference for none."""
        return None if name == REFERENCE else self._subject(name).case.key

    def _turn(self, name: str) -> None:
        self.phase.turn_to(self._key(name))

    def _between(self, board: gpu_clocks.ClockSamples) -> None:
        """After a round, while nothing is timed: what the board's clocks do, and a sign of life."""
        board.take()
        self._heartbeat()

    def _heartbeat(self) -> None:
        self.phase.turn_to(None)  # to the driver the phase is one, whoever's turn it is: its time limit is
        self.phase.heartbeat()

    def find_state_changer(self, state: GlobalState, runners: list[Runner]) -> None:
        """Raise StateChanged if torch's global state was changed; the phase names the member whose forward does it.

        Each member runs once more to show which one it was; where none shows it, the phase names none.
        """
        changes = global_state.put_back(state)
        if not changes:
            return
        for runner in runners:
            subject = self._subject(runner.name)
            self.phase.enter("measure", subject.case.key)
            latency.time_block(runner, 1)
            check_state(state, subject.case.label)
        self.phase.enter("measure")
        raise StateChanged(f"a forward changed {', '.join(changes)} while the group was timed; which one did not show")

    def look_at_outputs(self, most: int, when: str) -> None:
        """Raise InvalidOutput, with the phase naming the member, where some of its runs hold NaN and others do not.

        Outside of all timing: a probe has looked at the first forwards of a process and said if they hold NaN, but not
        at those beside others, nor at one after hundreds.

        Args:
            most: runs of each member, as many as fit into a second, at least one.
            when: said of them in the error.
        """
        for name, subject in self.subjects.items():
            self.phase.enter("measure", subject.case.key)
            began = perf_counter()
            for _ in range(most):
                start = perf_counter()
                found = has_nan(self.ready[name].step())
                self.looked_ms.setdefault(name, 1e3 * (perf_counter() - start))
                first = self.nan.setdefault(name, found)
                if found and not first:
                    raise InvalidOutput(f"the output{when} holds NaN, and that of the first run did not")
                if first and not found:
                    raise InvalidOutput(f"the output of the first run holds NaN, and that{when} does not")
                if perf_counter() - began > LOOK_S:
                    break

    def layer_times(self, repeats: int) -> None:
        """Per-module times of every member, from passes of their own after all timing is done; of long runs fewer."""
        from bench.meters import layers

        for name, subject in self.subjects.items():
            if name == TWIN or subject.eager is not None or subject.case.cuda_graphs:
                continue  # what runs as one has no layers to time
            self.phase.enter("measure", name)
            times = {}
            for part in self.ready[name].parts:
                with as_forward(subject, part, counted=False) as (module, args, kwargs):
                    times[part.name] = layers.module_times(
                        module, args, kwargs, reset=None if self.few else part.reset, **self._passes(name, repeats)
                    )
            self.facts[name]["layers"] = times.pop(self.ready[name].whole.name)
            self.facts[name]["part_layers"] = times

    def _passes(self, name: str, repeats: int) -> dict[str, int]:
        """How often a member's layers are timed, and warmed up before; of long runs as often as there is time."""
        ms = self.looked_ms[name]
        if ms < self.long_ms:
            return {"repeats": repeats}
        return {"repeats": max(1, min(repeats, int(self.protocol.case_seconds * 1e3 / (2 * ms)))), "warmup": 0}


def reference_gemm(device: str, dtype: str = "fp32") -> Runner:
    """A square fp32 product: its time beside a case says how fast the machine was in that session.

    Args:
        device: where it runs.
        dtype: of the cases beside it; beside `tf32` ones that is switched off for as long as the product is launched.
    """
    size = REFERENCE_SIZE[device.partition(":")[0]]
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator).to(device) for _ in range(2))
    out = torch.empty(size, size, device=device)

    def product() -> None:
        torch.mm(a, b, out=out)

    def product_beside_tf32() -> None:
        global_state.set_tf32(False, False)
        product()
        global_state.set_tf32(True, True)

    return Runner(REFERENCE, product_beside_tf32 if dtype == "tf32" else product, synchronise(device))


def disturbances(watched: dict[str, Any], drawn_on: bool = False) -> list[str]:
    """What disturbed the whole invocation: the host's labels, throttling seen between rounds, a desktop."""
    found = list(watched["host"]["labels"])
    if gpu_clocks.throttled(watched["gpu"]) and gpu_clocks.LABEL not in found:
        found.append(gpu_clocks.LABEL)
    return [*found, DRAWN_ON] if drawn_on else found


def _both(prepare: Callable[[], None] | None, flush: cuda.L2Flush | None) -> Callable[[], None] | None:
    """What precedes a step: what the part prepares, then a flush of the cache, whichever there are."""
    if prepare is None or flush is None:
        return prepare or flush

    def both() -> None:
        prepare()
        flush()

    return both


def _member(group: _Members, name: str, samples: dict[str, Samples], warm: dict[str, WarmUp]) -> dict[str, Any]:
    """A member's raw samples: the whole at the top, its further parts under their names."""
    whole, *parts = group.ready[name].parts
    return {
        **samples[name].as_dict(),
        **group.facts[name],
        "warmup": asdict(warm[name]),
        "units": whole.units,
        "parts": {
            part.name: {
                **samples[f"{name}{OF}{part.name}"].as_dict(),
                "units": part.units,
                "warmup": asdict(warm[f"{name}{OF}{part.name}"]),
            }
            for part in parts
        },
    }


def _timed(group: _Members, samples: dict[str, Samples], warm: dict[str, WarmUp]) -> dict[str, Any]:
    """The raw samples of the cases, of the baseline's twin and of the reference product."""
    names = [recipe.case.key for recipe in group.recipes]
    reference = samples[REFERENCE]
    return {
        "cases": {name: _member(group, name, samples, warm) for name in names},
        "twin": {"of": names[0], **_member(group, TWIN, samples, warm)},
        "reference_gemm": {
            "ms": reference.latency_ms,
            "macs": REFERENCE_SIZE[group.device.partition(":")[0]] ** 3,
            "block": reference.block,
            "warmup": asdict(warm[REFERENCE]),
        },
    }


def run(spec: dict[str, Any], phase: Phase) -> dict[str, Any]:
    """The raw samples of one invocation.

    Args:
        spec: `recipes` (baseline first), `protocol` parameters, `session`, `index`, `seed`.
        phase: tells the driver where we are.
    """
    started, clock = utc_microsecond(), perf_counter()
    pinned = pin_allocator_for_timing()
    isolation.shift_heap(spec["seed"])
    group = _Members(spec, phase)
    torch.set_num_threads(group.recipes[0].case.threads)
    phase.enter("quiet")
    quiet = wait_until_quiet(group.protocol.quiet_wait_s, device=group.device, limits=group.limits)
    phase.enter("start")
    cuda.select(group.device)
    runners = group.load()
    with running(group.workload):
        group.look_at_outputs(1, " of its first run beside the others")
        with group.stage("warm"):
            warm = group.warm(runners)
        samples, watched = group.measure(runners, warm)
        group.look_at_outputs(LOOKS, " after it was timed")
        if group.plan.layers:
            with group.stage("extras"):
                group.layer_times(spec["protocol"]["counting"]["layer_repeats"])
    return {
        "schema": SCHEMA,
        "session": spec["session"],
        "index": spec["index"],
        "seed": spec["seed"],
        "started_at": started,
        "seconds": perf_counter() - clock,
        "stages_s": group.stages,
        "plan": group.plan.as_dict(),
        "quiet": {"quiet": quiet.quiet, "waited_s": quiet.waited_s, "labels": list(quiet.labels)},
        **_timed(group, samples, warm),
        **watched,
        "labels": disturbances(watched, is_drawn_on(group.device)),
        "threads": torch.get_num_threads(),
        "allocator": pinned.as_dict(),
        "l2": None if group.flush is None else group.flush.as_dict(),
    }
