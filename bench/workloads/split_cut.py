"""A network in two halves with the bytes between them: what the parts of the workload `split` call."""

from __future__ import annotations

from typing import Any

from bench.errors import UsageError
from bench.workloads.workload import Built, Spans, ask, on_meta, require

NAME = "split"


class Cut:
    """A network in two halves with the bytes between them; its devices are branches, most often one: itself."""

    def __init__(self, subject: Built) -> None:
        self.module = subject.module
        self.is_local = bool(getattr(subject.module, "answers_on_device", False))
        own = None if self.is_local else ask(subject.module, "branches")
        self.is_one = own is None
        if not subject.args:
            raise UsageError(f"{type(subject.module).__name__} has no example input to be split")
        self.given = subject.args[0]
        if self.is_local:
            self.branches: list[Any] = []
            return
        require(subject.module, NAME, "tail", *(("head", "encode", "decode") if self.is_one else ()))
        self.branches = [subject.module] if own is None else list(own)
        if not self.branches:
            raise UsageError(f"{type(subject.module).__name__}.branches() gives none: a split network has a device")
        for branch in self.branches:
            require(branch, NAME, "head", "encode", "decode")

    def ready(self, given: Any = None) -> None:
        """Both sides as a request with this input, or the example, finds them."""
        from bench.tensors import ordinary_tensors

        if callable(getattr(self.module, "ready", None)):
            with ordinary_tensors():
                self.module.ready(self.given if given is None else given)

    def request(self, spans: Spans) -> Any:
        """The answer to the input, through the payloads."""
        if self.is_local:
            with spans.span("head"):
                return self.module(self.given)
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
        if self.is_local:
            return self.module(self.given)
        return self.answer([self._uncoded(*pair) for pair in zip(self.branches, self.hidden(), strict=True)])

    @staticmethod
    def _uncoded(branch: Any, hidden: Any) -> Any:
        """What arrives of shapes alone."""
        return branch.uncoded(hidden) if callable(getattr(branch, "uncoded", None)) else hidden

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

    def hidden(self) -> Any:
        """What the heads give of the input; of a module that answers on the device its answer."""
        return self.module(self.given) if self.is_local else self.heads(self.given)

    def payloads(self) -> list[bytes]:
        """The bytes of the input."""
        return [checked(payload) for payload in self.encoded(self.hidden())]

    def arrived(self) -> list[Any]:
        """What the tail is given, of both sides as a request finds them."""
        self.ready()
        return self.hidden() if on_meta(self.given) else self.decoded(self.payloads())


def checked(payload: Any) -> bytes:
    """The payload, if it is bytes.

    Raises:
        UsageError: it is something else, whose size on the wire nobody knows.
    """
    if not isinstance(payload, bytes | bytearray | memoryview):
        raise UsageError(f"encode gives a {type(payload).__name__}; only bytes have a size on the wire")
    return bytes(payload)
