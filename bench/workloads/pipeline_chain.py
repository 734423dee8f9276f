"""The stages of a pipeline's subject in order, and the requests that pass them in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.errors import UsageError, did_you_mean
from bench.workloads.workload import Built, Spans, ask, require

#: Different requests that are taken in turn, of a subject that does not say.
REQUESTS = 8

Stage = tuple[str, Callable[[Any], Any]]


class Chain:
    """Stages in order and the requests that pass them in turn.

    Attributes:
        module: the subject's.
        stages: names and calls.
        count: different requests.
        network: name of the stage that runs the network.
        collate: place of the first stage that takes a list of what several requests came to; None where there is none.
        exchange: names of a stage that opens an exchange and of the one that ends it; empty where there is none.

    Raises:
        UsageError: the module lacks a call, or its stages have no names of their own.
    """

    def __init__(self, subject: Built) -> None:
        require(subject.module, "pipeline", "stages", "example_request")
        self.module = subject.module
        self.stages: list[Stage] = _checked_stages(subject.module)
        self.count = int(getattr(subject.module, "requests", REQUESTS))
        self.network = str(getattr(subject.module, "network_stage", "infer"))
        self.collate = self._place(getattr(subject.module, "collate_stage", None))
        self.exchange: tuple[str, str] = tuple(getattr(subject.module, "exchange", ("", "")))
        self._requests: dict[int, Any] = {}
        self._made: dict[tuple[int, int, int], Any] = {}

    def request(self, index: int) -> Any:
        """A copy of its own of request `index`, counted round."""
        from bench.tensors import copy_of

        place = index % self.count
        if place not in self._requests:
            self._requests[place] = self.module.example_request(place)
        return copy_of(self._requests[place], self.module)

    def before(self, position: int, index: int, most: int = 1) -> Any:
        """What the stage at a position is given of request `index`, or of `most` requests that are taken together.

        It is made once for each request, for a short stage runs hundreds of times where the stages before it take long;
        every run gets a copy of its own.
        """
        from bench.tensors import copy_of

        if position == 0:
            return self.request(index)
        key = (position, index % self.count, most)
        if key not in self._made:
            self._made[key] = self._through(*key)
            ask(self.module, "put_back")
        if self.stages[position][0] == self.exchange[1]:
            self._open(index)
        return copy_of(self._made[key], self.module)

    def _through(self, position: int, index: int, most: int) -> Any:
        if most > 1:
            assert self.collate is not None
            value: Any = [self.alone(self.request(most * index + further)) for further in range(most)]
            first = self.collate
        else:
            value, first = self.request(index), 0
        for _, stage in self.stages[first:position]:
            value = stage(value)
        return value

    def _open(self, index: int) -> None:
        """Begin the exchange of a request that the stage which ends it is run for alone."""
        opening, _ = self.exchange
        dict(self.stages)[opening](self.request(index))

    def answer(self, request: Any, spans: Spans) -> Any:
        """The answer to a request, each stage in a span of its name."""
        value = request
        for name, stage in self.stages:
            with spans.span(name):
                value = stage(value)
        return value

    def alone(self, request: Any) -> Any:
        """What a request comes to before it is taken together with others."""
        value = request
        for _, stage in self.stages[: self.collate]:
            value = stage(value)
        return value

    def rest(self, values: list[Any]) -> Any:
        """The answers to several requests, from the stage on that takes them together."""
        value: Any = values
        for _, stage in self.stages[self.collate :]:
            value = stage(value)
        return value

    def _place(self, name: str | None) -> int | None:
        if name is None:
            return None
        names = [known for known, _ in self.stages]
        if name not in names:
            raise UsageError(f'collate_stage "{name}" is no stage; {did_you_mean(name, names)}')
        return names.index(name)


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
