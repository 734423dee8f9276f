"""Networks of stages that a sample may leave early, and the ways in which a batch of them runs.

`masked`: every stage runs on every sample and answers are selected: nothing is saved. `until_empty`: the same, but a
batch ends when its last member has left. `compact`: who has left is taken out of the batch (index_select) and answers
are put back in order at the end. `sorted`: groups of one path each run straight through, without gates; it needs to
know the paths, which are found beforehand, on the task's held-out inputs, and where an input is none of those the batch
runs compacted. It makes the fewest products and no bound of time: groups share no stage, so that a batch with many
paths makes many small calls.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

Execution = Literal["compact", "masked", "until_empty", "sorted"]


class Staged(nn.Module):
    """Stages with a gate behind each but the last; after a forward `paths` holds each sample's stage, from 0.

    A subclass says how many `stages` there are and defines `start`, `stage` and `leaves`. State and memory are tuples
    of tensors whose first dimension is the batch, or None.
    """

    input_dependent = True
    costs_by_path = True
    sampled_inputs = 597  # all digits that are held out: a path is traced once, and a forward takes milliseconds

    def __init__(self, stages: int, execution: Execution = "compact", exit: int | None = None):
        super().__init__()
        # `running` and not `execution`, which is a label of a row (bench.labels)
        if exit is not None and not 1 <= exit <= stages:
            raise ValueError(f"exit={exit}: one of the {stages} exits is wanted, from 1")
        self.stages, self.running, self.exit = stages, execution, exit
        self.paths: Tensor | None = None
        self._held_out: tuple[Tensor, Tensor] | None = None
        if exit is not None:
            self.input_dependent = False

    def start(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """What enters the first stage."""
        return (inputs,)

    def stage(self, place: int, state: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        """What leaves a stage, and its answer [batch, ...]."""
        raise NotImplementedError(f"{type(self).__name__} does not define stage")

    def leaves(self, place: int, answer: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Who leaves after this stage, [batch], and what gates remember of the others."""
        raise NotImplementedError(f"{type(self).__name__} does not define leaves")

    def merged(self, place: int, answer: Tensor, before: Tensor | None) -> Tensor:
        """The answer of a stage, given that of the stage before; a cascade may take the surer one."""
        return answer

    def forward(self, inputs: Tensor) -> Tensor:
        """Answers in the order of the inputs."""
        if self.exit is not None or inputs.device.type == "meta":
            return self.straight(inputs, self.stages if self.exit is None else self.exit)
        if self.running == "sorted":
            known = self._known(inputs)
            return self._compact(inputs) if known is None else self._grouped(inputs, known)
        return self._compact(inputs) if self.running == "compact" else self._whole(inputs)

    def straight(self, inputs: Tensor, exit: int) -> Tensor:
        """Answers of one exit for all samples; earlier heads and gates run as they do for a sample that gets there."""
        state, memory, answer = self.start(inputs), None, None
        for place in range(exit):
            state, own = self.stage(place, state)
            answer = self.merged(place, own, answer)
            if place < self.stages - 1:
                _, memory = self.leaves(place, answer, memory)
        assert answer is not None
        if inputs.device.type != "meta":
            self.paths = torch.full((len(inputs),), exit - 1, device=inputs.device)
        return answer

    def _whole(self, inputs: Tensor) -> Tensor:
        state, memory, answer = self.start(inputs), None, None
        out: Tensor | None = None
        paths = torch.full((len(inputs),), self.stages - 1, device=inputs.device)
        here = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
        for place in range(self.stages):
            state, own = self.stage(place, state)
            answer = self.merged(place, own, answer)
            shape = (-1, *[1] * (answer.dim() - 1))
            out = answer if out is None else torch.where(here.view(shape), answer, out)
            if place == self.stages - 1:
                break
            leave, memory = self.leaves(place, answer, memory)
            paths = torch.where(here & leave, place, paths)
            here = here & ~leave
            if self.running == "until_empty" and not bool(here.any()):
                break
        assert out is not None
        self.paths = paths
        return out

    def _compact(self, inputs: Tensor) -> Tensor:
        state, memory, answer = self.start(inputs), None, None
        places = torch.arange(len(inputs), device=inputs.device)
        paths = torch.full((len(inputs),), self.stages - 1, device=inputs.device)
        out: Tensor | None = None
        for place in range(self.stages):
            state, own = self.stage(place, state)
            answer = self.merged(place, own, answer)
            if place == self.stages - 1:
                out = answer if out is None else out.index_copy(0, places, answer)
                break
            leave, memory = self.leaves(place, answer, memory)
            gone = leave.nonzero()[:, 0]
            if not len(gone):
                continue
            left = places.index_select(0, gone)
            if out is None:
                out = answer.new_zeros((len(inputs), *answer.shape[1:]))
            out = out.index_copy(0, left, answer.index_select(0, gone))
            paths = paths.index_fill(0, left, place)
            stay = (~leave).nonzero()[:, 0]
            if not len(stay):
                break
            state = tuple(part.index_select(0, stay) for part in state)
            places, answer = places.index_select(0, stay), answer.index_select(0, stay)
            memory = None if memory is None else memory.index_select(0, stay)
        assert out is not None
        self.paths = paths
        return out

    def _grouped(self, inputs: Tensor, known: Tensor) -> Tensor:
        out: Tensor | None = None
        for place in range(self.stages):
            members = (known == place).nonzero()[:, 0]
            if len(members):
                answer = self.straight(inputs.index_select(0, members), place + 1)
                out = answer.new_zeros((len(inputs), *answer.shape[1:])) if out is None else out
                out = out.index_copy(0, members, answer)
        assert out is not None
        self.paths = known
        return out

    @torch.no_grad()
    def learn_paths(self, task: Any) -> None:
        """Find the paths of the task's held-out inputs, in their order, for `execution=sorted`."""
        probes, paths = [], []
        for inputs, _ in task.batches(100):
            self._compact(inputs)
            assert self.paths is not None
            probes.append(_probe(inputs))
            paths.append(self.paths)
        self._held_out = (torch.cat(probes), torch.cat(paths))

    def _known(self, inputs: Tensor) -> Tensor | None:
        """Paths of a run of held-out inputs, or None where they are others."""
        if self._held_out is None:
            return None
        probes, paths = (part.to(inputs.device) for part in self._held_out)
        own = _probe(inputs)
        first = (probes.to(own.dtype) == own[:1]).all(dim=1).nonzero()[:, 0]
        for start in first.tolist()[:4]:
            if torch.equal(probes[start : start + len(own)].to(own.dtype), own):
                return paths[start : start + len(own)]
        return None


def _probe(inputs: Tensor) -> Tensor:
    """A few numbers of each input, [batch, up to 64], by which it is told from others."""
    flat = inputs.flatten(1)
    return flat[:, :: max(1, flat.shape[1] // 64)]
