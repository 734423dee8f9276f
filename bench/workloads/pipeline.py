"""`pipeline`: one encoded request through its stages, one after another, to the answer.

The subject's module offers

- `stages() -> list of (name, callable)`: in order; the first takes a request, each next what the one before gave, the
  last gives the answer. Names are unique and none is `request`. A stage that a variant does not have is absent, and
  what is done in one go is one stage with its own name;
- `example_request(i)`: request i, seeded, of any type (bytes, an array, a tensor);

and may offer

- `network_stage`: the name of the stage that runs the network, else `infer`;
- `requests` (an int, 8): how many different requests are taken in turn.

State is the request, which a stage may change in place: every run gets a copy of its own, made outside the clock. One
run is one request; more of them at once are the business of a stage (a batching window, say).

Three measurements share no column: the time of one request and of each stage (parts); how many requests are answered
where one is always ready (`saturated_rate`); and with a `rate` the time in system of requests that arrive in an open
loop (`bench.workloads.load`). Equal seeds give every method the same arrivals. A case whose backlog grows at its rate
is `unstable`. With `servers` the last two are those of so many processes, each pinned to a core of its own; one unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.errors import UsageError
from bench.flags import flag
from bench.reading import Reading, reading, unavailable
from bench.workloads import load, open_loop, servers
from bench.workloads.workload import Built, Facts, Part, Shape, ShapeAxis, Spans, Workload, clock_of, require

WORKLOAD = Workload(
    "pipeline",
    unit="request",
    parts=("request",),
    axes=(
        ShapeAxis("batch", 1, 1, 1, unit="request", doc="requests of one run: always one"),
        ShapeAxis(
            "rate", None, 1e-3, 1e6, unit="request/s", doc="offered in an open loop of arrivals; null: no such loop"
        ),
        ShapeAxis("seconds", 10, 1, 60, unit="s", doc="about how long each run of the loop offers requests"),
        ShapeAxis("servers", 1, 1, 1024, unit="process", doc="that answer under load, each on a core of its own"),
    ),
    title="one encoded request to its answer, stage by stage",
    calls=(),
)

REQUESTS = 8
#: Passes over all requests from which shares are taken, after one that is not kept.
PASSES = 5
#: Bytes of tensors of the requests that wait for their arrival in an open loop, at most.
WAITING_BYTES = 2**30
#: Share of a request that no stage may leave unexplained without a flag, in per cent.
UNTIMED = 2.0

Stage = tuple[str, Callable[[Any], Any]]


class _Chain:
    """Stages in order and the requests that pass them in turn."""

    def __init__(self, subject: Built) -> None:
        require(subject.module, WORKLOAD.name, "stages", "example_request")
        self.module = subject.module
        self.stages: list[Stage] = _checked_stages(subject.module)
        self.count = int(getattr(subject.module, "requests", REQUESTS))
        self.network = str(getattr(subject.module, "network_stage", "infer"))
        self._requests: dict[int, Any] = {}

    def request(self, index: int) -> Any:
        """A copy of its own of request `index`, counted round."""
        from bench.tensors import copy_of

        place = index % self.count
        if place not in self._requests:
            self._requests[place] = self.module.example_request(place)
        return copy_of(self._requests[place], self.module)

    def before(self, position: int, index: int) -> Any:
        """What the stage at a position is given of request `index`."""
        value = self.request(index)
        for _, stage in self.stages[:position]:
            value = stage(value)
        return value

    def answer(self, request: Any, spans: Spans) -> Any:
        """The answer to a request, each stage in a span of its name."""
        value = request
        for name, stage in self.stages:
            with spans.span(name):
                value = stage(value)
        return value


class _Turn:
    """One stage, or all of them, on the next request each run."""

    def __init__(self, chain: _Chain, run: Callable[[Any], Any], position: int = 0) -> None:
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
        """Let go of what was given."""
        self.given = None


def make_parts(subject: Built, shape: Shape) -> list[Part]:
    """The request, with a span per stage, then every stage by itself on what the stages before it give.

    Raises:
        UsageError: the module lacks a call, or its stages have no names of their own.
        NotImplementedError: this machine has no core for every server.
    """
    import torch

    chain = _Chain(subject)
    if subject.device != "meta":  # where nothing is run there is nobody to serve
        servers.check(shape["servers"], subject.device, torch.get_num_threads())
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


def _stage_part(chain: _Chain, position: int) -> Part:
    name, stage = chain.stages[position]
    turn = _Turn(chain, stage, position)
    return Part(name, turn.call, prepare=turn.prepare, reset=turn.reset, held=lambda: turn.given, varies=True)


def facts(subject: Built, shape: Shape, parts: list[Part]) -> Facts:
    """Each stage's share of the request, as a ratio of sums over the same requests; what is answered under load."""
    chain = _Chain(subject)
    if subject.device == "meta":
        why = "meta tensors take no time"
        names = [name for name, _ in chain.stages]
        return Facts([unavailable("stage_share", why, name) for name in names])
    stages, whole = _sums(chain, subject)
    if whole <= 0:
        return Facts([unavailable("stage_share", "the requests took no time", name) for name in stages])
    under_load = _under_load(chain, subject, shape)
    readings = _share_readings(chain, stages, whole)
    untimed = 100 * (whole - sum(stages.values())) / whole
    flags = []
    if untimed > UNTIMED:
        text = f"{untimed:.1f} % of the request belong to no stage"
        flags.append(flag("untimed_share", "warn", text))
    details = {"stages": list(stages), "requests": chain.count, "passes": PASSES, **under_load.details}
    return Facts([*readings, *under_load.readings], details=details, flags=[*flags, *under_load.flags])


def _under_load(chain: _Chain, subject: Built, shape: Shape) -> Facts:
    """The saturated rate, and with a rate an open loop, whose requests are ready before it begins."""
    site = load.Site(shape["servers"], clock_of(subject), getattr(subject, "wait_until", open_loop.spin_until))
    seconds = load.SATURATED_SHARE * shape["seconds"]
    whole = load.saturated(_answers(chain, subject), site, seconds)
    alone, why = _network_alone(chain, subject)
    network = None if alone is None else load.saturated(alone, site, seconds)
    found = Facts(load.saturated_readings(whole, network, why, site.how))
    rate = shape["rate"]
    if rate is None:
        return found
    count = _affordable(chain, open_loop.requests_at(rate, shape["seconds"]))
    ready = _answers(chain, subject)
    loops = load.arrivals(lambda most: [ready(index) for index in range(most)], site, rate, count, subject.seed)
    arriving = load.loop_facts(loops, sum(whole) / len(whole), site.how)
    return Facts([*found.readings, *arriving.readings], details=arriving.details, flags=arriving.flags)


def facts_seconds(shape: Shape) -> float:
    """About how long the requests under load take, whatever one of them costs."""
    saturated = 2 * load.SATURATED_SHARE * shape["seconds"]
    if shape["rate"] is None:
        return load.RUNS * saturated
    offered = open_loop.requests_at(shape["rate"], shape["seconds"]) / shape["rate"]
    return load.RUNS * (saturated + min(offered, open_loop.MOST_SECONDS))


def _answers(chain: _Chain, subject: Built) -> load.Ready:
    """Takes a request out of the clock and gives the call that answers it."""

    def ready(index: int) -> Callable[[], Any]:
        request = chain.request(index)
        spans = Spans(subject.synchronise, clock_of(subject))
        return lambda: chain.answer(request, spans)

    return ready


def _network_alone(chain: _Chain, subject: Built) -> tuple[load.Ready | None, str]:
    """The stage that runs the network, on what the stages before it give; None and why there is none."""
    position = next((at for at, (name, _) in enumerate(chain.stages) if name == chain.network), None)
    if position is None:
        return None, f"no stage is called {chain.network}"
    stage = chain.stages[position][1]

    def ready(index: int) -> Callable[[], Any]:
        given = chain.before(position, index)

        def run() -> None:
            stage(given)
            subject.synchronise()

        return run

    return ready, ""


def _affordable(chain: _Chain, count: int) -> int:
    """As many requests as can wait at once, each with tensors of its own."""
    from bench.tensors import held_bytes

    largest = max(held_bytes(chain.request(index)) for index in range(chain.count))
    return count if not largest else max(open_loop.LEAST_REQUESTS, min(count, WAITING_BYTES // largest))


def _share_readings(chain: _Chain, stages: dict[str, float], whole: float) -> list[Reading]:
    note = f"ratio of sums over {PASSES} x {chain.count} requests in one process"
    shares = {name: 100 * spent / whole for name, spent in stages.items()}
    found = [
        reading("stage_share", share, "measured", n=1, part=name, method_note=note) for name, share in shares.items()
    ]
    rest = max(0.0, 100 - sum(shares.values()))
    found.append(reading("untimed_share", rest, "measured", n=1, part="request", method_note=note))
    if chain.network not in shares:
        return [*found, unavailable("nonnetwork_share", f"no stage is called {chain.network}", "request")]
    outside = 100 - shares[chain.network]
    return [*found, reading("nonnetwork_share", outside, "measured", n=1, part="request", method_note=note)]


def _sums(chain: _Chain, subject: Built) -> tuple[dict[str, float], float]:
    """Milliseconds of every stage and of whole requests, summed over the same requests; the first pass is not kept."""
    clock = clock_of(subject)
    stages: dict[str, list[float]] = {name: [] for name, _ in chain.stages}
    whole = []
    for turn in range((1 + PASSES) * chain.count):
        request = chain.request(turn)
        spans = Spans(subject.synchronise, clock)
        start = clock()
        chain.answer(request, spans)
        spent = (clock() - start) / 1e6
        if turn < chain.count:
            continue
        whole.append(spent)
        for name, times in spans.read().items():
            stages[name] += times
    return {name: sum(times) for name, times in stages.items()}, sum(whole)


def _checked_stages(module: Any) -> list[Stage]:
    stages = [(str(name), stage) for name, stage in module.stages()]
    names = [name for name, _ in stages]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not stages or twice or "request" in names:
        wrong = (
            f"{', '.join(twice)} more than once" if twice else "no stage" if not stages else "a stage called request"
        )
        raise UsageError(f"{type(module).__name__}.stages() gives {wrong}: every stage has a name of its own")
    return stages
