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
  input; then the module has none of the three, and its `tail` takes the list of what arrived, in order;
- `ready(x)`: brings both sides to where a request finds them (caches of a text so far), before every run and outside
  the clock;
- `uncoded(h) -> h`: what both codecs multiply, of shapes alone, where they do: it stands in for encode and decode where
  there are no values;
- `device_params() -> int`: parameters that the device holds, of all devices;
- `decoder_path`: the path of its module that stands on the server for the first stages of the plain network, whose
  products are told apart from the tail's other ones;
- `denominators(x) -> {metric: bytes or a reason}`: what the payload of the input is compared with, by the names of
  `RATIOS`: bytes of as many inputs.

A module that says `answers_on_device = True` is not cut: its forward is the head, nothing is sent, and the parts are
the request and its head. It is the baseline `local`.

There is no state. The link is modelled from the shape: bandwidth, round trip, packets that are lost, jitter, and how
much slower the device is than this machine; the parts are measured and kept beside the modelled total. With `paced` the
bytes also travel, over a loopback socket that is held to bandwidth and round trip. Devices and their links work at the
same time: the total has the slowest branch, which is measured by itself (`head_1`, `encode_1`, ...); the server decodes
one payload after another. Where there are no values (on the meta device) the cut goes straight from head to tail,
encode and decode are no parts, and payloads are unavailable.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from bench.errors import UsageError
from bench.reading import Reading, reading
from bench.workloads.deriving import Value, combined
from bench.workloads.link import link_ms, one_way_ms
from bench.workloads.split_cut import Cut
from bench.workloads.split_facts import PAYLOAD_METRICS, RATIOS, facts
from bench.workloads.workload import (
    BATCH,
    RESOLUTION,
    Built,
    Count,
    Facts,
    Part,
    Shape,
    ShapeAxis,
    Spans,
    Workload,
    clock_of,
    on_meta,
)

__all__ = ["PAYLOAD_METRICS", "RATIOS", "WORKLOAD", "derive", "facts", "link_ms", "make_parts", "one_way_ms"]

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
        ShapeAxis("loss", 0.0, 0.0, 0.99, doc="share of packets that are lost and go again", late=True),
        ShapeAxis("jitter_ms", 0.0, 0.0, 1e5, unit="ms", doc="mean of what a way takes longer", late=True),
    ),
    title="head, payload over a link, tail",
    calls=("head", "tail"),
)


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
        UsageError: the module lacks a call or an input, or bytes are to travel over a link that loses them.
    """
    if shape.get("paced") and (shape.get("loss") or shape.get("jitter_ms")):
        raise UsageError("paced=1: a socket loses nothing and has no jitter; leave out loss and jitter_ms")
    cut = Cut(subject)
    batch = float(shape["batch"])
    spans = Spans(subject.synchronise, clock_of(subject))

    def before() -> None:
        spans.clear()
        cut.ready()

    request = Part(
        "request",
        cut.uncut if on_meta(cut.given) else lambda: cut.request(spans),
        units=batch,
        prepare=before,
        spans=spans.read,
        held=lambda: cut.given,
    )
    head = Part("head", cut.hidden, units=batch, prepare=cut.ready, held=lambda: cut.given)
    if cut.is_local:
        return [request, head]
    tail = _half_part("tail", _Half(cut.answer, cut.arrived), batch)
    branches = [] if cut.is_one else _branch_parts(cut, batch)
    if on_meta(cut.given):
        return [request, head, tail, *branches]
    encode = _half_part("encode", _Half(cut.encoded, cut.hidden), batch)
    decode = _half_part("decode", _Half(cut.decoded, cut.payloads), batch)
    return [request, head, encode, decode, tail, *branches]


def _half_part(name: str, half: _Half, batch: float) -> Part:
    return Part(name, half.call, units=batch, prepare=half.prepare, reset=half.reset, held=lambda: half.given)


def _branch_parts(cut: Cut, batch: float) -> list[Part]:
    """What the device of every branch does, by itself: they do it at the same time, and the slowest decides."""
    parts = []
    for place, branch in enumerate(cut.branches, 1):
        run = partial(branch.head, cut.given)
        parts.append(Part(f"head_{place}", run, units=batch, prepare=cut.ready, held=lambda: cut.given))
        if not on_meta(cut.given):
            half = _Half(branch.encode, partial(branch.head, cut.given))
            parts.append(_half_part(f"encode_{place}", half, batch))
    return parts


def counts(subject: Built, shape: Shape, parts: list[Part], count: Count) -> Facts:
    """Products of the decoder that a student has on the server, which are part of the tail's; nothing of others."""
    path = getattr(subject.module, "decoder_path", "")
    tail = next((part for part in parts if part.name == "tail"), None)
    if not path or tail is None:
        return Facts()
    below = [record.macs for record in count(tail).records if f"{record.path}.".startswith(f"{path}.")]
    note = f"operator trace of the tail, below {path}; the tail's other products are those of the teacher's stages"
    return Facts([reading("decoder_macs", sum(below) / shape["batch"], "counted", part="request", method_note=note)])


def derive(shape: Shape, value: Value) -> list[Reading]:
    """Time on the link and the total with it, both modelled; of several branches the slowest."""
    if _sends_nothing(value):
        note = "everything runs on the device: nothing is sent"
        none = reading("link_ms", 0.0, "modelled", part="request", method_note=note)
        factor = float(shape["device_factor"])
        told = f"{factor:g} x head, which is measured; nothing is sent"
        times = [(value("latency_ms", "head"), factor)]
        return [none, combined("total_modelled_ms", "request", times, told, provenance="modelled")]
    devices = _branch_names(value) or [("head", "encode", "request")]
    links = [_link(shape, value, payload_of) for _, _, payload_of in devices]
    totals = [_total(shape, value, names, link) for (*names, _), link in zip(devices, links, strict=True)]
    slowest = max(range(len(devices)), key=lambda place: totals[place].value or float("-inf"))
    missing = next((place for place, total in enumerate(totals) if total.value is None), slowest)
    return [max(links, key=lambda link: link.value or float("-inf")), totals[missing]]


def _sends_nothing(value: Value) -> bool:
    """Whether the subject has no tail and no payload: it answers on the device."""
    payload = value("payload_bytes", "request")
    return value("latency_ms", "tail") is None and payload is not None and payload.value == 0


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
    loss, jitter = shape.get("loss", 0.0), shape.get("jitter_ms", 0.0)
    per_byte = link_ms(1.0, 0.0, bandwidth, 0.0, loss)
    sizes = [(value("payload_bytes", payload_of), per_byte), (value("answer_bytes", "request"), per_byte)]
    note = f"8 x bytes / {bandwidth:g} Mbit/s + {round_trip:g} ms, mean payload and answer"
    note += f"; {100 * loss:g} % of the packets go again" if loss else ""
    note += f"; {jitter:g} ms of jitter a way" if jitter else ""
    constant = link_ms(0.0, 0.0, bandwidth, round_trip, loss, jitter)
    return combined("link_ms", "request", sizes, note, provenance="modelled", constant=constant)


def _total(shape: Shape, value: Value, device: list[str], link: Reading) -> Reading:
    """Milliseconds of the device, its link and the server."""
    factor = float(shape["device_factor"])
    factors = {**dict.fromkeys(device, factor), "decode": 1.0, "tail": 1.0}
    times: list[tuple[Reading | None, float]] = [
        (value("latency_ms", part), weight) for part, weight in factors.items()
    ]
    told = f"{factor:g} x ({' + '.join(device)}) + link + decode + tail; the parts are measured, the link is not"
    return combined("total_modelled_ms", "request", [*times, (link, 1.0)], told, provenance="modelled")
