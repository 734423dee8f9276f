"""A pipeline's sections under load: rates of the whole, of pre-processing, transfer and network alone; the bottleneck.

What the sections take of a server's time by the utilisation law, rho = saturated rate x mean service / servers, says
which of them it waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.errors import UsageError
from bench.flags import flag
from bench.reading import Reading, reading, unavailable
from bench.workloads import busy_cores, load, open_loop, queueing, rising, together, workers
from bench.workloads.pipeline_chain import Chain
from bench.workloads.workload import Built, Facts, Shape, Spans, ask, clock_of

#: Arrivals by their number on the axis of the shape.
ARRIVALS: tuple[queueing.Arrivals, ...] = ("fixed", "poisson", "bursty")
#: Bytes of tensors of the requests that wait for their arrival in an open loop, at most.
WAITING_BYTES = 2**30


def under_load(chain: Chain, subject: Built, shape: Shape, stage_ms: dict[str, float]) -> Facts:
    """The saturated rates, and with a rate or loads open loops, whose requests are ready before they begin.

    Args:
        chain: the subject's.
        subject: as built.
        shape: whole.
        stage_ms: mean milliseconds of every stage.
    """
    site = load.Site(shape["servers"], clock_of(subject), getattr(subject, "wait_until", open_loop.spin_until))
    seconds, most = load.SATURATED_SHARE * shape["seconds"], shape["together"]
    with busy_cores.watched() as cores:
        whole, handed_over = _whole(chain, subject, shape, site, seconds)
    cores.processes += shape["workers"] + (site.count if site.count > 1 else 0)  # which have ended with their runs
    alone, why = _section(chain, subject, (chain.network,), most)
    network = None if alone is None else load.saturated(alone, site, seconds, most)
    rate = sum(whole) / len(whole)
    found = [
        *load.saturated_readings(whole, network, why, site.how),
        *_sections(chain, subject, site, seconds),
        *_frames(chain, whole, site.how),
        *_handed_over(handed_over, shape["workers"]),
        *_cores(cores),
    ]
    busy = _utilisations(chain, rate, stage_ms, shape) if most == 1 else []
    details = {"bottleneck": max(busy, key=lambda item: item.value or 0.0).part} if busy else {}
    arriving = _arriving(chain, subject, shape, site, rate)
    flags = [*_books(busy), *_full(cores), *arriving.flags]
    return Facts([*found, *busy, *arriving.readings], arriving.curves, {**details, **arriving.details}, flags)


def _arriving(chain: Chain, subject: Built, shape: Shape, site: load.Site, saturated_rate: float) -> Facts:
    """What requests take that arrive by themselves, at one rate or at rising ones; nothing where none are offered."""
    if shape.get("rising"):
        return rising.facts(lambda rate: _loops(chain, subject, shape, site, rate), saturated_rate, site.how)
    offered = _offered(shape, saturated_rate)
    if offered is None:
        return Facts()
    loops = _loops(chain, subject, shape, site, offered)
    found = load.loop_facts(loops, saturated_rate, site.how, shape["limit_ms"])
    if shape["together"] == 1:
        return replace(found, readings=[*found.readings, *_expected(chain, shape, offered)])
    batches = [together.mean_together(loop) for loop in loops]
    note = f"at most {shape['together']}, within {shape['window_ms']:g} ms"
    return replace(found, readings=[load.over_runs("together_mean", batches, note), *found.readings])


def _expected(chain: Chain, shape: Shape, rate: float) -> list[Reading]:
    """The closed form of the queue, of a module that knows its service times."""
    kind = ARRIVALS[shape.get("arrivals", 1)]
    try:
        value = ask(chain.module, "expected_sojourn_ms", rate, shape["servers"], kind)
    except ValueError as error:
        return [unavailable("sojourn_expected_ms", str(error), "request")]
    if value is None:
        return []
    note = f"closed form: {kind} arrivals at {rate:g} per second, {shape['servers']} servers"
    return [reading("sojourn_expected_ms", value, "modelled", part="request", method_note=note)]


def _whole(
    chain: Chain, subject: Built, shape: Shape, site: load.Site, seconds: float
) -> tuple[list[float], list[workers.HandedOver]]:
    """Rates of the chain by run; with workers also what handing their tensors over took."""
    most = shape["together"]
    if not shape["workers"]:
        return load.saturated(_answers(chain, subject, most), site, seconds, most), []

    def answer(values: list[Any]) -> None:
        chain.rest(values)
        subject.synchronise()

    runs = [
        workers.run(
            lambda index: chain.alone(chain.request(index)), answer, shape["workers"], seconds=seconds, most=most,
            clock=site.clock,
        )
        for _ in range(load.RUNS)
    ]  # fmt: skip
    return [run.rate for run in runs], runs


def _handed_over(runs: list[workers.HandedOver], count: int) -> list[Reading]:
    """What a tensor's way from a worker to this process takes, of a case with workers."""
    if not runs:
        return []
    note = f"{runs[0].bytes} B written by one of {count} workers and read here, waiting left out; {len(runs)} runs"
    return [load.over_runs("hand_over_ms", [run.ms for run in runs], note)]


def _cores(found: busy_cores.BusyCores) -> list[Reading]:
    if found.cores is None:
        return [unavailable("cores_busy", "the kernel does not tell how long processes ran", "request")]
    note = f"of {found.usable} that {found.processes} processes may use, while the chain is saturated"
    return [reading("cores_busy", found.cores, "measured", n=1, part="request", method_note=note)]


def _full(found: busy_cores.BusyCores) -> list[dict[str, str]]:
    """A flag where the processes of the chain leave nothing of the cores: rates are then those of a full machine."""
    if not found.is_full or found.processes == 1:
        return []
    text = (
        f"{found.processes} processes keep {found.cores:.2f} of {found.usable} cores busy: nothing is left for whoever "
        "sends, so that rates are those of a full machine"
    )
    return [flag("cores_full", "warn", text)]


def seconds_of(shape: Shape) -> float:
    """About how long the requests under load take, whatever one of them costs."""
    saturated = 4 * load.SATURATED_SHARE * shape["seconds"]
    if shape.get("rising"):
        return load.RUNS * (saturated + len(rising.LOADS) * shape["seconds"])
    if shape["rate"] is None:
        return load.RUNS * (saturated + (shape["seconds"] if shape["load"] is not None else 0.0))
    offered = open_loop.requests_at(shape["rate"], shape["seconds"]) / shape["rate"]
    return load.RUNS * (saturated + min(offered, open_loop.MOST_SECONDS))


def check(chain: Chain, shape: Shape) -> None:
    """Raise UsageError unless rates and batches of the shape fit together and the subject can answer in batches."""
    offered = [name for name in ("rate", "load", "rising") if shape.get(name)]
    if len(offered) > 1:
        raise UsageError(f"{' and '.join(offered)} each say how much is offered: give one of them")
    if shape["workers"] and offered:
        raise UsageError(f"workers={shape['workers']}: they work ahead of a saturated server; leave {offered[0]} out")
    if shape["workers"] and chain.collate is None:
        raise UsageError(
            f"workers={shape['workers']}: {type(chain.module).__name__} has no stage up to which they could work; its "
            "collate_stage names the first that is the network's process's"
        )
    if shape["together"] == 1:
        return
    if shape["servers"] > 1:
        raise UsageError(f"together={shape['together']}: requests are answered together by one server; set servers=1")
    if chain.collate is None:
        raise UsageError(
            f"together={shape['together']}: {type(chain.module).__name__} has no stage that takes several requests; "
            "its collate_stage names the first that does"
        )


def _offered(shape: Shape, saturated_rate: float) -> float | None:
    """Requests per second of the open loop; None for no such loop."""
    if shape["load"] is not None:
        return shape["load"] * saturated_rate if saturated_rate > 0 else None
    return shape["rate"]


def _answers(chain: Chain, subject: Built, most: int = 1) -> load.Ready:
    """Takes requests out of the clock and gives the call that answers them."""
    if most > 1:
        return lambda index: _answer_together(chain, subject, range(most * index, most * (index + 1)))

    def ready(index: int) -> Callable[[], Any]:
        request = chain.request(index)
        spans = Spans(subject.synchronise, clock_of(subject))
        return lambda: chain.answer(request, spans)

    return ready


def _answer_together(chain: Chain, subject: Built, indices: range) -> Callable[[], Any]:
    requests = [chain.request(index) for index in indices]

    def answer() -> None:
        chain.rest([chain.alone(request) for request in requests])
        subject.synchronise()

    return answer


def _section(chain: Chain, subject: Built, names: tuple[str, ...], most: int = 1) -> tuple[load.Ready | None, str]:
    """Some neighbouring stages on what the stages before them give; None and why there are none."""
    places = [at for at, (name, _) in enumerate(chain.stages) if name in names]
    if not places:
        return None, f"no stage is called {' or '.join(names)}" if names else "it has no such stage"
    first, last = places[0], places[-1]
    if most > 1 and chain.collate is not None and first < chain.collate:
        most = 1

    def ready(index: int) -> Callable[[], Any]:
        value = chain.before(first, index, most)

        def run() -> None:
            passed = value
            for _, stage in chain.stages[first : last + 1]:
                passed = stage(passed)
            subject.synchronise()

        return run

    return ready, ""


def _sections(chain: Chain, subject: Built, site: load.Site, seconds: float) -> list[Reading]:
    """Rates of pre-processing and transfer alone, of a module that says which of its stages they are."""
    found = []
    for metric, attribute in (("preprocess_rate", "preprocess_stages"), ("transfer_rate", "transfer_stages")):
        names = getattr(chain.module, attribute, None)
        if names is None:
            continue
        ready, why = _section(chain, subject, tuple(names))
        if ready is None:
            found.append(unavailable(metric, why, "request"))
            continue
        rates = load.saturated(ready, site, seconds)
        ask(chain.module, "put_back")
        note = f"{', '.join(names)}; {site.how}; {len(rates)} runs"
        found.append(load.over_runs(metric, rates, note))
    return found


def _frames(chain: Chain, rates: list[float], how: str) -> list[Reading]:
    """Frames per second, of a module whose requests hold several."""
    frames = getattr(chain.module, "frames_per_request", None)
    if frames is None:
        return []
    return [load.over_runs("frame_rate", [frames * rate for rate in rates], f"{frames} frames a request, {how}")]


def _utilisations(chain: Chain, rate: float, stage_ms: dict[str, float], shape: Shape) -> list[Reading]:
    """The utilisation law by stage; those before the collating one are the workers', where there are any."""
    ahead = [name for name, _ in chain.stages[: chain.collate]] if shape["workers"] else []
    found = []
    for name, spent in stage_ms.items():
        servers, who = (shape["workers"], "workers") if name in ahead else (shape["servers"], "servers")
        told: dict[str, Any] = {"n": 1, "part": name, "method_note": f"saturated rate x mean service / {who}"}
        found.append(reading("stage_utilisation", rate * spent / 10 / servers, "measured", **told))
    return found


def _books(busy: list[Reading]) -> list[dict[str, str]]:
    """A flag where a stage was busy for longer than there was time."""
    full = [item for item in busy if item.value is not None and item.value > load.FULL]
    return [
        flag("over_full", "warn", f"{item.part} was busy {item.value:.1f} % of the time: rate and service disagree")
        for item in full
    ]


def _loops(chain: Chain, subject: Built, shape: Shape, site: load.Site, rate: float) -> list[open_loop.OpenLoop]:
    count, kind = _affordable(chain, open_loop.requests_at(rate, shape["seconds"])), ARRIVALS[shape.get("arrivals", 1)]
    if shape["together"] == 1:
        ready = _answers(chain, subject)
        return load.arrivals(lambda most: [ready(at) for at in range(most)], site, rate, count, subject.seed, kind)

    def one(turn: int) -> open_loop.OpenLoop:
        requests = [chain.request(index) for index in range(count)]

        def answer(values: list[Any]) -> None:
            chain.rest(values)
            subject.synchronise()

        server = together.Together(
            lambda index: chain.alone(requests[index]), answer, shape["together"], shape["window_ms"] / 1e3
        )
        return together.run(
            server, rate, count=count, seed=subject.seed + turn, kind=kind, clock=site.clock,
            wait_until=site.wait_until,
        )  # fmt: skip

    return load.until_unstable(one)


def _affordable(chain: Chain, count: int) -> int:
    """As many requests as can wait at once, each with tensors of its own."""
    from bench.tensors import held_bytes

    largest = max(held_bytes(chain.request(index)) for index in range(min(chain.count, 8)))
    return count if not largest else max(open_loop.LEAST_REQUESTS, min(count, WAITING_BYTES // largest))
