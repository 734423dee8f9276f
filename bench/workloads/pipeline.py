"""`pipeline`: one encoded request through its stages, one after another, to the answer.

The subject's module offers

- `stages() -> list of (name, callable)`: in order; the first takes a request, each next what the one before gave, the
  last gives the answer. Names are unique and none is `request`. A stage that a variant does not have is absent, and
  what is done in one go is one stage with its own name;
- `example_request(i)`: request i, seeded, of any type (bytes, an array, a tensor);

and may offer

- `network_stage`: the name of the stage that runs the network, else `infer`;
- `requests` (an int, 8): how many different requests are taken in turn;
- `preprocess_stages`, `transfer_stages`: names of neighbouring stages whose own rates are told;
- `collate_stage`: the first stage that also takes a list, of what several requests came to, for the shape `together`;
- `frames_per_request`, for `frame_rate`;
- `exchange`: names of a stage that opens an exchange and of the one that ends it, so that before the second is run
  alone the first is run, outside the clock;
- `put_back()`: called after every run, outside the clock, where a stage leaves something open (an exchange);
- `request_facts() -> {"bytes": ..., "width": ..., "height": ..., "bits_per_pixel": ...}` of what is sent, means;
- `pixel_difference(i) -> float`: largest difference of what the network sees to a reference chain, in levels of 255;
- `modelled() -> (readings, curves)`: what a cost model says beside what is measured;
- `expected_sojourn_ms(rate, servers, arrivals) -> float or None`: the closed form of its queue, where there is one;
- `details() -> dict` for the record: threads of libraries, where a client runs.

State is the request, which a stage may change in place: every run gets a copy of its own, made outside the clock. One
run is one request.

Three measurements share no column: the time of one request and of each stage (parts; shares are ratios of sums, over
requests in one process and, with an interval, over the timed processes); how many requests are answered where one is
always ready (`saturated_rate`, and its sections'); and with a `rate`, or a `load` of the saturated rate, the time in
system of requests that arrive in an open loop (`bench.workloads.load`), or with `rising` of loads one after another
until one is unstable (`bench.workloads.rising`). Equal seeds give every method the same arrivals. A case whose backlog
grows is `unstable`; one whose arrivals a free server took late is `contaminated`. With `servers` the last two are those
of so many processes, each pinned to a core of its own; one unit. With `workers` so many forks do what stands before
`collate_stage` ahead of a saturated server (`bench.workloads.workers`), and what handing their tensors over takes is
told. With `together` a server answers so many requests at once at most, and the first waits `window_ms` for the others
(`bench.workloads.together`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.flags import flag
from bench.reading import Curve, Reading, reading, unavailable
from bench.workloads import pipeline_rates, servers, workers
from bench.workloads.pipeline_chain import Chain
from bench.workloads.workload import Built, Facts, Part, Shape, ShapeAxis, Spans, Workload, ask, clock_of

WORKLOAD = Workload(
    "pipeline",
    unit="request",
    parts=("request",),
    axes=(
        ShapeAxis("batch", 1, 1, 1, unit="request", doc="requests of one run: always one"),
        ShapeAxis(
            "rate", None, 1e-3, 1e6, unit="request/s", doc="offered in an open loop of arrivals; null: no such loop"
        ),
        ShapeAxis("load", None, 1e-3, 10.0, doc="the same as a share of the row's own saturated rate"),
        ShapeAxis("seconds", 10, 1, 60, unit="s", doc="about how long each run of the loop offers requests"),
        ShapeAxis("servers", 1, 1, 1024, unit="process", doc="that answer under load, each on a core of its own"),
        ShapeAxis("workers", 0, 0, 1024, unit="process", doc="that pre-process ahead of a saturated server"),
        ShapeAxis("together", 1, 1, 1024, unit="request", doc="that a server answers at once under load, at most"),
        ShapeAxis("window_ms", 0.0, 0.0, 1e4, unit="ms", doc="that the first of them waits for the others"),
        ShapeAxis("limit_ms", None, 1e-3, 1e6, unit="ms", doc="within which an answer counts; null: no goodput"),
        ShapeAxis("arrivals", 1, 0, 2, doc="0: evenly spaced, 1: Poisson, 2: bursts at 3 times the rate", late=True),
        ShapeAxis("rising", 0, 0, 1, doc="1: loads from 0.3 on, one after another, until one is unstable", late=True),
    ),
    title="one encoded request to its answer, stage by stage",
    calls=(),
)

#: Passes over all requests from which shares are taken, after one that is not kept; of many requests so many.
PASSES, MOST_REQUESTS = 5, 32
#: Share of a request that no stage may leave unexplained without a flag, in per cent.
UNTIMED = 2.0
#: Empty spans from which the cost of a stamp is told.
STAMPS = 1000
#: What is told of requests, by the key of `request_facts`.
_SENT = {"bytes": "request_bytes", "pixels": "request_pixels", "bits_per_pixel": "bits_per_pixel"}


class _Turn:
    """One stage, or all of them, on the next request each run."""

    def __init__(self, chain: Chain, run: Callable[[Any], Any], position: int = 0) -> None:
        self._chain, self._run, self._position = chain, run, position
        self._index = -1
        self.given: Any = None

    def prepare(self) -> None:
        """What the next run is given, made from the next request."""
        from bench.tensors import ordinary_tensors

        self._index += 1
        with ordinary_tensors():
            self.given = self._chain.before(self._position, self._index)

    def call(self) -> Any:
        """What comes out."""
        return self._run(self.given)

    def reset(self) -> None:
        """Let go of what was given, and have the module put back what the run left open."""
        self.given = None
        ask(self._chain.module, "put_back")


def make_parts(subject: Built, shape: Shape) -> list[Part]:
    """The request, with a span per stage, then every stage by itself on what the stages before it give.

    Raises:
        UsageError: the module lacks a call, its stages have no names of their own, or the shape asks for what it has
            not.
        NotImplementedError: this machine has no core for every server.
    """
    import torch

    chain = Chain(subject)
    pipeline_rates.check(chain, shape)
    if subject.device != "meta":  # where nothing is run there is nobody to serve
        servers.check(shape["servers"], subject.device, torch.get_num_threads())
        workers.check(shape["workers"], subject.device, torch.get_num_threads(), shape["servers"])
    spans = Spans(subject.synchronise, clock_of(subject))
    whole = _Turn(chain, lambda request: chain.answer(request, spans))

    def prepare() -> None:
        spans.clear()
        whole.prepare()

    request = Part(
        "request",
        whole.call,
        prepare=prepare,
        reset=whole.reset,
        spans=spans.read,
        held=lambda: whole.given,
        varies=True,
    )
    return [request, *(_stage_part(chain, position) for position in range(len(chain.stages)))]


def _stage_part(chain: Chain, position: int) -> Part:
    name, stage = chain.stages[position]
    turn = _Turn(chain, stage, position)
    return Part(name, turn.call, prepare=turn.prepare, reset=turn.reset, held=lambda: turn.given, varies=True)


def facts(subject: Built, shape: Shape, parts: list[Part]) -> Facts:
    """Each stage's share of the request, as a ratio of sums over the same requests; what is answered under load."""
    chain = Chain(subject)
    modelled, curves = _modelled(chain)
    if subject.device == "meta":
        why = "meta tensors take no time"
        names = [name for name, _ in chain.stages]
        return Facts([*(unavailable("stage_share", why, name) for name in names), *modelled], curves)
    stages, whole, count = _sums(chain, subject)
    if whole <= 0:
        missing = [unavailable("stage_share", "the requests took no time", name) for name in stages]
        return Facts([*missing, *modelled], curves)
    means = {name: spent / count for name, spent in stages.items()}
    under_load = pipeline_rates.under_load(chain, subject, shape, means)
    sent, told = _sent(chain)
    note = f"ratio of sums over {count} requests in one process"
    shares = _share_readings({name: [spent] for name, spent in stages.items()}, [whole], chain.network, note)
    flags = [*_untimed(whole, sum(stages.values())), *under_load.flags]
    curves = [*curves, *under_load.curves]
    details = {
        "stages": list(stages), "network": chain.network, "requests": chain.count, "passes": PASSES,
        "stamp_ns": _stamp_ns(subject), **told, **under_load.details,
    }  # fmt: skip
    return Facts([*shares, *sent, *modelled, *under_load.readings], curves, details, flags)


def spanned(
    spans: Sequence[Mapping[str, Sequence[float]]], wholes: Sequence[Sequence[float]], details: Mapping[str, Any]
) -> list[Reading]:
    """Shares of the stages with their intervals, of the timed runs of several processes.

    Args:
        spans: per process, milliseconds of every stage in each of its runs.
        wholes: per process, milliseconds of the same runs.
        details: what `facts` told.
    """
    note = f"ratio of sums over the runs of each process, {len(spans)} processes"
    stages = {name: [sum(each[name]) for each in spans] for name in spans[0]}
    return _share_readings(stages, [sum(runs) for runs in wholes], str(details.get("network", "infer")), note)


def facts_seconds(shape: Shape) -> float:
    """About how long the requests under load take, whatever one of them costs."""
    return pipeline_rates.seconds_of(shape)


def _modelled(chain: Chain) -> tuple[list[Reading], list[Curve]]:
    """What the module's own cost model says."""
    readings, curves = ask(chain.module, "modelled") or ([], [])
    return list(readings), list(curves)


def _sent(chain: Chain) -> tuple[list[Reading], dict[str, Any]]:
    """What is sent, how far the network's input is from the reference chain's, and what else the module tells."""
    found: list[Reading] = []
    details = dict(ask(chain.module, "details") or {})
    sent = ask(chain.module, "request_facts")
    if sent is not None:
        details["sent"] = sent
        note = f"mean of {chain.count} requests"
        found += [
            reading(metric, sent[key], "measured", n=chain.count, part="request", method_note=note)
            for key, metric in _SENT.items()
            if key in sent
        ]
    apart = [ask(chain.module, "pixel_difference", index) for index in range(min(chain.count, MOST_REQUESTS))]
    if apart[0] is not None:
        note = f"largest of {len(apart)} requests"
        found.append(
            reading("pixel_difference", max(apart), "measured", n=len(apart), part="request", method_note=note)
        )
    return found, details


def _untimed(whole: float, stages: float) -> list[dict[str, str]]:
    untimed = 100 * (whole - stages) / whole
    if untimed <= UNTIMED:
        return []
    return [flag("untimed_share", "warn", f"{untimed:.1f} % of the request belong to no stage")]


def _share_readings(
    stages: Mapping[str, Sequence[float]], wholes: Sequence[float], network: str, note: str
) -> list[Reading]:
    """The shares of stages, of what no stage explains, and of all but the network; a value per process.

    Args:
        stages: per stage, its milliseconds in every process.
        wholes: milliseconds of the same requests in every process.
        network: the stage that runs it.
        note: how the shares were taken.
    """
    rest = [max(0.0, whole - sum(times[at] for times in stages.values())) for at, whole in enumerate(wholes)]
    found = [_share("stage_share", times, wholes, name, note) for name, times in stages.items()]
    found.append(_share("untimed_share", rest, wholes, "request", note))
    if network not in stages:
        return [*found, unavailable("nonnetwork_share", f"no stage is called {network}", "request")]
    outside = [whole - spent for spent, whole in zip(stages[network], wholes, strict=True)]
    return [*found, _share("nonnetwork_share", outside, wholes, "request", note)]


def _share(metric: str, times: Sequence[float], wholes: Sequence[float], part: str, note: str) -> Reading:
    """A share of sums in per cent; its interval by t over processes of log(share / (1 - share))."""
    from bench.statistics import logit_interval

    pooled = sum(times) / sum(wholes)
    values = [spent / whole for spent, whole in zip(times, wholes, strict=True)]
    told: dict[str, Any] = {"n": len(values), "part": part, "method_note": note}
    if len(values) == 1 or not all(0 < value < 1 for value in values):
        return reading(metric, 100 * pooled, "measured", **told)
    low, high = logit_interval(values, pooled)
    ends = {"ci_low": None if low is None else 100 * low, "ci_high": None if high is None else 100 * high}
    how = "ratio of sums, 95 % t-interval over processes on logits"
    return reading(metric, 100 * pooled, "measured", statistic=how, **ends, **told)


def _stamp_ns(subject: Built) -> float:
    """Nanoseconds that a span costs the request around it: what the instrument adds per stage."""
    clock = clock_of(subject)
    spans = Spans(subject.synchronise, clock)
    start = clock()
    for _ in range(STAMPS):
        with spans.span("nothing"):
            pass
    return (clock() - start) / STAMPS


def _sums(chain: Chain, subject: Built) -> tuple[dict[str, float], float, int]:
    """Milliseconds of every stage and of whole requests, summed over the same ones, and how many those are.

    The first pass is not kept.
    """
    clock = clock_of(subject)
    stages: dict[str, list[float]] = {name: [] for name, _ in chain.stages}
    whole, each = [], min(chain.count, MOST_REQUESTS)
    for turn in range((1 + PASSES) * each):
        request = chain.request(turn)
        spans = Spans(subject.synchronise, clock)
        start = clock()
        chain.answer(request, spans)
        spent = (clock() - start) / 1e6
        if turn < each:
            continue
        whole.append(spent)
        for name, times in spans.read().items():
            stages[name] += times
    return {name: sum(times) for name, times in stages.items()}, sum(whole), len(whole)
