"""Quality: which of a task's held-out samples a module gets right, sample by sample."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import BenchError, did_you_mean
from bench.meters import dtypes
from bench.reading import Reading, reading

CONFIDENCE = 0.95


class QualityError(BenchError):
    """The task's batches cannot be scored: none at all, or outputs that do not fit the labels."""


class NonFiniteOutput(QualityError):
    """The module answered NaN or infinity: its accuracy would be an accident."""


@dataclass(frozen=True)
class QualityResult:
    """Right and wrong answers on one fixed sequence of samples.

    Attributes:
        correct: number of samples whose largest output is at the label.
        n: number of samples.
        per_sample: one character per sample in the task's order, "1" for right: two results with the same
            `samples_digest` can be compared sample by sample.
        samples_digest: hash of the inputs and labels as they were delivered.
    """

    correct: int
    n: int
    per_sample: str
    samples_digest: str
    device: str
    dtype: str

    def __post_init__(self) -> None:
        if self.n < 1 or len(self.per_sample) != self.n or self.per_sample.count("1") != self.correct:
            raise ValueError(f"{self.correct} of {self.n} does not fit {len(self.per_sample)} answers")

    @property
    def accuracy(self) -> float:
        """Top-1 in percent."""
        return 100.0 * self.correct / self.n

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % score interval in percent (Wilson 1927, JASA 22: 209-212)."""
        from scipy.stats import binomtest

        low, high = binomtest(self.correct, self.n).proportion_ci(CONFIDENCE, method="wilson")
        return 100.0 * float(low), 100.0 * float(high)

    def readings(self) -> list[Reading]:
        """The accuracy with its interval."""
        low, high = self.interval
        return [
            reading(
                "accuracy",
                self.accuracy,
                "measured",
                ci_low=low,
                ci_high=high,
                n=self.n,
                statistic="top-1, Wilson 95 % interval over samples",
            )
        ]

    def as_dict(self) -> dict[str, Any]:
        """The result as plain JSON types."""
        low, high = self.interval
        return {
            "correct": self.correct,
            "n": self.n,
            "accuracy": self.accuracy,
            "ci_low": low,
            "ci_high": high,
            "per_sample": self.per_sample,
            "samples_digest": self.samples_digest,
            "device": self.device,
            "dtype": self.dtype,
        }


def measure(
    module: nn.Module,
    batches: Iterable[tuple[Any, Tensor]],
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "fp32",
) -> QualityResult:
    """Right answers of the module in evaluation mode over all batches; its mode is put back afterwards.

    Args:
        module: a classifier that already is on `device` in `dtype`.
        batches: pairs of inputs (a tensor or a tuple of arguments) and integer labels of shape (batch,).
        device: where the batches are sent.
        dtype: what floating-point inputs are cast to, by the suite's name (`bf16`) or a torch dtype.

    Raises:
        NonFiniteOutput: an output holds NaN or infinity.
        QualityError: no samples, outputs that are not (batch, classes), or a dtype of no known name.
    """
    cast = _dtype(dtype)
    answers: list[str] = []
    seen = hashlib.sha256()
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            for inputs, labels in batches:
                args = inputs if isinstance(inputs, tuple) else (inputs,)
                _feed(seen, (*args, labels))
                outputs = logits(module(*(_send(arg, device, cast) for arg in args)))
                answers.append(_score(outputs, labels, done=sum(map(len, answers))))
    finally:
        module.train(was_training)
    per_sample = "".join(answers)
    if not per_sample:
        raise QualityError("the task gave no samples to score; check its split and its folder")
    return QualityResult(
        correct=per_sample.count("1"),
        n=len(per_sample),
        per_sample=per_sample,
        samples_digest=seen.hexdigest()[:16],
        device=str(device),
        dtype=dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch."),
    )


def logits(output: Any) -> Tensor:
    """The class scores in what a classifier returned: a tensor, `.logits`, or the first tensor of a tuple or mapping.

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


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in dtypes.TORCH:
        raise QualityError(f'dtype "{dtype}" does not exist; {did_you_mean(dtype, dtypes.TORCH)}')
    return dtypes.TORCH[dtype]


def _send(value: Any, device: str | torch.device, dtype: torch.dtype) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)


def _feed(seen: Any, values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            seen.update(f"{tuple(plain.shape)} {plain.dtype}".encode())
            if plain.numel():
                seen.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        else:
            seen.update(repr(value).encode())


def _score(outputs: Tensor, labels: Tensor, *, done: int) -> str:
    """One character per sample of a batch; `done` samples came before, for the message."""
    if outputs.ndim != 2 or labels.ndim != 1 or outputs.shape[0] != labels.shape[0]:
        raise QualityError(
            f"outputs of shape {tuple(outputs.shape)} cannot be scored against labels of shape {tuple(labels.shape)}; "
            "expected (batch, classes) and (batch,)"
        )
    finite = torch.isfinite(outputs).all(dim=1)
    if not bool(finite.all()):
        first = done + int((~finite).nonzero()[0, 0])
        raise NonFiniteOutput(
            f"{int((~finite).sum())} of {len(finite)} outputs of a batch hold NaN or infinity (first at sample "
            f"{first}); the accuracy is not reported. Check the dtype and the weights"
        )
    return "".join("1" if hit else "0" for hit in (outputs.argmax(dim=1).cpu() == labels.cpu()).tolist())
