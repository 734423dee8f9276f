"""`generate`: a prompt is read and n new tokens are written, greedily, without an end token.

The subject's module offers

- `prefill(ids) -> (logits, cache)`: `ids` a LongTensor [B, N]; `logits` [B, V] of the last position; `cache` whatever
  it keeps, any nesting of tensors, lists, dictionaries, dataclasses and objects. It may write nothing but what it
  returns.
- `decode(ids, cache) -> (logits, cache)`: `ids` a LongTensor [B, 1]; `logits` [B, V]. It may change the cache in place.

and may offer

- `example_ids(batch, context, seed) -> LongTensor [B, N]`; else a subject that has learned a text reads held-out text
  of its task; else the first input of its forward is cut to that size, if it is a LongTensor at least as large; else
  `vocabulary` (an int) bounds seeded random ids;
- `copy_cache(cache)`, where a deep copy is not one;
- `cache_bytes(cache) -> int`, where a preallocated cache is not full: the bytes in use;
- `cache_bits() -> {"nominal": bits, "stored": bits}` per element of the dense cache;
- `visual_tokens() -> [int, ...]`: of a model that reads pictures, how many of their tokens entered each layer in the
  last prompt;
- `encode_pictures(ids) -> Tensor`, where a prompt holds pictures that something encodes before the decoder reads them:
  that part of the prefill by itself, which is then a part `encoder` of the run; None where there is nothing to encode;
- `method_bytes() -> int`: codebooks, predictors and the like, which are neither weights nor cache;
- `write(ids, new) -> LongTensor [B, new]`, where the whole answer is not one step a token: drafts that are verified
  several at
  once, a search. It then is the request; prefill and decode stay one prompt and one plain step of the same module;
- `answer_tokens(new) -> int`: how many of the `new` tokens `write` really writes, where they are fewer;
- `written() -> {metric: value}`: what the last `write` says of itself, by names of `WRITTEN`;
- `judged() -> {metric: value}`: of a search, how well its choices agree with those of one that leaves nothing out, by
  names of `JUDGED`; asked once, apart from everything that is timed;
- `writes_alike = True`, where `write` multiplies the same whatever it finds, so that meta tensors count it too.

State is the cache alone. A decode step runs on a copy of the cache after the prompt, made outside the clock, so that
the context does not drift from run to run.

Where there is held-out text, a prompt and a step are counted on several prompts: if they cost more or less on another,
their products have a mean, percentiles and a curve (over_prompts.py); and the answers of a case are set beside those of
its other side (text_divergence.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from bench.errors import UsageError
from bench.reading import Curve, Reading, reading, unavailable
from bench.sample_sizes import sure_percentile
from bench.workloads import over_prompts, routing, text_divergence
from bench.workloads.deriving import Value, combined, derived
from bench.workloads.prompts import held_out, origin_of, prompt_of
from bench.workloads.workload import (
    BATCH,
    Built,
    Clock,
    Count,
    Facts,
    Part,
    Shape,
    ShapeAxis,
    Spans,
    Workload,
    ask,
    clock_of,
    on_meta,
    repeated,
    require,
)

CONTEXT = ShapeAxis("context", 128, unit="token", doc="tokens of the prompt, N")
NEW_TOKENS = ShapeAxis(
    "new_tokens", 16, unit="token", doc="tokens that are written, n: one prefill and n - 1 decode steps"
)

WORKLOAD = Workload(
    "generate",
    unit="token",
    parts=("request", "prefill", "decode"),
    axes=(BATCH, CONTEXT, NEW_TOKENS),
    title="a prompt of `context` tokens, then `new_tokens` tokens, greedy",
    calls=("prefill", "decode"),
    may_call=("encode_pictures",),
)


#: The part of a model that reads pictures: what it does with them before its decoder.
ENCODER = "encoder"
#: The span of a request after its first token, as the steps of a plain loop write it.
LATER = "output_tokens"
#: What a module that writes in its own way may say of it, and of these what is a rate of its drafts.
WRITTEN = ("tokens_per_step", "draft_acceptance", "tokens_written", "tokens_scored", "needed_share")
OF_DRAFTS = ("tokens_per_step", "draft_acceptance")
#: What a search may say of its choices.
JUDGED = ("reward_correlation", "choice_agreement")
#: Held-out prompts that drafts are judged on: the few tokens of one answer say little.
DRAFTED = 16


@dataclass(frozen=True)
class _Writer:
    """A module that reads a prompt and writes tokens; every tensor that it makes is an ordinary one."""

    module: Any
    prompt: Any

    def read(self) -> tuple[Any, Any]:
        """The first new id [B, 1], chosen, and the cache after the prompt."""
        logits, cache = self.module.prefill(self.prompt)
        return _choice(logits), cache

    def step(self, ids: Any, cache: Any) -> tuple[Any, Any]:
        """The next id [B, 1] and the cache after `ids`."""
        logits, cache = self.module.decode(ids, cache)
        return _choice(logits), cache

    def request(self, count: int, spans: Spans) -> Any:
        """All new ids [B, n] on the host; the first is on the host before the second is begun, unless the module
        writes.
        """
        if callable(getattr(self.module, "write", None)):
            return self._by_the_module(count, spans)
        with spans.span("first_token"):
            ids, cache = self.read()
            first = _on_host(ids)
        later = []
        with spans.span(LATER):
            for _ in range(count - 1):
                ids, cache = self.step(ids, cache)
                later.append(ids)
            return _joined(first, later)

    def _by_the_module(self, count: int, spans: Spans) -> Any:
        if on_meta(self.prompt) and not getattr(self.module, "writes_alike", False):
            raise NotImplementedError("what is written depends on values, which meta tensors have none of")
        with spans.span("answer"):
            return _on_host(self.module.write(self.prompt, count))

    def copied(self, cache: Any) -> Any:
        """A cache of its own, equal to this one."""
        from bench.tensors import copy_of

        own = ask(self.module, "copy_cache", cache)
        return copy_of(cache, self.module) if own is None else own


class _Step:
    """One decode step after the prompt, on a cache of its own each time.

    On the meta device every run gives the same shapes: the prompt that was read for its own count is not read again.
    """

    def __init__(self, writer: _Writer) -> None:
        self._writer, self._of_shapes = writer, on_meta(writer.prompt)
        self._first: tuple[Any, Any] | None = None
        self.cache: Any = None
        self._ids: Any = None

    def read(self) -> Any:
        """Read the prompt: the first new id, on the host."""
        first = self._writer.read()
        if self._of_shapes:
            self._first = first
        return _on_host(first[0])

    def prepare(self) -> None:
        """A fresh copy of the cache after the prompt, which is read once."""
        from bench.tensors import ordinary_tensors

        with ordinary_tensors():
            if self._first is None:
                self._first = self._writer.read()
            self._ids, kept = self._first
            self.cache = self._writer.copied(kept)

    def call(self) -> Any:
        """The id after the first new one."""
        ids, after = self._writer.step(self._ids, self.cache)
        if self._of_shapes:
            self.cache = after
        return ids

    def held(self) -> Any:
        """The id that is fed and the cache that it is fed to."""
        return self._ids, self.cache

    def reset(self) -> None:
        """Let the used cache go; one of shapes stays, for who asks for the cache after the step."""
        if not self._of_shapes:
            self.cache = None


def make_parts(subject: Built, shape: Shape) -> list[Part]:
    """The request, its prefill until the first id is on the host, and one decode step at that context.

    A model that reads pictures has its encoder as a fourth, which is inside the prefill too.

    Raises:
        UsageError: the module lacks a call, or nothing says what ids it reads.
    """
    require(subject.module, WORKLOAD.name, "prefill", "decode")
    writer = _Writer(subject.module, prompt_of(subject, shape))
    spans = Spans(subject.synchronise, clock_of(subject))
    step = _Step(writer)
    batch, context, new = shape["batch"], shape["context"], shape["new_tokens"]
    request = Part(
        "request",
        lambda: writer.request(new, spans),
        units=float(batch * (ask(subject.module, "answer_tokens", new) or new)),
        prepare=spans.clear,
        spans=spans.read,
        held=lambda: writer.prompt,
    )
    return [
        _of_its_parts(request, writer) if _is_both(writer, new) else request,
        Part(
            "prefill",
            step.read,
            units=float(batch * context),
            held=lambda: writer.prompt,
        ),
        Part(
            "decode",
            step.call,
            units=float(batch),
            prepare=step.prepare,
            reset=step.reset,
            held=step.held,
        ),
        *_encoder(subject, writer, batch),
    ]


def _is_both(writer: _Writer, new: int) -> bool:
    """Whether a request is its prompt and one step, whatever they give: two tokens of shapes, not written otherwise."""
    return new == 2 and on_meta(writer.prompt) and not callable(getattr(writer.module, "write", None))


def _of_its_parts(request: Part, writer: _Writer) -> Part:
    """The request as its prompt, its step, and both ids put together."""
    ids = writer.prompt.new_empty((len(writer.prompt), 1))
    return replace(request, made_of=("prefill", "decode"), besides=lambda: _joined(ids, [ids]))


def _encoder(subject: Built, writer: _Writer, batch: int) -> list[Part]:
    """What a model that reads pictures does before its decoder; nothing for others."""
    if not callable(getattr(subject.module, "encode_pictures", None)):
        return []
    return [
        Part(
            ENCODER,
            lambda: subject.module.encode_pictures(writer.prompt),
            units=float(batch),
            held=lambda: writer.prompt,
        )
    ]


def facts(subject: Built, shape: Shape, parts: list[Part]) -> Facts:
    """Times between tokens from synchronised passes, their curve over the context, and the cache after the request."""
    from bench.tensors import ordinary_tensors

    with ordinary_tensors():
        writer = _Writer(subject.module, prompt_of(subject, shape))
        cache = _cache_counted(parts) if _is_both(writer, shape["new_tokens"]) else None
        cache = _cache_after(writer, shape["new_tokens"]) if cache is None else cache
        readings = [*_cache_readings(subject.module, cache, shape), *_bit_readings(subject.module)]
        seen = _visual_tokens(subject.module)
        readings += [mean for mean, _ in seen]
        curves = [curve for _, curve in seen]
        readings += [*_written_readings(writer, subject, shape), *_judged_readings(writer), *_routed_readings(writer)]
        details = {"prompt": origin_of(subject, shape)}
        if on_meta(writer.prompt) or shape["new_tokens"] < 2:
            why = "meta tensors take no time" if on_meta(writer.prompt) else "one new token has no time between tokens"
            return Facts([*readings, *(unavailable(name, why, "request") for name in _GAPS.values())], curves, details)
        gaps = _gaps(writer, shape["new_tokens"], subject.synchronise, clock_of(subject))
    return Facts([*readings, *_gap_readings(gaps)], [*curves, _gap_curve(gaps, shape["context"])], details)


def counts(subject: Built, shape: Shape, parts: list[Part], count: Count) -> Facts:
    """Products of a prompt and of a step over held-out prompts, where they depend on the prompt."""
    prompts = held_out(subject, over_prompts.SAMPLE, shape["context"])
    if prompts is None or subject.device == "meta":
        return Facts()
    groups = prompts.to(subject.device).split(shape["batch"])
    whole = [group for group in groups if len(group) == shape["batch"]]
    return over_prompts.spread(whole, partial(_parts_at, subject.module), count)


def _parts_at(module: Any, prompt: Any) -> dict[str, Part]:
    """The prompt and one step after it, of other ids than the case's."""
    writer = _Writer(module, prompt)
    step = _Step(writer)
    return {
        "prefill": Part("prefill", lambda: writer.read()[0]),
        "decode": Part("decode", step.call, prepare=step.prepare, reset=step.reset),
    }


def against(subject: Built, other: Built, shape: Shape) -> list[Reading]:
    """How far what is said is from what the other side says after the same held-out text; nothing where there is none.

    Args:
        subject: the case's.
        other: its other side's, in the same process.
        shape: of both.
    """
    texts = held_out(subject, text_divergence.TEXTS, text_divergence.LENGTH)
    if texts is None:
        return []
    return text_divergence.readings(subject.module, other.module, texts.to(subject.device))


def _visual_tokens(module: Any) -> list[tuple[Reading, Curve]]:
    """Mean over layers of the visual tokens that entered them in the last prompt, and the curve; if any are read."""
    counts = ask(module, "visual_tokens")
    if not counts:
        return []
    note = "the module's own account of one row of the prompt"
    mean = reading("visual_tokens_mean", sum(counts) / len(counts), "counted", method_note=note, part="prefill")
    layers = list(range(len(counts)))
    return [(mean, Curve("visual_tokens_mean", "layer", layers, counts, "counted", "prefill", note))]


def _cache_counted(parts: Sequence[Part]) -> Any:
    """The cache after the step that was counted, of shapes; None where none was."""
    step = next(part for part in parts if part.name == "decode")
    return None if step.held is None else step.held()[1]


def _cache_after(writer: _Writer, new: int) -> Any:
    ids, cache = writer.read()
    for _ in range(new - 1):
        ids, cache = writer.step(ids, cache)
    return cache


def _cache_readings(module: Any, cache: Any, shape: Shape) -> list[Reading]:
    from bench.tensors import held_bytes, weights_of

    allocated = held_bytes(cache, without=weights_of(module))
    own = ask(module, "cache_bytes", cache)
    used = allocated if own is None else int(own)
    tokens = shape["context"] + shape["new_tokens"] - 1
    how = "storages of everything found in the cache" if own is None else "the module's own account"
    note = f"{how}, after {tokens} tokens of each of {shape['batch']} sequences"
    counted: dict[str, Any] = {"provenance": "counted", "method_note": note, "part": "request"}
    return [
        reading("cache_bytes", used, **counted),
        reading("cache_allocated_bytes", allocated, **counted),
        reading("cache_bytes_per_token", used / (shape["batch"] * tokens), **counted),
    ]


def _written_readings(writer: _Writer, subject: Built, shape: Shape) -> list[Reading]:
    """What a module that writes in its own way says of one answer, and of its drafts over held-out prompts."""
    if not callable(getattr(writer.module, "written", None)) or on_meta(writer.prompt):
        return []
    said = _said(writer.module, writer.prompt, shape["new_tokens"])
    found = _accounts({name: said[name] for name in WRITTEN if name in said}, "of one answer to the same prompt")
    prompts = held_out(subject, DRAFTED, shape["context"]) if said.keys() & set(OF_DRAFTS) else None
    if prompts is None:
        return found
    drafted = _said(writer.module, prompts.to(subject.device), shape["new_tokens"])
    rates = _accounts({name: drafted[name] for name in OF_DRAFTS if name in drafted}, f"of {DRAFTED} held-out prompts")
    return [*(item for item in found if item.metric not in OF_DRAFTS), *rates]


def _said(module: Any, prompt: Any, new: int) -> dict[str, Any]:
    """What a module says of its answer to a prompt.

    Raises:
        UsageError: it names a metric that is not one of them.
    """
    module.write(prompt, new)
    said = module.written()
    _check_names(module, "written", said, WRITTEN)
    return said


def _check_names(module: Any, call: str, said: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(said) - set(known))
    if unknown:
        raise UsageError(f"{type(module).__name__}.{call}() names {unknown[0]}: only {', '.join(known)} are known")


def _accounts(said: dict[str, Any], what: str) -> list[Reading]:
    note = f"the module's own account {what}"
    return [
        reading(name, value, "counted", method_note=note, part="request")
        if value is not None
        else unavailable(name, "nothing was drafted or scored in this answer", "request")
        for name, value in said.items()
    ]


def _judged_readings(writer: _Writer) -> list[Reading]:
    """How well a search's choices agree with those of one that leaves nothing out; nothing of other subjects."""
    said = None if on_meta(writer.prompt) else ask(writer.module, "judged")
    if not said:
        return []
    _check_names(writer.module, "judged", said, JUDGED)
    note = "the module's own account over held-out problems of its task"
    why = "too few unfinished steps were judged, or all alike"
    return [
        unavailable(name, why, "request")
        if value is None
        else reading(name, value, "measured", method_note=note, part="request")
        for name, value in said.items()
    ]


def _routed_readings(writer: _Writer) -> list[Reading]:
    """Experts that the prompt and the step after it hit, of a mixture of experts."""
    if on_meta(writer.prompt) or not callable(getattr(writer.module, "modules", None)):
        return []
    found = routing.readings(writer.module, writer.read, "prefill")
    if not found:
        return []
    read = writer.read()
    return [*found, *routing.readings(writer.module, lambda: writer.step(*read), "decode")]


def _bit_readings(module: Any) -> list[Reading]:
    bits = ask(module, "cache_bits") or {}
    own = ask(module, "method_bytes")
    found = [] if own is None else [reading("method_bytes", own, "counted", method_note="the module's own account")]
    for kind in ("nominal", "stored"):
        if bits.get(kind) is None:
            found.append(unavailable(f"kv_bits_{kind}", "the module offers no cache_bits()"))
        else:
            note = "the module's own account"
            found.append(reading(f"kv_bits_{kind}", bits[kind], "counted", method_note=note))
    return found


_GAPS = {0.5: "inter_token_p50_ms", 0.95: "inter_token_p95_ms"}


def _gaps(writer: _Writer, new: int, synchronise: Callable[[], None], clock: Clock) -> list[list[float]]:
    """Milliseconds of every decode step of each pass."""

    def one_pass() -> list[float]:
        spans = Spans(synchronise, clock)
        ids, cache = writer.read()
        for _ in range(new - 1):
            with spans.span("step"):
                ids, cache = writer.step(ids, cache)
        return spans.read()["step"]

    return repeated(one_pass, clock)


def _gap_readings(passes: list[list[float]]) -> list[Reading]:
    gaps = [gap for one in passes for gap in one]
    found = []
    for q, metric in _GAPS.items():
        value, why = sure_percentile(gaps, q)
        if value is None:
            found.append(unavailable(metric, why, "request"))
            continue
        note = f"{len(gaps)} tokens of {len(passes)} requests in one process, each step synchronised"
        found.append(reading(metric, value, "measured", n=1, method_note=note, part="request"))
    return found


def _gap_curve(passes: list[list[float]], context: int) -> Curve:
    medians = [statistics.median(step) for step in zip(*passes, strict=True)]
    keys = [context + 1 + index for index in range(len(medians))]
    note = f"median of {len(passes)} requests in one process, each step synchronised; context: keys with the new one"
    return Curve("latency_ms", "context", keys, medians, "measured", "decode", note)


def spanned(
    spans: Sequence[Mapping[str, Sequence[float]]], wholes: Sequence[Sequence[float]], details: Mapping[str, Any]
) -> list[Reading]:
    """The time after the first token inside the timed requests; nothing of a module that writes by itself.

    Args:
        spans: per process, milliseconds of every span in each of its runs.
        wholes: per process, milliseconds of the same runs.
        details: what `facts` told.
    """
    if any(LATER not in each for each in spans):
        return []
    from bench.statistics import GEOMETRIC, log_mean_interval

    found = log_mean_interval([statistics.median(each[LATER]) for each in spans])
    note = f"inside the requests of {len(spans)} processes"
    told: dict[str, Any] = {"n": found.n, "statistic": GEOMETRIC, "method_note": note, "part": "request"}
    return [reading("later_tokens_ms", found.value, "measured", ci_low=found.low, ci_high=found.high, **told)]


def derive(shape: Shape, value: Value) -> list[Reading]:
    """Time to first token, time per output token, output tokens per second; the first token without its pictures."""
    batch = shape["batch"]
    request, prefill = value("latency_ms", "request"), value("latency_ms", "prefill")
    first = derived("time_to_first_token_ms", "request", prefill, lambda ms: ms, "time of the part prefill")
    later, written = value("later_tokens_ms", "request"), value("tokens_written", "request")
    per_token = _per_output_token(shape, later, [(request, 1.0), (prefill, -1.0)], written)
    note = f"{batch} tokens over the time per output token"
    rate = derived("output_tokens_per_s", "request", per_token, lambda ms: 1e3 * batch / ms, note, falling=True)
    return [first, per_token, rate, *_without_pictures(prefill, value("latency_ms", ENCODER))]


def _without_pictures(prefill: Reading | None, encoder: Reading | None) -> list[Reading]:
    """The encoder's time and what is left of the time to first token without it, where there is an encoder."""
    if encoder is None:
        return []
    alone = combined("prefill_alone_ms", "request", [(prefill, 1.0), (encoder, -1.0)], "prefill - encoder")
    return [derived("encoder_ms", "request", encoder, lambda ms: ms, "time of the part encoder"), alone]


def _per_output_token(
    shape: Shape, later: Reading | None, difference: list[tuple[Reading | None, float]], written: Reading | None
) -> Reading:
    """The time after the first token over the tokens after it; of the difference where requests tell no such time."""
    new, metric = shape["new_tokens"], "time_per_output_token_ms"
    if written is not None and written.value is not None and written.value < shape["batch"] * new:
        why = f"{written.value:g} of {shape['batch'] * new} tokens are written: the rest of the answer is filled up"
        return unavailable(metric, why, "request")
    if new < 2:
        return unavailable(metric, "one new token: nothing is written after the first", "request")
    known = later is not None and later.value is not None
    terms = [(later, 1.0)] if known else difference
    how = "time after the first token" if known else "(request - prefill)"
    mean = shape["context"] + new / 2
    note = f"{how} / {new - 1}; n = {new}, mean context {mean:g}; no synchronisation per token"
    return combined(metric, "request", [(source, factor / (new - 1)) for source, factor in terms], note)


def _choice(logits: Any) -> Any:
    return logits.argmax(-1, keepdim=True)


def _on_host(ids: Any) -> Any:
    """The ids on the host, for which the device has to finish; shapes have nothing to bring there."""
    return ids if on_meta(ids) else ids.cpu()


def _joined(first: Any, later: list[Any]) -> Any:
    import torch

    return torch.cat([first, _on_host(torch.cat(later, 1))], 1) if later else first
