"""What every served network is: files in, stages before the network, the network, stages after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suites.serving import images
from suites.serving.preprocessing import Preprocessing
from suites.serving.stage import Stage, chained
from suites.serving.transports.table import Transport


class Served(nn.Module):
    """A network with the stages around it, for the workload `pipeline`.

    A subclass makes files (`make_file`) and answers (`post`).

    Args:
        network: images [batch, 3, side, side] to logits.
        how: files become its inputs.
        count: different requests, which are sent in turn.
        transport: `direct`: files are in this process.
        given: `bytes`: files; `tensor`: inputs of the network that are ready.

    Raises:
        ValueError: ready inputs have no transport.
    """

    network_stage = "infer"

    def __init__(self, network: nn.Module, how: Preprocessing, *, count: int, transport: str, given: str):
        super().__init__()
        if given == "tensor" and transport != "direct":
            raise ValueError(f'given="tensor": inputs that are ready come by no transport, so not by "{transport}"')
        self.network, self.how, self.requests, self.given = network, how, count, given
        self._before = [] if given == "tensor" else how.stages()
        self._transport = None if transport == "direct" else Transport(transport, self.files)
        self._files: list[bytes] = []

    def make_file(self, index: int) -> bytes:
        """The file of request `index`."""
        raise NotImplementedError(f"{type(self).__name__} makes no files")

    def post(self, said: Tensor) -> Tensor:
        """The answer, of logits."""
        raise NotImplementedError(f"{type(self).__name__} makes no answers")

    # ------------------------------------------------------------------------------------------ for the workload

    def stages(self) -> list[tuple[str, Callable[[Any], Any]]]:
        """The stages in order; one that this variant does not have is absent."""
        found = [Stage("infer", self.infer, "batch", "logits"), Stage("post", self.post, "logits", "result")]
        if self._device().type == "cuda" and self.given == "bytes":
            found.insert(0, Stage("transfer", lambda batch: batch.to(self._device()), "batch", "batch"))
        found = [*self._before, *found]
        if self._transport is not None:
            found = [Stage("receive", self._transport.receive, "request", "file"), *found]
            found.append(Stage("respond", self.respond, "result", "result"))
        return chained(found)

    @property
    def collate_stage(self) -> str | None:
        """The stage that makes a batch of several images; none where inputs are ready."""
        return "collate" if self._before else None

    @property
    def preprocess_stages(self) -> tuple[str, ...]:
        """Names of the stages that make the network's input of a file."""
        return tuple(stage.name for stage in self._before)

    @property
    def transfer_stages(self) -> tuple[str, ...]:
        """Name of the stage that moves what is sent here, or an input to its device."""
        if self._transport is not None:
            return ("receive",)
        return ("transfer",) if self._device().type == "cuda" and self.given == "bytes" else ()

    @property
    def exchange(self) -> tuple[str, str]:
        """The stages that open and end an exchange with the client; none where there is no client."""
        return ("receive", "respond") if self._transport is not None else ("", "")

    def example_request(self, index: int) -> Any:
        """Request `index`: a file, its number where the client has it, or an input that is ready."""
        if self._transport is not None:
            return index
        return self.ready(index) if self.given == "tensor" else self.files()[index]

    def pixel_difference(self, index: int) -> float:
        """Levels of 255 by which the network's input is off that of Pillow decoding whole pixels and resizing."""
        apart = _through(self._before, self.files()[index]) if self._before else self.ready(index)
        apart = apart.cpu() - _through(self.reference().stages(), self.files()[index])
        scale = torch.tensor(self.how.deviation, device="cpu").view(-1, 1, 1)
        return float((255 * scale * apart).abs().max())

    def request_facts(self) -> dict[str, Any]:
        """Of the files: width, height, pixels, bytes and bits per pixel, each the mean over the requests."""
        found = [images.facts(file) for file in self.files()]
        return {name: sum(each[name] for each in found) / len(found) for name in found[0]}

    def details(self) -> dict[str, Any]:
        """What else a reader has to know of how it ran."""
        return {"libraries": _threads(), **({} if self._transport is None else self._transport.described())}

    def put_back(self) -> None:
        """End an exchange with the client that a run of one stage has left open."""
        if self._transport is not None:
            self._transport.settle()

    # ------------------------------------------------------------------------------------------ parts of it

    def forward(self, inputs: Tensor) -> Tensor:
        """What the network alone gives."""
        return self.network(inputs)

    def infer(self, batch: Tensor) -> Tensor:
        """What the network gives, wherever the batch was made."""
        return self.network(batch.to(next(self.network.parameters())))

    def respond(self, answer: Tensor) -> Tensor:
        """The answer, once the client has its bytes."""
        assert self._transport is not None
        kept = answer.detach() if answer.dtype == torch.uint8 else answer.detach().float()
        sent = b"" if answer.is_meta else kept.cpu().numpy().tobytes()
        self._transport.respond(sent)
        return answer

    def files(self) -> list[bytes]:
        """All files, made once."""
        if not self._files:
            self._files = [self.make_file(index) for index in range(self.requests)]
        return self._files

    def ready(self, index: int) -> Tensor:
        """The network's input of request `index`, by this chain."""
        return _through(self.how.stages(), self.files()[index]).to(self._device())

    def reference(self) -> Preprocessing:
        """How the reference prepares the same network's inputs."""
        return replace(self.how, decode="pillow", resize="pillow")

    def _device(self) -> torch.device:
        return next(self.network.parameters()).device


def _through(stages: list[Stage], value: Any) -> Any:
    for stage in stages:
        value = stage.run(value)
    return value


def _threads() -> dict[str, Any]:
    """Threads of every library that keeps a pool, where it is loaded."""
    import sys

    cv2 = sys.modules.get("cv2")
    found: dict[str, Any] = {"torch": torch.get_num_threads(), "numpy": np.__version__}
    return {**found, **({} if cv2 is None else {"opencv": cv2.getNumThreads()})}
