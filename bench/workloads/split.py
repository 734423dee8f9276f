"""`split`: the head of a network on a device, its payload over a link, the tail on a server.

The subject's module offers

- `head(x) -> h`: what the device computes of one input of its forward;
- `encode(h) -> bytes`: what goes over the wire, everything the other side needs (shapes, scales, zero points included);
- `decode(payload) -> h`: from the bytes alone;
- `tail(h) -> y`: what the server computes;

and may offer

- `payload_inputs() -> list of inputs`: over which payloads are measured; else the task's batches, else its one input;
- `encode_answer(y) -> bytes`: what travels back; else the bytes of the result's tensors count.

There is no state. The link is modelled from the shape: bandwidth, round trip, and how much slower the device is than
this machine; the parts are measured and kept beside the modelled total. Where there are no values (on the meta device)
the cut goes straight from head to tail, encode and decode are no parts, and payloads are unavailable.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from bench.errors import UsageError
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
    ),
    title="head, payload over a link, tail",
    calls=("head", "tail"),
)

#: Inputs over which payloads are measured, at most.
PAYLOADS = 16


class _Cut:
    """A network in two halves with the bytes between them."""

    def __init__(self, subject: Built) -> None:
        require(subject.module, WORKLOAD.name, "head", "encode", "decode", "tail")
        if not subject.args:
            raise UsageError(f"{type(subject.module).__name__} has no example input to be split")
        self.module = subject.module
        self.given = subject.args[0]

    def request(self, spans: Spans) -> Any:
        """The answer to the input, through the payload."""
        with spans.span("head"):
            hidden = self.module.head(self.given)
        with spans.span("encode"):
            payload = self.module.encode(hidden)
        with spans.span("decode"):
            hidden = self.module.decode(payload)
        with spans.span("tail"):
            return self.module.tail(hidden)

    def uncut(self) -> Any:
        """The answer without a payload: what remains where there are shapes only."""
        return self.module.tail(self.module.head(self.given))

    def hidden(self) -> Any:
        """What head gives, or decode makes of it."""
        return self.module.head(self.given)

    def payload(self) -> bytes:
        """The bytes of the input."""
        return checked(self.module.encode(self.hidden()))

    def arrived(self) -> Any:
        """What the tail is given."""
        return self.hidden() if on_meta(self.given) else self.module.decode(self.payload())


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
    """The request through the payload, without the link, and each of its four calls by itself.

    Raises:
        UsageError: the module lacks a call or an input.
    """
    cut = _Cut(subject)
    module, batch = subject.module, float(shape["batch"])
    spans = Spans(subject.synchronise, clock_of(subject))
    request = Part(
        "request",
        lambda: cut.request(spans),
        units=batch,
        prepare=spans.clear,
        spans=spans.read,
        held=lambda: cut.given,
        counted=cut.uncut if on_meta(cut.given) else None,
    )
    head = Part("head", cut.hidden, units=batch, held=lambda: cut.given)
    tail = _half_part("tail", _Half(module.tail, cut.arrived), batch)
    if on_meta(cut.given):
        return [request, head, tail]
    encode = _half_part("encode", _Half(module.encode, cut.hidden), batch)
    decode = _half_part("decode", _Half(module.decode, cut.payload), batch)
    return [request, head, encode, decode, tail]


def _half_part(name: str, half: _Half, batch: float) -> Part:
    return Part(name, half.call, units=batch, prepare=half.prepare, reset=half.reset, held=lambda: half.given)


def facts(subject: Built, shape: Shape, parts: list[Part]) -> Facts:
    """Bytes on the wire, encoded for real over the inputs, and bytes of the answer."""
    from bench.tensors import ordinary_tensors

    cut = _Cut(subject)
    metrics = ("payload_bytes", "payload_min_bytes", "payload_max_bytes", "answer_bytes")
    if on_meta(cut.given):
        return Facts([unavailable(name, "meta tensors have no values to encode", "request") for name in metrics])
    with ordinary_tensors():
        inputs, whence = _inputs(subject)
        sizes = [len(checked(subject.module.encode(subject.module.head(given)))) for given in inputs]
        answer, how = _answer_bytes(subject.module, cut.uncut())
    note = f"{whence}, batches of {shape['batch']}, encoded for real"
    values = (statistics.fmean(sizes), min(sizes), max(sizes))
    readings = [
        reading(name, value, "counted", part="request", method_note=note)
        for name, value in zip(metrics[:3], values, strict=True)
    ]
    readings.append(reading("answer_bytes", answer, "counted", part="request", method_note=how))
    return Facts(readings, details={"payload_bytes": sizes})


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
    """Time on the link and the total with it, both modelled."""
    bandwidth, round_trip, factor = shape["bandwidth_mbps"], shape["rtt_ms"], shape["device_factor"]
    per_byte = link_ms(1.0, 0.0, bandwidth, 0.0)
    sizes = [(value(name, "request"), per_byte) for name in ("payload_bytes", "answer_bytes")]
    note = f"8 x bytes / {bandwidth:g} Mbit/s + {round_trip:g} ms, mean payload and answer"
    link = combined("link_ms", "request", sizes, note, provenance="modelled", constant=round_trip)
    factors = {"head": factor, "encode": factor, "decode": 1.0, "tail": 1.0}
    times = [(value("latency_ms", part), weight) for part, weight in factors.items()]
    note = f"{factor:g} x (head + encode) + link + decode + tail; the parts are measured, the link is not"
    total = combined("total_modelled_ms", "request", [*times, (link, 1.0)], note, provenance="modelled")
    return [link, total]
