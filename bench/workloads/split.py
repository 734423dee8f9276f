"""`split`: the head of a network on a device, its payload over a link, the tail on a server.

The subject's module offers

- `head(x) -> h`: what the device computes of one input of its forward;
- `encode(h) -> bytes`: what goes over the wire, everything the other side needs (shapes, scales, zero points included);
- `decode(payload) -> h`: from the bytes alone;
- `tail(h) -> y`: what the server computes;

and may offer

- `payload_inputs() -> list of inputs`: over which payloads are measured; else the task's batches, else its one input;
- `encode_answer(y) -> bytes`: what travels back; else the bytes of the result's tensors count;
- `branches() -> list`: several devices, each an object with `head`, `encode` and `decode` of its own over the same
  input; then the module has none of the three, and its `tail` takes the list of what arrived, in order.

There is no state. The link is modelled from the shape: bandwidth, round trip, and how much slower the device is than
this machine; the parts are measured and kept beside the modelled total. With `paced` the bytes also travel, over a
loopback socket that is held to them. Devices and their links work at the same time: the total has the slowest branch,
which is measured by itself (`head_1`, `encode_1`, ...); the server decodes one payload after another. Where there are
no values (on the meta device) the cut goes straight from head to tail, encode and decode are no parts, and payloads are
unavailable.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from bench.errors import UsageError
from bench.flags import flag
from bench.reading import Reading, reading, unavailable
from bench.workloads.deriving import Value, combined
from bench.workloads.workload import (
    BATCH,
    RESOLUTION,
    Built,
    Facts,
    Part,
    Shape,
    ShapeAxis,
    Spans,
    Workload,
    ask,
    clock_of,
    on_meta,
    require,
)

WORKLOAD = Workload(
    "split",
    unit="request",
    parts=("request", "head", "encode", "decode", "tail"),
    axes=(
        BATCH,
        RESOLUTION,
        ShapeAxis("bandwidth_mbps", 10.0, 0.001, 1e6, unit="Mbit/s", doc="of the link, 10^6 bits per second each way"),
        ShapeAxis("rtt_ms", 20.0, 0.0, 1e5, unit="ms", doc="round trip of the link"),
        ShapeAxis(
            "device_factor", 1.0, 0.001, 1e4, doc="time of head and encode on the device over that on this machine"
        ),
        ShapeAxis("paced", 0, 0, 1, doc="1: the bytes also travel over a socket held to bandwidth and round trip"),
    ),
    title="head, payload over a link, tail",
    calls=("head", "tail"),
)

#: Inputs over which payloads are measured, at most.
PAYLOADS = 16
#: A paced transfer may take so long, in milliseconds, and be so far from the closed form, as a share.
LONGEST_MS, PACE_TOLERANCE = 2000.0, 0.05


class _Cut:
    """A network in two halves with the bytes between them; its devices are branches, most often one: itself."""

    def __init__(self, subject: Built) -> None:
        self.module = subject.module
        own = ask(subject.module, "branches")
        self.is_one = own is None
        require(subject.module, WORKLOAD.name, "tail", *(("head", "encode", "decode") if self.is_one else ()))
        self.branches: list[Any] = [subject.module] if own is None else list(own)
        if not self.branches:
            raise UsageError(f"{type(subject.module).__name__}.branches() gives none: a split network has a device")
        for branch in self.branches:
            require(branch, WORKLOAD.name, "head", "encode", "decode")
        if not subject.args:
            raise UsageError(f"{type(subject.module).__name__} has no example input to be split")
        self.given = subject.args[0]

    def request(self, spans: Spans) -> Any:
        """The answer to the input, through the payloads."""
        with spans.span("head"):
            hidden = self.heads(self.given)
        with spans.span("encode"):
            payloads = self.encoded(hidden)
        with spans.span("decode"):
            hidden = self.decoded(payloads)
        with spans.span("tail"):
            return self.answer(hidden)

    def uncut(self) -> Any:
        """The answer without a payload: what remains where there are shapes only."""
        return self.answer(self.hidden())

    def heads(self, given: Any) -> list[Any]:
        """What the device of every branch computes of an input."""
        return [branch.head(given) for branch in self.branches]

    def encoded(self, hidden: list[Any]) -> list[Any]:
        """What every branch sends."""
        return [branch.encode(each) for branch, each in zip(self.branches, hidden, strict=True)]

    def decoded(self, payloads: list[Any]) -> list[Any]:
        """What the server makes of it, one payload after another."""
        return [branch.decode(payload) for branch, payload in zip(self.branches, payloads, strict=True)]

    def answer(self, hidden: list[Any]) -> Any:
        """What the tail makes of what arrived: of one thing, or of a list where there are branches."""
        return self.module.tail(hidden[0] if self.is_one else hidden)

    def hidden(self) -> list[Any]:
        """What the heads give of the input."""
        return self.heads(self.given)

    def payloads(self) -> list[bytes]:
        """The bytes of the input."""
        return [checked(payload) for payload in self.encoded(self.hidden())]

    def arrived(self) -> list[Any]:
        """What the tail is given."""
        return self.hidden() if on_meta(self.given) else self.decoded(self.payloads())


class _Half:
    """One of the four calls on what the calls before it give, prepared again outside the clock."""

    def __init__(self, run: Callable[[Any], Any], made: Callable[[], Any]) -> None:
        self._run, self._made = run, made
        self.given: Any = None

    def prepare(self) -> None:
        """What the call is given."""
        from bench.tensors import ordinary_tensors

        with ordinary_tensors():
            self.given = self._made()

    def call(self) -> Any:
        """What it gives."""
        return self._run(self.given)

    def reset(self) -> None:
        """Let go of what it was given."""
        self.given = None


def make_parts(subject: Built, shape: Shape) -> list[Part]:
    """The request through the payload, without the link, its four calls by themselves, and those of every branch.

    Raises:
        UsageError: the module lacks a call or an input.
    """
    cut = _Cut(subject)
    batch = float(shape["batch"])
    spans = Spans(subject.synchronise, clock_of(subject))
    request = Part(
        "request",
        cut.uncut if on_meta(cut.given) else lambda: cut.request(spans),
        units=batch,
        prepare=spans.clear,
        spans=spans.read,
        held=lambda: cut.given,
    )
    head = Part("head", cut.hidden, units=batch, held=lambda: cut.given)
    tail = _half_part("tail", _Half(cut.answer, cut.arrived), batch)
    branches = [] if cut.is_one else _branch_parts(cut, batch)
    if on_meta(cut.given):
        return [request, head, tail, *branches]
    encode = _half_part("encode", _Half(cut.encoded, cut.hidden), batch)
    decode = _half_part("decode", _Half(cut.decoded, cut.payloads), batch)
    return [request, head, encode, decode, tail, *branches]


def _half_part(name: str, half: _Half, batch: float) -> Part:
    return Part(name, half.call, units=batch, prepare=half.prepare, reset=half.reset, held=lambda: half.given)


def _branch_parts(cut: _Cut, batch: float) -> list[Part]:
    """What the device of every branch does, by itself: they do it at the same time, and the slowest decides."""
    parts = []
    for place, branch in enumerate(cut.branches, 1):
        parts.append(Part(f"head_{place}", partial(branch.head, cut.given), units=batch, held=lambda: cut.given))
        if not on_meta(cut.given):
            half = _Half(branch.encode, partial(branch.head, cut.given))
            parts.append(_half_part(f"encode_{place}", half, batch))
    return parts


def facts(subject: Built, shape: Shape, parts: list[Part]) -> Facts:
    """Bytes on the wire, encoded for real over the inputs, bytes of the answer, and their time where they are sent."""
    from bench.tensors import ordinary_tensors

    cut = _Cut(subject)
    if on_meta(cut.given):
        why = "meta tensors have no values to encode"
        return Facts([unavailable(name, why, "request") for name in (*PAYLOAD_METRICS, "answer_bytes")])
    with ordinary_tensors():
        inputs, whence = _inputs(subject)
        sizes = [[len(checked(payload)) for payload in cut.encoded(cut.heads(given))] for given in inputs]
        answer, how = _answer_bytes(subject.module, cut.uncut())
        paced = _paced(cut, answer, shape) if shape["paced"] else Facts()
    note = f"{whence}, batches of {shape['batch']}, encoded for real"
    readings = _payload_readings([sum(each) for each in sizes], "request", note)
    if not cut.is_one:
        for place, own in enumerate(zip(*sizes, strict=True), 1):
            readings += _payload_readings(own, f"encode_{place}", note)
    readings.append(reading("answer_bytes", answer, "counted", part="request", method_note=how))
    details = {"payload_bytes": [sum(each) for each in sizes], "branches": len(cut.branches), **paced.details}
    return Facts([*readings, *paced.readings], details=details, flags=paced.flags)


PAYLOAD_METRICS = ("payload_bytes", "payload_min_bytes", "payload_max_bytes")


def _payload_readings(sizes: Sequence[int], part: str, note: str) -> list[Reading]:
    """Mean, least and most of payloads over the inputs."""
    values = (statistics.fmean(sizes), min(sizes), max(sizes))
    return [
        reading(name, value, "counted", part=part, method_note=note)
        for name, value in zip(PAYLOAD_METRICS, values, strict=True)
    ]


def _paced(cut: _Cut, answer: int, shape: Shape) -> Facts:
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


def checked(payload: Any) -> bytes:
    """The payload, if it is bytes.

    Raises:
        UsageError: it is something else, whose size on the wire nobody knows.
    """
    if not isinstance(payload, bytes | bytearray | memoryview):
        raise UsageError(f"encode gives a {type(payload).__name__}; only bytes have a size on the wire")
    return bytes(payload)


def link_ms(payload_bytes: float, answer_bytes: float, bandwidth_mbps: float, rtt_ms: float) -> float:
    """Milliseconds on the link both ways: 8 bits a byte over the bandwidth, and one round trip."""
    return 8e3 * (payload_bytes + answer_bytes) / (bandwidth_mbps * 1e6) + rtt_ms


def derive(shape: Shape, value: Value) -> list[Reading]:
    """Time on the link and the total with it, both modelled; of several branches the slowest."""
    devices = _branch_names(value) or [("head", "encode", "request")]
    links = [_link(shape, value, payload_of) for _, _, payload_of in devices]
    totals = [_total(shape, value, names, link) for (*names, _), link in zip(devices, links, strict=True)]
    slowest = max(range(len(devices)), key=lambda place: totals[place].value or float("-inf"))
    missing = next((place for place, total in enumerate(totals) if total.value is None), slowest)
    return [max(links, key=lambda link: link.value or float("-inf")), totals[missing]]


def _branch_names(value: Value) -> list[tuple[str, str, str]]:
    """The parts of every branch: its head, its encode, and the part whose payload is its own; none of one device."""
    found = list[tuple[str, str, str]]()
    while value("latency_ms", f"head_{len(found) + 1}") is not None:
        place = len(found) + 1
        found.append((f"head_{place}", f"encode_{place}", f"encode_{place}"))
    return found


def _link(shape: Shape, value: Value, payload_of: str) -> Reading:
    """Milliseconds on the link of one device, its payload there and the answer back."""
    bandwidth, round_trip = shape["bandwidth_mbps"], shape["rtt_ms"]
    per_byte = link_ms(1.0, 0.0, bandwidth, 0.0)
    sizes = [(value("payload_bytes", payload_of), per_byte), (value("answer_bytes", "request"), per_byte)]
    note = f"8 x bytes / {bandwidth:g} Mbit/s + {round_trip:g} ms, mean payload and answer"
    return combined("link_ms", "request", sizes, note, provenance="modelled", constant=round_trip)


def _total(shape: Shape, value: Value, device: list[str], link: Reading) -> Reading:
    """Milliseconds of the device, its link and the server."""
    factor = float(shape["device_factor"])
    factors = {**dict.fromkeys(device, factor), "decode": 1.0, "tail": 1.0}
    times: list[tuple[Reading | None, float]] = [
        (value("latency_ms", part), weight) for part, weight in factors.items()
    ]
    told = f"{factor:g} x ({' + '.join(device)}) + link + decode + tail; the parts are measured, the link is not"
    return combined("total_modelled_ms", "request", [*times, (link, 1.0)], told, provenance="modelled")
