"""Quality: the score that a task gives a module, held-out sample by held-out sample.

A task says what it scores (`task.metric`) and does it (`task.score(run)`), where `run` is the module under score. A
task that only gives `batches` of inputs and labels is a classifier's, and scored by `accuracy`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import BenchError, did_you_mean
from bench.meters import dtypes
from bench.scores import DEFAULT_SCORE, Score, proportion


class QualityError(BenchError):
    """The task's samples cannot be scored: none at all, or outputs that do not fit them."""


class NonFiniteOutput(QualityError):
    """The module answered NaN or infinity: its score would be an accident."""


@dataclass(frozen=True)
class Run:
    """A module under score, in evaluation mode, on its device and in its dtype.

    Attributes:
        module: for tasks that call more of it than its forward (a sampler, a stream).
        device: where `send` puts tensors.
        dtype: what `send` casts floating-point tensors to.
        batch: samples at a time, for tasks that may choose.
        shape: the case's numbers by axis (steps of a sampler, ...), for tasks whose score depends on them.
    """

    module: nn.Module
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    batch: int = 64
    shape: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *inputs: Any) -> Any:
        """The module's answer to the inputs, which are sent to it first; the answer stays where it is."""
        return self.module(*(self.send(value) for value in inputs))

    def send(self, value: Any) -> Any:
        """A tensor on the module's device, a floating-point one in its dtype; anything else as it is."""
        if not isinstance(value, Tensor):
            return value
        return value.to(self.device, self.dtype) if value.is_floating_point() else value.to(self.device)


class SamplesDigest:
    """A hash of samples in the order in which they were scored."""

    def __init__(self) -> None:
        self._seen = hashlib.sha256()

    def feed(self, *values: Any) -> None:
        """Add tensors (shape, type and bytes) or other values (their text)."""
        for value in values:
            if not isinstance(value, Tensor):
                self._seen.update(repr(value).encode())
                continue
            plain = value.detach().cpu().contiguous()
            self._seen.update(f"{tuple(plain.shape)} {plain.dtype}".encode())
            if plain.numel():
                self._seen.update(plain.reshape(-1).view(torch.uint8).numpy().data)

    def hex(self) -> str:
        """The first 16 digits."""
        return self._seen.hexdigest()[:16]


def measure(
    module: nn.Module,
    task: Any,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "fp32",
    batch: int = 64,
    shape: Mapping[str, Any] = MappingProxyType({}),
) -> Score:
    """The task's score of the module in evaluation mode; the module's own mode is put back afterwards.

    Args:
        module: on `device` in `dtype` already.
        task: has `metric` and `score(run)`, or only `batches(batch)` of inputs and integer labels.
        device: where inputs are sent.
        dtype: what floating-point inputs are cast to, by the suite's name (`bf16`) or a torch dtype.
        batch: samples at a time.
        shape: the case's numbers by axis.

    Raises:
        NonFiniteOutput: an output that is scored holds NaN or infinity.
        QualityError: no samples, outputs that do not fit, a dtype of no known name, or a score of another metric.
    """
    run = Run(module, str(device), _dtype(dtype), batch, shape)
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            found = task.score(run) if hasattr(task, "score") else accuracy(run, task.batches(batch))
    finally:
        module.train(was_training)
    if found.metric != metric_of(task):
        raise QualityError(f"the task says that it scores {metric_of(task)} and gave a score of {found.metric}")
    return found


def metric_of(task: Any) -> str:
    """The metric that a task scores."""
    return str(getattr(task, "metric", DEFAULT_SCORE))


def accuracy(run: Run, batches: Iterable[tuple[Any, Tensor]]) -> Score:
    """Top-1 of a classifier over all batches of inputs (a tensor or a tuple of arguments) and labels of shape (batch,).

    Raises:
        NonFiniteOutput: an output holds NaN or infinity.
        QualityError: no samples, or outputs that are not (batch, classes).
    """
    marks: list[str] = []
    seen = SamplesDigest()
    for inputs, labels in batches:
        args = inputs if isinstance(inputs, tuple) else (inputs,)
        seen.feed(*args, labels)
        marks.append(_marks(logits(run(*args)), labels, done=sum(map(len, marks))))
    if not any(marks):
        raise QualityError("the task gave no samples to score; check its split and its folder")
    return proportion("accuracy", "".join(marks), seen.hex())


def logits(output: Any) -> Tensor:
    """The class scores in what a module returned: a tensor, `.logits`, or the first tensor of a tuple or mapping.

    Raises:
        QualityError: there is no tensor in the answer.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits
    members = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    for member in members:
        if isinstance(member, Tensor):
            return member
    raise QualityError(f"the module returned {type(output).__name__}, in which there are no class scores")


def check_finite(values: Tensor, what: str, *, done: int = 0) -> None:
    """Raise NonFiniteOutput unless all values are finite.

    Args:
        values: samples along the first axis.
        what: what is not reported otherwise, such as "the accuracy".
        done: samples that came before, for the message.
    """
    finite = torch.isfinite(values).flatten(1).all(dim=1) if values.ndim > 1 else torch.isfinite(values)
    if not bool(finite.all()):
        first = done + int((~finite).nonzero()[0, 0])
        raise NonFiniteOutput(
            f"{int((~finite).sum())} of {len(finite)} outputs of a batch hold NaN or infinity (first at sample "
            f"{first}); {what} is not reported. Check the dtype and the weights"
        )


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in dtypes.TORCH:
        raise QualityError(f'dtype "{dtype}" does not exist; {did_you_mean(dtype, dtypes.TORCH)}')
    return dtypes.TORCH[dtype]


def _marks(outputs: Tensor, labels: Tensor, *, done: int) -> str:
    """One character per sample of a batch; `done` samples came before, for the message."""
    if outputs.ndim != 2 or labels.ndim != 1 or outputs.shape[0] != labels.shape[0]:
        raise QualityError(
            f"outputs of shape {tuple(outputs.shape)} cannot be scored against labels of shape {tuple(labels.shape)}; "
            "expected (batch, classes) and (batch,)"
        )
    check_finite(outputs, "the accuracy", done=done)
    return "".join("1" if hit else "0" for hit in (outputs.argmax(dim=1).cpu() == labels.cpu()).tolist())
