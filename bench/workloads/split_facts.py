"""What is measured of a split network besides its parts: payloads, answers, ratios, and transfers on a paced link."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from bench.flags import flag
from bench.reading import Reading, reading, unavailable
from bench.workloads.link import link_ms
from bench.workloads.split_cut import Cut, checked
from bench.workloads.workload import Built, Facts, Part, Shape, ask, on_meta

#: Inputs over which payloads are measured, at most.
PAYLOADS = 16
#: Ratios of compression, each named after its denominator, which the module gives.
RATIOS = ("vs_u8_input", "vs_fp32_cut", "vs_jpeg_equal_accuracy")
#: A paced transfer may take so long, in milliseconds, and be so far from the closed form, as a share.
LONGEST_MS, PACE_TOLERANCE = 2000.0, 0.05
PAYLOAD_METRICS = ("payload_bytes", "payload_min_bytes", "payload_max_bytes")


def facts(subject: Built, shape: Shape, parts: list[Part]) -> Facts:
    """Bytes on the wire, encoded for real over the inputs, bytes of the answer, and their time where they are sent."""
    from bench.tensors import ordinary_tensors

    cut = Cut(subject)
    if cut.is_local:
        note = "everything runs on the device: nothing is sent"
        return Facts(
            [
                reading(name, 0, "counted", part="request", method_note=note)
                for name in (*PAYLOAD_METRICS, "answer_bytes")
            ]
        )
    of_shapes = _of_shapes(cut)
    if on_meta(cut.given):
        why = "meta tensors have no values to encode"
        missing = [unavailable(name, why, "request") for name in (*PAYLOAD_METRICS, "answer_bytes")]
        return Facts([*of_shapes, *missing])
    with ordinary_tensors():
        inputs, whence = _inputs(subject)
        sizes = [_sizes(cut, given) for given in inputs]
        cut.ready()
        answer, how = _answer_bytes(subject.module, cut.uncut())
        paced = _paced(cut, answer, shape) if shape["paced"] else Facts()
    note = f"{whence}, batches of {shape['batch']}, encoded for real"
    totals = [sum(each) for each in sizes]
    readings = [*of_shapes, *_payload_readings(totals, "request", note), *_ratios(cut, inputs, totals, note)]
    if not cut.is_one:
        for place, own in enumerate(zip(*sizes, strict=True), 1):
            readings += _payload_readings(own, f"encode_{place}", note)
    readings.append(reading("answer_bytes", answer, "counted", part="request", method_note=how))
    details = {"payload_bytes": [sum(each) for each in sizes], "branches": len(cut.branches), **paced.details}
    return Facts([*readings, *paced.readings], details=details, flags=paced.flags)


def _sizes(cut: Cut, given: Any) -> list[int]:
    """Bytes that every branch sends of an input."""
    cut.ready(given)
    return [len(checked(payload)) for payload in cut.encoded(cut.heads(given))]


def _of_shapes(cut: Cut) -> list[Reading]:
    """Numbers that the heads give, and parameters of the devices: both follow from shapes."""
    from bench.tensors import ordinary_tensors, tensors_in

    with ordinary_tensors():
        cut.ready()
        count = sum(tensor.numel() for tensor in tensors_in(cut.hidden()))
    note = "elements of what the heads give, before they are encoded"
    found = [reading("payload_elements", count, "counted", part="request", method_note=note)]
    params = ask(cut.module, "device_params")
    if params is not None:
        note = "the module's own account, of all devices"
        found.append(reading("head_params", params, "counted", part="request", method_note=note))
    return found


def _ratios(cut: Cut, inputs: Sequence[Any], sizes: Sequence[int], note: str) -> list[Reading]:
    """Bytes of every denominator that the module names over the mean payload."""
    found = []
    payload = statistics.fmean(sizes)
    named = [ask(cut.module, "denominators", given) or {} for given in inputs]
    for name in RATIOS:
        values = [each[name] for each in named if name in each]
        why = next((value for value in values if isinstance(value, str)), None)
        if why is not None:
            found.append(unavailable(name, why, "request"))
        elif values and payload > 0:
            size = statistics.fmean(values)
            text = f"{size:.6g} bytes over a mean payload of {payload:.6g}; {note}"
            found.append(reading(name, size / payload, "counted", part="request", method_note=text))
    return found


def _payload_readings(sizes: Sequence[int], part: str, note: str) -> list[Reading]:
    """Mean, least and most of payloads over the inputs."""
    values = (statistics.fmean(sizes), min(sizes), max(sizes))
    return [
        reading(name, value, "counted", part=part, method_note=note)
        for name, value in zip(PAYLOAD_METRICS, values, strict=True)
    ]


def _paced(cut: Cut, answer: int, shape: Shape) -> Facts:
    """How long the largest payload of the input and so many bytes back take on a socket that is held to the link."""
    from bench.workloads.paced_link import transfer_ms

    payload = max(cut.payloads(), key=len)
    expected = link_ms(len(payload), answer, shape["bandwidth_mbps"], shape["rtt_ms"])
    if expected > LONGEST_MS:
        why = f"it would travel for {expected / 1e3:.3g} s; only transfers of up to {LONGEST_MS / 1e3:g} s are sent"
        return Facts([unavailable("link_paced_ms", why, "request")])
    times = transfer_ms(payload, bytes(answer), shape["bandwidth_mbps"], shape["rtt_ms"])
    found = statistics.median(times)
    note = (
        f"median of {len(times)} transfers of {len(payload)} + {answer} bytes over a loopback socket held to the link"
    )
    flags = []
    if abs(found - expected) > PACE_TOLERANCE * expected:
        text = (
            f"the paced link took {found:.4g} ms and its model says {expected:.4g} ms: do not read link_ms as checked"
        )
        flags.append(flag("link_disagrees", "warn", text))
    row = reading("link_paced_ms", found, "modelled", part="request", method_note=note, n=len(times))
    return Facts([row], details={"link_paced_ms": times, "link_model_ms": expected}, flags=flags)


def _inputs(subject: Built) -> tuple[list[Any], str]:
    """Inputs over which payloads are measured, on the device, and where they are from."""
    own = ask(subject.module, "payload_inputs")
    if own is not None:
        from bench.tensors import placed

        inputs = [placed(given, subject.device, subject.dtype) for given in list(own)[:PAYLOADS]]
        return inputs, f"{len(inputs)} inputs of the module's own"
    first = subject.args[0]
    if subject.task is None:
        return [first], "its one example input"
    batches = [data.to(first.device, first.dtype) for data, _ in _first(subject.task.batches(len(first)), PAYLOADS)]
    inputs = [data for data in batches if len(data) == len(first)]
    return inputs or [first], f"{len(inputs) or 1} batches of the task"


def _first(items: Any, most: int) -> list[Any]:
    found = []
    for item in items:
        found.append(item)
        if len(found) == most:
            break
    return found


def _answer_bytes(module: Any, answer: Any) -> tuple[int, str]:
    from bench.tensors import tensors_in

    own = ask(module, "encode_answer", answer)
    if own is not None:
        return len(checked(own)), "encoded for real"
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(answer))
    return size, "elements of the result's tensors as they are; the module offers no encode_answer"
