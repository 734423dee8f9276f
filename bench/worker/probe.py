"""A probe: one fresh process that runs one case alone, counts it, and contains its crashes and hangs."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from bench import workloads
from bench.config.schema import CAPTURING_MODES
from bench.errors import UsageError
from bench.flags import flag
from bench.host import int8_units
from bench.host.environment import torch_build
from bench.labels import labels_of
from bench.meters import scan_counts
from bench.meters.allocator import pin_allocator_for_memory, pin_allocator_for_timing
from bench.meters.inputs import batch_flags, can_be_shuffled, shuffled
from bench.meters.stated import STATED
from bench.meters.table import BY_NAME, METERS, Stage
from bench.metrics import METRICS
from bench.moment import utc_microsecond
from bench.plan.recipe import Recipe
from bench.reading import Reading, reading, unavailable
from bench.scores import DEFAULT_SCORE
from bench.worker import conversion, cuda, declared, global_state
from bench.worker.child import InvalidOutput, Phase, StateChanged, classify
from bench.worker.global_state import GlobalState
from bench.worker.outputs import check_output
from bench.worker.parts import as_forward, as_step, counting, prepared_share, running
from bench.worker.pictures import source_map
from bench.worker.ready import Ready, compile_time, make_ready
from bench.worker.subject import Subject, find, seed_everything, synchronise, timed_build
from bench.workloads.workload import Facts, Part

#: What a meter gives: readings and details of the record.
Found = tuple[list[Reading], dict[str, Any]]
Measure = Callable[[], Found]

#: Share of a run's time that may be preparation before the joules of a part say so.
PREPARED = 0.05
#: Metrics that no meter gives but the conversion of the subject.
OF_CONVERSION = ("artefact_bytes", "conversion_ms")
#: Metrics of subjects that declare what they need or state a number of themselves; no other subject misses them.
OF_DECLARING = (
    *STATED,
    "macs_dense",
    "macs_nonzero",
    "nominal_bits",
    "nominal_bit_operations",
    "multiplications",
    "additions",
    "modelled_energy_j",
    *scan_counts.NAMES,
)


def check_state(before: GlobalState, label: str) -> None:
    """Raise StateChanged if the forwards since then changed torch's global state, which is put back."""
    changes = global_state.put_back(before)
    if changes:
        raise StateChanged(
            f"the forward of {label} changes {', '.join(changes)}, for itself and for all that is timed beside it; set "
            "threads with device.threads and types with dtypes, and leave torch's global state alone in forward"
        )


class Probe:
    """Collects readings, details and flags of one subject, meter by meter and part by part."""

    def __init__(self, spec: dict[str, Any], phase: Phase):
        self.spec, self.phase = spec, phase
        self.recipe = Recipe.from_dict(spec["recipe"])
        self.wanted = set(spec["meters"])
        self.readings: list[Reading] = []
        self.curves: list[dict[str, Any]] = []
        self.flags: list[dict[str, str]] = []
        self.details: dict[str, Any] = {}
        self.gradients = False
        self.layers: dict[str, Any] = {}
        self.score_metric = DEFAULT_SCORE

    def take(self, meter: str, measure: Measure, part: str = "", *, is_whole: bool = True) -> None:
        """Run one meter in its phase and keep what it found, if it is wanted.

        Args:
            meter: its name in the table of meters.
            measure: gives readings and details.
            part: of the workload, for a meter that measures part by part.
            is_whole: whether the part is the whole run, whose details stand at the top.
        """
        if meter not in self.wanted:
            return
        self.phase.enter("measure", self.recipe.case.key)
        try:
            readings, details = measure()
        except (MemoryError, InvalidOutput, UsageError):
            raise
        except Exception as error:  # one meter that fails must not cost the others their numbers
            if classify(error) == "oom":
                raise
            traceback.print_exc()
            why = f"the {meter} meter failed: {type(error).__name__}: {error}"[:500]
            readings = [unavailable(name, why) for name in self._metrics(meter)]
            details = {"flags": [flag(f"{meter}_failed", "warn", why)]}
        self.readings += [
            replace(item, part=part) if part and METRICS[item.metric].per_part else item for item in readings
        ]
        self.flags += details.pop("flags", [])
        if is_whole:
            self.details.setdefault(meter, {}).update(details)
        else:
            self.details.setdefault(meter, {}).setdefault("parts", {})[part] = details

    def take_all(self, stage: Stage, subject: Subject, ready: Ready) -> None:
        """Run the meters of a stage in the table's order, part by part where they measure so."""
        for meter in METERS:
            if meter.stage != stage:
                continue
            taken = find(meter.take) if meter.take else getattr(self, meter.name)
            for place, part in enumerate(ready.parts if meter.per_part else (ready.whole,)):
                name = part.name if meter.per_part else ""
                self.take(meter.name, partial(taken, subject, ready, part), name, is_whole=place == 0)

    def result(self, whole: str) -> dict[str, Any]:
        """What the meters found besides readings and flags: details, curves, layers of the whole and of each part."""
        layers = {name: {"layers": table.rows, "info": table.info} for name, table in self.layers.items()}
        of_whole = layers.pop(whole, {"layers": [], "info": {}})
        return {
            "details": self.details,
            "layers": of_whole["layers"],
            "layers_info": of_whole["info"],
            "part_layers": layers,
            "curves": self.curves,
        }

    def _metrics(self, meter: str) -> list[str]:
        """The metrics that a meter would have given: all of its section, of quality the one that the task scores."""
        if meter == "quality":
            return [self.score_metric]
        section = BY_NAME[meter].section
        return [
            name
            for name, row in METRICS.items()
            if row.section == section and name not in (*OF_CONVERSION, *OF_DECLARING)
        ]

    def params(self, subject: Subject, ready: Ready, part: Part) -> Found:
        """Parameters, size in memory and nominal bits of what is counted."""
        from bench.meters import nominal, params

        found = params.measure(subject.counted)
        return found.readings() + nominal.bits(subject.counted), found.as_dict()

    def macs(self, subject: Subject, ready: Ready, part: Part) -> Found:
        """Counts of one run of a part, per sample of the batch; a plain forward is counted twice, independently."""
        from bench.meters import layers, macs

        is_forward = subject.case.workload == workloads.FORWARD
        second = self.spec["protocol"]["counting"]["second_count"] if is_forward else False
        macs.self_test()
        with as_forward(subject, part) as (module, args, kwargs):
            found = macs.count(module, args, kwargs, second_count=second)
            self.layers[part.name] = layers.table(module, args, kwargs, repeats=0, counted=found)
        details = found.as_dict()
        self.flags += batch_flags(found.batch, subject.case.batch)
        if is_forward:
            details |= self._of_forward(subject, found.macs)
        rows = macs.readings(found, subject.case.batch) + declared.counts_of_part(found, subject, part.name)
        return rows, details

    def _of_forward(self, subject: Subject, counted: float) -> dict[str, Any]:
        """What is counted of a plain forward besides: its tokens, and what it costs on another input."""
        from bench.meters import macs

        tokens = getattr(subject.counted, "token_counts", None)
        details: dict[str, Any] = {"token_counts": None if tokens is None else [int(count) for count in tokens]}
        other = self._other_input(subject)
        if other is None:
            return details
        try:
            again = macs.count(subject.counted, other, subject.kwargs, second_count=False)
        except Exception as error:  # the count on the given input stands
            text = f"the same values in another order could not be counted ({type(error).__name__}: {error})"[:300]
            self.flags.append(flag("other_input_failed", "info", text))
            return details
        details["macs_of_other_input"] = again.macs
        if again.macs != counted:
            self.flags.append(self._dynamic(subject, counted, again.macs))
        return details

    def _other_input(self, subject: Subject) -> tuple[Any, ...] | None:
        """The same values in another order, if the inputs are plain floating-point tensors: they keep their range."""
        if not subject.args or not all(map(can_be_shuffled, subject.args)):
            return None
        seed_everything(self.recipe.case.seed + 1)
        return tuple(shuffled(arg) for arg in subject.args)

    def _dynamic(self, subject: Subject, first: float, second: float) -> dict[str, str]:
        follows = str(getattr(subject.counted, "cost_follows_inputs", ""))
        meaningless = subject.weights["kind"] == "random" and not follows
        text = f"the cost depends on the input: {first:,.0f} MACs on one, {second:,.0f} on another"
        if follows:
            text += f"; it follows from {follows}, whatever the weights"
        if meaningless:
            text += "; with random weights this cost says nothing of a trained model"
        return flag("input_dependent", "invalid" if meaningless else "warn", text)

    def memory(self, subject: Subject, ready: Ready, part: Part) -> Found:
        """Peak memory of one run of the part, by category."""
        from bench.meters import memory

        case = subject.case
        if conversion.is_foreign(case):
            return memory.outside_torch(as_step(part), case.backend, case.device)
        captured = case.cuda_graphs or (case.device != "cpu" and case.compile in CAPTURING_MODES)
        with as_forward(subject, part, counted=case.cuda_graphs) as (module, args, kwargs):
            is_plain = case.workload == workloads.FORWARD
            with torch.inference_mode(torch.is_inference_mode_enabled() and not self.gradients):
                if is_plain:
                    found = memory.measure(
                        subject.module, args, kwargs, step=as_step(part), captured=captured, reset=part.reset
                    )
                else:
                    found = memory.measure(module, args, kwargs)
        return found.readings(), found.as_dict()

    def quality(self, subject: Subject, ready: Ready, part: Part) -> Found:
        """The score of the case's task, or why there is none."""
        from bench.meters import quality

        self.score_metric = quality.metric_of(subject.task)
        if subject.task is None:
            why = self.spec.get("no_quality", "this case has no task")
            return [unavailable(self.score_metric, why)], {}
        untrained = getattr(subject.counted, "untrained", None)  # a method's new weights that nobody trained
        if untrained is not None:
            return [unavailable(self.score_metric, str(untrained))], {}
        case = subject.case
        found = quality.measure(
            subject.module,
            subject.task,
            device=case.device,
            dtype=case.dtype,
            batch=self.spec.get("quality_batch", 64),
            shape=case.full_shape,
        )
        described = {"device": case.device, "dtype": case.dtype, "task": subject.task.describe()}
        return found.readings(), {**found.as_dict(), **described, "flags": [dict(item) for item in found.flags]}

    def fidelity(self, subject: Subject, ready: Ready, part: Part) -> Found:
        """How far the outputs are from the other side's; of a case with a task what its workload compares besides."""
        from bench.meters import fidelity
        from bench.worker import other_side

        recipe = self.spec.get("other_side")
        if recipe is None:
            return [], {}
        other = Recipe.from_dict(recipe)
        untrained = getattr(subject.counted, "untrained", None)
        if subject.task is not None:
            return ([] if untrained else self._against(subject, other)), {}
        why = str(untrained or "") or other_side.why_unlike(subject.case, other.case)
        if why:
            return [unavailable(name, why) for name in self._metrics("fidelity")], {}
        try:
            found = fidelity.compare(fidelity.snapshot(ready.step()), other_side.outputs_of(other))
        except fidelity.Incomparable as error:
            return [unavailable(name, str(error)) for name in self._metrics("fidelity")], {}
        except Exception as error:
            if classify(error) != "oom":
                raise
            why = "there is not enough memory for both sides in one process"
            return [unavailable(name, why) for name in self._metrics("fidelity")], {}
        return found.readings(), found.as_dict()

    def _against(self, subject: Subject, other: Recipe) -> list[Reading]:
        """What the workload makes of both sides' answers, both built in this process; most workloads make nothing."""
        from bench.worker import other_side

        module = workloads.module_of(subject.case.workload)
        if not hasattr(module, "against"):
            return []
        return other_side.looked_at(other, lambda side: module.against(subject, side, subject.case.full_shape))

    def energy(self, subject: Subject, ready: Ready, part: Part) -> Found:
        """Energy per sample of the part, from the configured source of joules."""
        from bench.meters import energy

        protocol = self.spec["protocol"]["energy"]
        found = energy.measure_for(
            as_step(part),
            subject.case.batch,
            subject.case.device,
            protocol,
            synchronise=synchronise(subject.case.device),
        )
        readings, details = found.readings(), found.as_dict()
        if not any(item.value is not None for item in readings):
            return readings, details
        share = prepared_share(part, synchronise(subject.case.device))
        if share <= PREPARED:
            return readings, details
        text = (
            f"{100 * share:.0f} % of the time of a run of {part.name} is what is prepared before it and put back after "
            "it; its joules hold both"
        )
        details["flags"] = [*details.get("flags", []), flag("energy_of_preparation", "warn", text)]
        return [replace(item, method_note=f"{item.method_note}; {text}") for item in readings], details

    def conversion(self, subject: Subject) -> list[dict[str, str]]:
        """Flags of a conversion whose answers were compared with eager's; its cost and facts are kept.

        Raises:
            OutputsDiffer: another runtime answers otherwise than its type allows.
        """
        case = subject.case
        if subject.eager is None or case.workload != workloads.FORWARD:
            return []
        agreement, found = conversion.check(case, *subject.both_ways(), subject.execution)
        if subject.converted is not None:
            self.readings += conversion.readings(subject.converted)
            self.details["conversion"] = conversion.details(case, subject.converted, agreement)
        return found

    def facts(self, subject: Subject, ready: Ready, part: Part) -> Found:
        """What workload and subject declare: bytes of a cache, a payload; the method's cost; the cost of inputs."""
        module, shape, parts = workloads.module_of(subject.case.workload), subject.case.full_shape, list(ready.parts)
        found: list[Facts] = []
        if hasattr(module, "facts"):
            found.append(module.facts(subject, shape, parts))
        if hasattr(module, "counts"):
            from bench.meters import macs
            from bench.workloads.counting import counter

            found.append(module.counts(subject, shape, parts, counter(subject.counted, macs.count)))
        spread = declared.over_its_inputs(subject)
        if spread is not None:
            found.append(Facts(readings=spread.readings, curves=spread.curves))
        self.curves += [curve.as_dict() for facts in found for curve in facts.curves]
        details = {name: value for facts in found for name, value in facts.details.items()}
        flags = [item for facts in found for item in facts.flags]
        rows = [item for facts in found for item in facts.readings]
        return [*rows, *declared.statements(subject)], {**details, "flags": flags}


def _checked_output(ready: Ready, *, graphs: bool) -> list[dict[str, str]]:
    """What the outputs of two runs say; that they differ says nothing where each run takes the next inputs."""
    eager = ready.whole.counted if graphs and ready.whole.counted else ready.step
    flags = check_output(eager, ready.step if graphs else None)
    return [item for item in flags if not (ready.whole.varies and item["code"] == "changing_output")]


def _compile_reading(subject: Subject, ready: Ready) -> list[Reading]:
    """The compile time of a compiled case; none of one that is not compiled."""
    if subject.case.compile == "off":
        return []
    value, why = compile_time(ready)
    if value is None:
        return [unavailable("compile_ms", why)]
    note = "the first forward of the compiled module in the probe, with nothing in the compiler's cache"
    return [reading("compile_ms", value, "measured", n=1, statistic="one process", method_note=note)]


def run(spec: dict[str, Any], phase: Phase) -> dict[str, Any]:
    """Readings, details per meter and flags of one case, and how torch is built.

    Args:
        spec: `recipe`, `protocol` parameters, `meters` to take, `no_quality` reason, and the recipe of the `other_side`
            of a case that is compared with one.
        phase: tells the driver where we are.
    """
    started = utc_microsecond()
    pin_allocator_for_memory()
    probe = Probe(spec, phase)
    torch.set_num_threads(probe.recipe.case.threads)
    case = probe.recipe.case
    phase.enter("compile" if conversion.is_foreign(case) else "load", case.key)
    cuda.select(case.device)
    subject, load_ms = timed_build(probe.recipe, spec.get("artefacts"))
    workload = case.workload
    with running(workload):
        phase.enter("compile" if case.compile != "off" else "warmup", case.key)
        state = global_state.read()
        ready = make_ready(subject)
        probe.gradients = ready.gradients
        flags = [*ready.flags, *_checked_output(ready, graphs=case.cuda_graphs), *probe.conversion(subject)]
        check_state(state, case.label)
        flags += int8_units.flags_here(subject.execution, case.device)
        if subject.state_changes:
            changed = ", ".join(subject.state_changes)
            text = f"building it changes {changed}; this was put back before anything was measured"
            flags.append(flag("changes_global_state", "warn", text))
        probe.take_all("memory", subject, ready)
    pin_allocator_for_timing()  # what follows is not slowed by giving memory back; energy has to be that of a timed run
    with counting(workload):
        probe.take_all("counting", subject, ready)
    with running(workload):
        probe.take_all("running", subject, ready)
        picture = source_map(subject) if "quality" in probe.wanted else None
    return {
        **probe.result(ready.whole.name),
        "started_at": started,
        "picture": picture,
        "load_ms": load_ms,
        "weights": subject.weights,
        "flags": flags + probe.flags,
        "readings": [item.as_dict() for item in [*probe.readings, *_compile_reading(subject, ready)]],
        "ready": ready.facts(),
        "torch": torch_build(),
        "labels": labels_of(subject.counted),
    }
