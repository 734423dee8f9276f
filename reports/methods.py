"""How it was measured, in sentences made from the protocol that the records carry; nothing is said that they lack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench import workloads
from bench.canonical import BASELINE_METHOD, parse_settings
from bench.metrics import METRICS
from bench.plan.case import Case
from bench.store.record_parts import parts_of, whole_of
from bench.store.records import Record
from bench.workloads import FORWARD
from reports.groups import machine_line
from reports.scores import SCORES

#: Packages that are named where a record says that they were there.
_SOFTWARE = ("torch", "fvcore", "timm", "torchao", "transformers", "diffusers", "onnxruntime", "openvino", "executorch")


@dataclass(frozen=True)
class Card:
    """Prose for an appendix about one protocol on one machine."""

    title: str
    paragraphs: tuple[str, ...]


def summary(record: Record) -> str:
    """One or two sentences on the protocol of a record."""
    protocol = record.get("protocol") or {}
    parameters = protocol.get("parameters") or {}
    latency = parameters.get("latency") or parameters
    count = latency.get("invocations")
    words = (
        f"Protocol {protocol.get('name', 'unnamed')}, version {protocol.get('version', '?')} (hash "
        f"{protocol.get('hash', '?')})."
    )
    if count:
        words += (
            f" Every time is the geometric mean over at least {count} fresh processes of the process's median; "
            "what is compared is timed interleaved in the same processes."
        )
    return words


def card(records: list[Record]) -> Card:
    """The methods section for records that share protocol and machine."""
    first = records[0]
    protocol = first.get("protocol") or {}
    parameters = protocol.get("parameters") or {}
    parts = [_what(records), _time(parameters, records), _stopping(parameters, records), _counts(parameters, records)]
    parts += [quality_text(records), _memory(records), _energy(parameters, records), _where(first)]
    title = f"Protocol {protocol.get('name', 'unnamed')} v{protocol.get('version', '?')} on {machine_line(first)}"
    return Card(title, tuple(part for part in parts if part))


def _has(records: list[Record], metric: str) -> bool:
    return any(
        item["metric"] == metric and item.get("value") is not None for record in records for item in record["readings"]
    )


def _reason(records: list[Record], metric: str) -> str:
    notes = (
        item.get("method_note")
        for record in records
        if record["status"] == "ok"
        for item in record["readings"]
        if item["metric"] == metric and item.get("value") is None
    )
    return str(next(notes, ""))


def _what(records: list[Record]) -> str:
    cases = [record["case"] for record in records]
    models = sorted({case["model"] for case in cases})
    methods = sorted({case["method"] for case in cases} - {"none"})
    failed = sum(record["status"] != "ok" for record in records)
    code = records[0].get("code") or {}
    version = f"Waterline {code.get('version', '?')}" + (
        f" (commit {str(code['commit'])[:10]})" if code.get("commit") else ""
    )
    words = (
        f"We measured {_listed(models)} without a method and with {_listed(methods)} using {version}."
        if methods
        else (f"We measured {_listed(models)} using {version}.")
    )
    words += _what_runs(cases)
    words += _other_sides(records)
    dtypes, batches = sorted({c["dtype"] for c in cases}), sorted({c["batch"] for c in cases})
    words += f" Computation was in {_listed(dtypes)} with batch size {_listed([str(b) for b in batches])}."
    backends = sorted({str(c.get("backend", "eager")) for c in cases} - {"eager"})
    if backends:
        words += f" Besides torch's eager mode, the backends were {_listed(backends)}."
    if failed:
        words += f" {failed} of {len(records)} cases did not give a valid result and are reported as such."
    return words


def _what_runs(cases: list[dict[str, Any]]) -> str:
    """What one run was, of workloads that are more than a forward, with their shapes."""
    found = sorted({(str(case.get("workload", FORWARD)), str(case.get("shape") or "")) for case in cases})
    said = []
    for workload in dict.fromkeys(name for name, _ in found):
        if workload == FORWARD:
            continue
        title = workloads.find(workload).title.replace("`", "") if workload in workloads.WORKLOADS else workload
        told = dict.fromkeys(_shape_in_words(shape) for name, shape in found if name == workload)
        shapes = [shape for shape in told if shape]
        said.append(
            f" One run of {workload} is {title}"
            + (f"; here with {' and with '.join(shapes[:4])}" if shapes else "")
            + (f" and {len(shapes) - 4} more shapes" if len(shapes) > 4 else "")
            + "."
        )
    return "".join(said)


def _shape_in_words(shape: str) -> str:
    """The axes of a shape that are set: `context 64, new tokens 8`."""
    axes = {name: value for name, value in parse_settings(shape).items() if value is not None}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in axes.items())


def _other_sides(records: list[Record]) -> str:
    """What is compared with something else than the same model without a method."""
    named = {Case.from_dict(record["case"]).against_label for record in records if record["case"].get("against")}
    sides = sorted(named - {""})
    return f" Cases were compared with {_listed(sides)}." if sides else ""


def _run(records: list[Record]) -> str:
    """What one run is called: a forward pass, a request, a step."""
    names = {whole_of(record) for record in records}
    name = names.pop() if len(names) == 1 else "run"
    return "forward pass" if name == FORWARD else name or "run"


def _time(parameters: dict[str, Any], records: list[Record]) -> str:
    if not _has(records, "latency_ms"):
        return ""
    latency = parameters.get("latency") or parameters
    threads = sorted({str(record["case"].get("threads", 1)) for record in records})
    runs = [
        len([i for i in ((record.get("timing") or {}).get("invocations") or []) if not i.get("set_aside")])
        for record in records
    ]
    used = sorted({n for n in runs if n})
    words = (
        f"Latency is the time of one synchronised {_run(records)}{_parts(records)}. The unit of replication is a fresh "
        "process: each case, its baseline and an identical twin of the baseline were timed interleaved, iteration by "
        f"iteration, in {_span(used)} processes"
    )
    words += _warm_up(latency, records) + _samples(latency)
    words += (
        f". We used {_listed(threads)} CPU thread{'' if threads == ['1'] else 's'}. We report the geometric mean over "
        "processes of the per-process median with a 95 % t-interval on logarithms; speed-ups are "
        f"{_of_a_process(latency)} paired by process{_control(latency)}. No sample was dropped."
    )
    if latency.get("throughput_windows"):
        words += (
            (
                f" Throughput is the median of {latency['throughput_windows']} windows of at least "
                f"{latency.get('throughput_window_s', 0):g} s of forward passes back to back"
                f"{_in_the_first(latency.get('throughput_processes'))}."
            )
            if any(record["case"].get("workload", FORWARD) == FORWARD for record in records)
            else (" Throughput is the units of a run over its median time.")
        )
    floors = [((record.get("timing") or {}).get("noise_floor") or {}) for record in records]
    ends = [end for floor in floors for end in (floor.get("low"), floor.get("high")) if end]
    if ends:
        words += f" Two identical subjects timed in this way differed by a ratio of {min(ends):.3f} to {max(ends):.3f}."
    return words


def _warm_up(latency: dict[str, Any], records: list[Record]) -> str:
    """How long processes warm up: all alike, or the others by what the first one showed."""
    if not latency.get("warmup_iterations"):
        return ""
    words = f" after at least {latency['warmup_iterations']} warm-up iterations and {_warmup_s(latency, records):g} s"
    if latency.get("warm_by_evidence") and not _on_gpu(records):
        words += " in the first process, and in the others for as long as times were seen to fall in it"
    return words


def _samples(latency: dict[str, Any]) -> str:
    """How many samples processes take: all alike, or the others as many as the first one's scatter asks for."""
    if not latency.get("samples"):
        return ""
    if not (latency.get("most_samples") and latency.get("fewest_samples")):
        return f", with up to {latency['samples']} samples per process"
    return (
        f", with up to {latency['samples']} samples in the first process and in the others as many as its scatter "
        f"asked for, {latency['fewest_samples']} to {latency['most_samples']}"
    )


def _of_a_process(latency: dict[str, Any]) -> str:
    return "medians over rounds of a round's ratio," if latency.get("by_rounds") else "ratios of medians"


def _control(latency: dict[str, Any]) -> str:
    return ", to the baseline and its twin together" if latency.get("twin_control") else ""


def _in_the_first(processes: int | None) -> str:
    """Where not all processes take something."""
    if processes is None:
        return ""
    return f" in the first {processes} processes" if processes > 1 else " in the first process, without an interval"


def _on_gpu(records: list[Record]) -> bool:
    return str(records[0]["case"].get("device", "cpu")) != "cpu"


def _parts(records: list[Record]) -> str:
    """The parts of a run that are timed by themselves."""
    parts = list(dict.fromkeys(part for record in records for part in parts_of(record)))
    return f", and of its parts by themselves ({_listed(parts)})" if parts else ""


def _warmup_s(latency: dict[str, Any], records: list[Record]) -> float:
    """Seconds of warm-up on the device of these records."""
    return float(latency.get("warmup_s_gpu" if _on_gpu(records) else "warmup_s") or 0)


def _stopping(parameters: dict[str, Any], records: list[Record]) -> str:
    """How many processes there are and which do not count; nothing where the record does not hold the rules."""
    latency = parameters.get("latency") or {}
    if not _has(records, "latency_ms") or not latency.get("max_invocations"):
        return ""
    words = (
        f"Processes were added, at least {latency['invocations']} and at most {latency['max_invocations']}, until the "
        f"half-width of every interval was within {100 * latency['ratio_half_width']:g} % for ratios"
    )
    if latency.get("absolute_half_width"):
        words += f" and {100 * latency['absolute_half_width']:g} % for times"
    if latency.get("further_invocations"):
        words += (
            f", and then {latency['further_invocations']} more unless it was within {latency['at_once']:g} times that, "
            "so that stopping on a narrow interval does not cost coverage"
        )
    if latency.get("long_run_s") and latency.get("long_invocations"):
        words += f"; of runs of {latency['long_run_s']:g} s and more, {latency['long_invocations']} at least"
    lines = [line for record in records for line in (record.get("timing") or {}).get("invocations") or []]
    labels = {label for line in lines for label in line.get("labels") or []}
    words += (
        f". Before each process we waited up to {latency['quiet_wait_s']:g} s for a quiet host. A process in which "
        f"more than {100 * latency['preempted_share']:g} % of a case's samples were preempted was set aside and "
        f"replaced, at most {latency['replacements']} times; what else disturbed a process is labelled on its row."
    )
    if "allocator not pinned" not in labels:
        words += " The C library's allocator was kept from returning memory while times were taken."
    return words


def _counts(parameters: dict[str, Any], records: list[Record]) -> str:
    if not _has(records, "macs"):
        return ""
    second = (parameters.get("counting") or {}).get("second_count", True)
    return (
        f"MACs are multiply-accumulates of matrix products and convolutions in one {_run(records)} per sample, counted "
        "from the operators that ran on the real input, without bias, normalisation, softmax or elementwise work; "
        "one MAC is two floating-point operations."
        + (" They were counted a second time with fvcore, and differences are explained per row." if second else "")
    )


def quality_text(records: list[Record]) -> str:
    """How every score that rows have was taken; where there is none, why."""
    known = {item["metric"] for record in records for item in record["readings"] if item.get("value") is not None}
    scores = [name for name in SCORES if name in known]
    if not scores:
        tried = next((name for name in SCORES if _reason(records, name)), None)
        return f"{METRICS[tried].title} is not reported: {_reason(records, tried)}." if tried else ""
    return " ".join(_score(records, name) for name in scores)


def _score(records: list[Record], metric: str) -> str:
    scored = [record for record in records if _has([record], metric)]
    described = [(record.get("quality") or {}).get("task") or record["case"]["task"] for record in scored]
    names = sorted({str(task.get("name", task)) if isinstance(task, dict) else str(task) for task in described})
    what = (
        f"Accuracy is top-1 on the held-out samples of {_listed(names)} with a 95 % Wilson interval"
        if metric == "accuracy"
        else f"{METRICS[metric].title} was taken on {_listed(names)}: {METRICS[metric].definition.rstrip('.')}"
    )
    return f"{what}; it is of the very weights whose cost is reported{_retraining(records, metric)}."


def _retraining(records: list[Record], metric: str) -> str:
    """How many of the scored cases with a method learned with it in place."""
    with_method = [r for r in records if r["case"]["method"] != BASELINE_METHOD and _has([r], metric)]
    tuned = sum("method" in (record.get("weights") or {}) for record in with_method)
    if not with_method:
        return ""
    if not tuned:
        return ", without retraining after the method was put in"
    if tuned == len(with_method):
        return ", trained further with the method in place"
    return f"; {tuned} of the {len(with_method)} with a method were trained further with it in place, the others not"


def _memory(records: list[Record]) -> str:
    if not _has(records, "peak_memory_bytes"):
        return ""
    return (
        "Peak memory is the largest sum of live tensor bytes (weights, inputs, activations and temporaries) during one "
        f"{_run(records)}, taken in a separate pass."
    )


def _energy(parameters: dict[str, Any], records: list[Record]) -> str:
    if _has(records, "energy_j"):
        asked = parameters.get("energy") or {}
        count = f"{asked['windows']} " if asked.get("windows") else ""
        length = f" of at least {asked['window_s']:g} s" if asked.get("window_s") else ""
        return f"Energy is gross joules per sample over {count}windows{length}, taken in a separate pass."
    reason = _reason(records, "energy_j")
    return f"Energy is not reported: {reason}." if reason else ""


def _where(record: Record) -> str:
    environment = record.get("environment") or {}
    packages = environment.get("packages") or {}
    named = [f"{name} {packages[name]}" for name in _SOFTWARE if packages.get(name)]
    software = _listed(
        [str(part) for part in (environment.get("os"), f"Python {environment.get('python', '?')}", *named) if part]
    )
    words = f"The machine was: {machine_line(record)}; software: {software}."
    peaks = [
        f"{peak['value'] / 1e9:.3g} Gop/s in {peak['dtype']}"
        for peak in (record.get("machine") or {}).get("peaks") or []
        if peak.get("value")
    ]
    bandwidth = ((record.get("machine") or {}).get("bandwidth") or {}).get("value")
    if peaks and bandwidth:
        words += f" Its measured peaks are {_listed(peaks)}, its measured DRAM bandwidth {bandwidth / 1e9:.3g} GB/s."
    return words


def _listed(names: list[str]) -> str:
    if len(names) < 2:
        return names[0] if names else "nothing"
    return ", ".join(names[:-1]) + " and " + names[-1]


def _span(counts: list[int]) -> str:
    if not counts:
        return "several"
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
