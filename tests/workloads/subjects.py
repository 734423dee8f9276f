"""Small subjects of every workload whose times, bytes and counts are known, on a clock that they move themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.latency import Runner, time_block
from bench.workloads import module_of
from bench.workloads.workload import Part


class HandClock:
    """A clock that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def pass_ms(self, milliseconds: float) -> None:
        self.now += round(milliseconds * 1e6)


@dataclass
class FakeBuilt:
    """What the worker hands to a workload."""

    module: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    task: Any = None
    device: str = "cpu"
    dtype: Any = None
    seed: int = 0
    clock: Any = field(default_factory=HandClock)

    @property
    def synchronise(self):
        return lambda: None

    @staticmethod
    def wait_until(moment: int, clock: HandClock) -> None:
        clock.now = max(clock.now, moment)


def parts_of(workload: str, subject: FakeBuilt, **shape: Any) -> tuple[dict[str, Part], dict[str, Any]]:
    """The parts by name, and the whole shape."""
    module = module_of(workload)
    whole = module.WORKLOAD.shape(shape)
    return {part.name: part for part in module.make_parts(subject, whole)}, whole


def timed(part: Part, clock: HandClock) -> float:
    """Milliseconds of one run by the instrument's own timer."""
    return time_block(Runner(part.name, part.call, before=part.prepare, after=part.reset), 1, clock)


class Writer(nn.Module):
    """A decoder of one linear layer whose cache grows in place: 5 ms a prompt, 2 ms a step, 8 bytes a token."""

    vocabulary = 11

    def __init__(self, clock: HandClock | None = None, limit: int = 64) -> None:
        super().__init__()
        self.clock, self.limit = clock, limit
        self.embed = nn.Embedding(11, 2)
        self.head = nn.Linear(2, 11, bias=False)

    def _spend(self, milliseconds: float) -> None:
        if self.clock is not None:
            self.clock.pass_ms(milliseconds)

    def prefill(self, ids: Tensor) -> tuple[Tensor, dict[str, Any]]:
        self._spend(5)
        seen = self.embed(ids)
        store = torch.zeros(ids.shape[0], self.limit, 2, device=ids.device)
        store[:, : ids.shape[1]] = seen
        return self.head(seen.mean(1)), {"store": store, "length": ids.shape[1]}

    def decode(self, ids: Tensor, cache: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        self._spend(2)
        cache["store"][:, cache["length"]] = self.embed(ids)[:, 0]
        cache["length"] += 1
        return self.head(cache["store"][:, : cache["length"]].mean(1)), cache

    def cache_bytes(self, cache: dict[str, Any]) -> int:
        return cache["store"].shape[0] * cache["length"] * 2 * 4

    def cache_bits(self) -> dict[str, float]:
        return {"nominal": 32, "stored": 32}


class Denoiser(nn.Module):
    """A sampler that changes its state in place: 3 ms to start, 1 + i a step, 4 to finish; 4 x 4 MACs a step."""

    def __init__(self, clock: HandClock | None = None) -> None:
        super().__init__()
        self.clock = clock
        self.net = nn.Linear(4, 4, bias=False)
        self.text = nn.Linear(3, 4, bias=False)
        self.decoder = nn.Linear(4, 5, bias=False)

    def _spend(self, milliseconds: float) -> None:
        if self.clock is not None:
            self.clock.pass_ms(milliseconds)

    def plan(self, shape: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"name": f"t{i}", "evaluations": 1 + i % 2, "macs": 16 * (1 + i % 2)} for i in range(shape["steps"])]

    def example_noise(self, batch: int, seed: int) -> Tensor:
        return torch.randn(batch, 4, generator=torch.Generator().manual_seed(seed))

    def example_cond(self, batch: int) -> Tensor:
        return torch.ones(batch, 3)

    def start(self, noise: Tensor, cond: Tensor) -> dict[str, Any]:
        self._spend(3)
        return {"x": noise, "cond": self.text(cond), "kept": None}

    def step(self, index: int, state: dict[str, Any]) -> dict[str, Any]:
        self._spend(1 + index)
        for _ in range(1 + index % 2):
            state["kept"] = self.net(state["x"] + state["cond"])
            state["x"].add_(state["kept"], alpha=0.1)
        return state

    def finish(self, state: dict[str, Any]) -> Tensor:
        self._spend(4)
        return self.decoder(state["x"])


class Causal(nn.Module):
    """A causal convolution over 3 steps, output every second one, ring in place; 1 ms a step, 3 with output."""

    period, window = 2, 6

    def __init__(self, clock: HandClock | None = None) -> None:
        super().__init__()
        self.clock = clock
        self.transient = 2
        self.mix = nn.Linear(3 * 2, 4, bias=False)

    def example_clip(self, batch: int, length: int) -> Tensor:
        return torch.randn(batch, length, 2, generator=torch.Generator().manual_seed(1))

    def init(self, batch: int) -> dict[str, Any]:
        return {"ring": self.mix.weight.new_zeros(batch, 3, 2), "count": 0}

    def step(self, x: Tensor, state: dict[str, Any]) -> tuple[Tensor | None, dict[str, Any]]:
        state["ring"].copy_(torch.cat([state["ring"][:, 1:], x[:, None]], 1))
        state["count"] += 1
        if self.clock is not None:
            self.clock.pass_ms(3 if state["count"] % 2 == 0 else 1)
        return (self.mix(state["ring"].flatten(1)) if state["count"] % 2 == 0 else None), state

    def offline(self, clip: Tensor) -> Tensor:
        if self.clock is not None:
            self.clock.pass_ms(7)
        windows = clip.unfold(1, 3, 1).transpose(2, 3).flatten(2)  # windows that end at steps 2, 3, 4, ...
        return self.mix(windows[:, 1::2])


class Learner(nn.Module):
    """Two linear layers with batch norm and dropout between them; 2 ms a forward."""

    def __init__(self, clock: HandClock | None = None, optimizer: str = "adamw") -> None:
        super().__init__()
        self.clock, self.optimizer = clock, optimizer
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.second = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.clock is not None:
            self.clock.pass_ms(2)
        return self.second(self.drop(self.norm(self.first(x))))


class Chain(nn.Module):
    """Bytes to a number in three stages of 1, 4 and 2 ms; the second changes its input in place."""

    network_stage = "infer"
    requests = 3

    def __init__(self, clock: HandClock | None = None, untimed_ms: float = 0.0) -> None:
        super().__init__()
        self.clock, self.untimed_ms = clock, untimed_ms
        self.net = nn.Linear(4, 2, bias=False)

    def _spend(self, milliseconds: float) -> None:
        if self.clock is not None:
            self.clock.pass_ms(milliseconds)

    def example_request(self, index: int) -> bytes:
        return bytes([index, 1, 2, 3])

    def stages(self) -> list[tuple[str, Any]]:
        return [("decode", self.read), ("infer", self.infer), ("post", self.answer)]

    def read(self, request: bytes) -> Tensor:
        self._spend(1)
        return torch.tensor(list(request), dtype=torch.float32)[None]

    def infer(self, x: Tensor) -> Tensor:
        self._spend(4)
        return self.net(x.mul_(2.0))

    def answer(self, logits: Tensor) -> float:
        self._spend(2)
        return float(logits.sum())


class Halves(nn.Module):
    """A head of 4 x 2, eight-bit payload with a 4-byte scale, a tail of 2 x 3; 1, 2, 3 and 4 ms."""

    def __init__(self, clock: HandClock | None = None) -> None:
        super().__init__()
        self.clock = clock
        self.front, self.back = nn.Linear(4, 2, bias=False), nn.Linear(2, 3, bias=False)

    def _spend(self, milliseconds: float) -> None:
        if self.clock is not None:
            self.clock.pass_ms(milliseconds)

    def head(self, x: Tensor) -> Tensor:
        self._spend(1)
        return self.front(x)

    def encode(self, hidden: Tensor) -> bytes:
        self._spend(2)
        scale = hidden.abs().max() / 127
        codes = (hidden / scale).round().to(torch.int8)
        return scale.numpy().tobytes() + codes.numpy().tobytes()

    def decode(self, payload: bytes) -> Tensor:
        self._spend(3)
        scale = torch.frombuffer(bytearray(payload[:4]), dtype=torch.float32)
        return torch.frombuffer(bytearray(payload[4:]), dtype=torch.int8).float().reshape(-1, 2) * scale

    def tail(self, hidden: Tensor) -> Tensor:
        self._spend(4)
        return self.back(hidden)


class Fused(nn.Module):
    """Three devices that see one input, each a head with a payload; their numbers are added up by one tail of 4 ms."""

    def __init__(self, clock: HandClock | None = None) -> None:
        super().__init__()
        self.clock = clock
        self.devices = nn.ModuleList(Halves(clock) for _ in range(3))
        self.devices[1].encode = lambda hidden: Halves.encode(self.devices[1], hidden) + b"12345678"
        self.devices[1].decode = lambda payload: Halves.decode(self.devices[1], payload[:-8])
        self.fuse = nn.Linear(2, 5, bias=False)

    def branches(self) -> list[Halves]:
        return list(self.devices)

    def tail(self, arrived: list[Tensor]) -> Tensor:
        if self.clock is not None:
            self.clock.pass_ms(4)
        return self.fuse(sum(arrived))


class Doubling(nn.Module):
    """Twice a matrix product, in place in its first argument; 6 ms."""

    tolerance = 1e-6

    def __init__(self, clock: HandClock | None = None, error: float = 0.0) -> None:
        super().__init__()
        self.clock, self.error = clock, error

    def example_args(self, shape: dict[str, Any], seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        size = shape["length"] or 4
        return torch.randn(size, 3, generator=generator), torch.randn(3, 5, generator=generator)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        if self.clock is not None:
            self.clock.pass_ms(6)
        return left.mul_(2.0 + self.error) @ right

    def reference(self, left: Tensor, right: Tensor) -> Tensor:
        return 2.0 * (left.double() @ right.double())


class Weighing(nn.Module):
    """Predicts a cost from three numbers of a network; 3 ms a run."""

    def __init__(self, clock: HandClock | None = None) -> None:
        super().__init__()
        self.clock = clock
        self.weights = nn.Linear(3, 1, bias=False)

    def forward(self, numbers: Tensor) -> Tensor:
        if self.clock is not None:
            self.clock.pass_ms(3)
        return self.weights(numbers).squeeze(-1)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        return (torch.ones(batch, 3, device=self.weights.weight.device),)


def subject_of(kind: Any, *args: Any, **options: Any) -> FakeBuilt:
    """A seeded subject of this kind, its clock in the module and in what is handed over."""
    torch.manual_seed(0)
    clock = HandClock()
    return FakeBuilt(kind(clock, **options).eval(), args, clock=clock)


def writer() -> Writer:
    """A builder, as suites name it."""
    return Writer()


def denoiser() -> Denoiser:
    """A builder, as suites name it."""
    return Denoiser()


def causal() -> Causal:
    """A builder, as suites name it."""
    return Causal()


def learner() -> Learner:
    """A builder, as suites name it; its inputs are its own."""
    made = Learner()
    made.example_inputs = lambda batch: torch.randn(batch, 4)
    return made


def chain() -> Chain:
    """A builder, as suites name it."""
    return Chain()


def halves() -> Halves:
    """A builder, as suites name it; its inputs are its own."""
    made = Halves()
    made.example_inputs = lambda batch: torch.randn(batch, 4)
    return made


def fused() -> Fused:
    """A builder, as suites name it; its inputs are its own."""
    made = Fused()
    made.example_inputs = lambda batch: torch.randn(batch, 4)
    return made


def doubling() -> Doubling:
    """A builder, as suites name it."""
    return Doubling()


def weighing() -> Weighing:
    """A builder, as suites name it."""
    return Weighing()
