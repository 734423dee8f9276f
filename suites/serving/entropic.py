"""The Entropic Student: a learned, entropy-coded representation in place of a CNN's first stage.

Source: Matsubara et al. 2022, "Supervised Compression for Resource-Constrained Edge Computing Systems", arXiv
2108.11898, and the structures of its official code (MIT), read. Encoder: two 5 x 5 convolutions with GDN and a 2 x 2
one; its output is rounded and range-coded by a density for each channel, or with a mean-scale hyper-prior.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from suites.common.from_scratch import learned
from suites.serving.backbones import Backbone, as_backbone
from suites.serving.cut_network import Student
from suites.serving.factorised_prior import FactorisedPrior
from suites.serving.gdn import Gdn
from suites.serving.hyper_prior import HyperPrior
from suites.serving.jpeg_curve import jpeg_curve
from suites.serving.two_stage import (
    adam,
    epochs_for,
    in_two,
    learning,
    modes,
    second_stage,
    settled,
    sgd,
    squared,
    stage,
    steps_of,
)


def encoder_of(channels: int, widths: list[int]) -> nn.Sequential:
    """Picture [batch, channels, R, R] to latent [batch, last width, R/4 - 1, R/4 - 1]."""
    first, second, last = widths
    return nn.Sequential(
        nn.Conv2d(channels, first, 5, 2, 2, bias=False),
        Gdn(first),
        nn.Conv2d(first, second, 5, 2, 2, bias=False),
        Gdn(second),
        nn.Conv2d(second, last, 2, bias=False),
    )


def decoder_of(latent: int, widths: list[int]) -> nn.Sequential:
    """Latent to the teacher's map [batch, last width, R/4, R/4]."""
    first, second, last = widths
    return nn.Sequential(
        nn.Conv2d(latent, first, 2, 1, 1, bias=False),
        Gdn(first, inverse=True),
        nn.Conv2d(first, second, 2, bias=False),
        Gdn(second, inverse=True),
        nn.Conv2d(second, last, 2, 1, 1, bias=False),
    )


class EntropicStudent(Student):
    """The student: encoder and prior on the device; decoder and the teacher's last stages on the server."""

    codec: Any

    def __init__(self, teacher: Backbone, *, channels: int, hyper: int):
        super().__init__(None, teacher, teacher.imitated.entropic)
        wanted = teacher.shape_after(self.target)
        self.encoder = encoder_of(teacher.channels, [share * channels for share in teacher.imitated.analysis])
        self.codec = HyperPrior(channels, hyper) if hyper else FactorisedPrior(channels)
        self.decoder = decoder_of(channels, [share * wanted[0] for share in map(int, teacher.imitated.synthesis)])
        side = (self.resolution + 3) // 4  # of the decoder's map: the encoder halves twice, rounding up
        if wanted[1:] != (side, side):
            raise ValueError(
                f"entropic at {self.resolution} px gives a map of {side} x {side}, and the teacher's after "
                f'"{self.target}" is {wanted[1]} x {wanted[2]}'
            )

    def arriving(self, hidden: Tensor) -> Tensor:
        """The rounded latent: what the strings give back."""
        return self.uncoded(hidden) if hidden.is_meta else hidden.round()

    def uncoded(self, hidden: Tensor) -> Tensor:
        """The latent of shapes alone; both sides of a hyper-prior multiply."""
        if isinstance(self.codec, HyperPrior):
            second = self.codec.analysis(hidden)
            for _ in ("on the device", "on the server"):
                self.codec.gaussians(second, hidden)
        return hidden

    def bits(self, latent: Tensor, noise: bool) -> Tensor:
        """Bits of a latent that is noisy, or rounded, by the densities as they are."""
        if isinstance(self.codec, HyperPrior):
            return self.codec.bits(latent, noise)
        return self.codec.bits(latent)

    def device_modules(self) -> list[nn.Module]:
        """The encoder, and of a hyper-prior all: both sides need it. Tables of a prior are counted with the prior."""
        return [self.encoder, self.codec] if isinstance(self.codec, HyperPrior) else [self.encoder]


def entropic(
    model: nn.Module,
    *,
    channels: PositiveInt | None = None,
    beta: Positive = 0.16,
    hyper: Count = 0,
    epochs: Count | None = None,
) -> EntropicStudent:
    """The network with its first stage replaced by the Entropic Student's encoder, prior and decoder.

    Args:
        model: the teacher.
        channels: of the latent; None for the paper's 24 (64 for RegNetY and hybrids, 4 for digits).
        beta: price of a bit beside the squared errors.
        hyper: channels of the second latent of a mean-scale hyper-prior, as 16; 0 for a factorised prior alone.
        epochs: of each of the two stages; None for ten where the model has a task to learn from.

    Raises:
        ValueError: the network has no stages that are known, or the decoder cannot give the teacher's map.
    """
    teacher = as_backbone(model)
    width = channels or teacher.imitated.channels
    student = EntropicStudent(teacher, channels=width, hyper=hyper)
    student.pictures = jpeg_curve(teacher)
    steps = 2 * steps_of(epochs_for(teacher, epochs))
    settings = {"channels": width, "beta": beta, "hyper": hyper}
    learned(student, teacher, entropic, settings, steps, _Training(teacher, beta))
    if not steps and not next(student.parameters()).is_meta:
        student.codec.update()
    return student.eval()


class _Training:
    """Noise, maps and bits first; then the tables, and the server's half on rounded latents."""

    def __init__(self, teacher: Backbone, beta: float):
        self.teacher, self.beta = teacher, beta

    def __call__(self, student: Any, batches: Any, steps: int) -> list[float]:
        """The loss of each step."""
        given, half = in_two(batches, steps)

        def imitation(images: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = self.teacher.maps(images, student.imitated)
            latent = student.encoder(images)
            noisy = latent + torch.rand_like(latent) - 0.5
            return squared(student.maps(noisy), wanted) + self.beta * student.bits(noisy, noise=True)

        modes(student, [student.later])
        device = [student.encoder, student.codec]
        densities = learning([student.codec.prior if isinstance(student.codec, HyperPrior) else student.codec])
        own = {id(p) for p in densities}
        others = [p for p in learning([*device, student.decoder]) if id(p) not in own]
        losses = stage(adam(others, densities), given, imitation, half, [0.5, 0.8])
        student.codec.update()
        modes(student, device)
        second = second_stage(_Rounded(student), self.teacher, "kd")
        losses += stage(sgd(learning([student])), given, second, half, [0.5])
        settled(student)
        return losses


class _Rounded(nn.Module):
    """The student on rounded latents; the encoder learns no more."""

    def __init__(self, student: EntropicStudent):
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            latent = self.student.encoder(images).round()
        return self.student.tail(latent)
