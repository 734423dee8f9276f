"""BottleFit: the first half of a CNN replaced by a tiny encoder with a narrow bottleneck, and a decoder.

Source: Matsubara et al. 2022, "BottleFit: Learning Compressed Representations in Deep Neural Networks for Effective and
Efficient Split Computing", arXiv 2201.02693, section IV, and the structures of its official code (MIT), read. The
payload is what the last layer of the encoder gives: the raw output of its convolution in versions 2 and 3, the pooled
maps in version 1.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.from_scratch import learned
from suites.serving.backbones import Backbone, as_backbone
from suites.serving.cut_network import Student
from suites.serving.jpeg_curve import jpeg_curve
from suites.serving.payloads import codec_of
from suites.serving.two_stage import (
    Second,
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


def _norm(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width), nn.ReLU()]


def encoder_of(channels: int, b: int, version: int, stem: int, inner: int) -> nn.Sequential:
    """Picture [batch, channels, R, R] to payload: b x R/4 (version 1), b x (R/8 + 1) (2) or half of that (3)."""
    first = b if version == 1 else stem
    parts: list[nn.Module] = [nn.Conv2d(channels, first, 7, 2, 3, bias=False), *_norm(first), nn.MaxPool2d(3, 2, 1)]
    if version == 2:
        parts += [*_norm(stem), nn.Conv2d(stem, b, 2, 2, 1, bias=False)]
    if version == 3:
        parts += [*_norm(stem), nn.Conv2d(stem, inner, 2, 2, 1, bias=False), *_norm(inner)]
        parts += [nn.Conv2d(inner, b, 2, 2, 1, bias=False)]
    return nn.Sequential(*parts)


def decoder_of(b: int, version: int, stem: int, widths: Sequence[int], pool: int) -> nn.Sequential:
    """Payload to the teacher's map: 2 x 2 convolutions of the widths, the first two padded, then a mean over 2 x 2.

    Version 1 still has to halve its maps, which it does with a convolution of `stem` channels; version 3 doubles them
    with a transposed one, which is the first of the widths.
    """
    parts = _norm(b)
    last = b
    if version == 1:
        parts += [nn.Conv2d(b, stem, 2, 2, 1, bias=False), *_norm(stem)]
        last = stem
    for place, width in enumerate(widths):
        if place:
            parts += _norm(last)
        if version == 3 and place == 0:
            parts.append(nn.ConvTranspose2d(last, width, 2, 2, bias=False))
        else:
            parts.append(nn.Conv2d(last, width, 2, 1, int(place < 2), bias=False))
        last = width
    return nn.Sequential(*parts, nn.AvgPool2d(2, pool))


class BottleFit(Student):
    """The student: encoder on the device; decoder and the teacher's last stages on the server.

    Where a map of the picture has an odd side its decoder's map is a place smaller than the teacher's: such a student
    runs, and cannot learn by imitation.
    """

    def __init__(self, teacher: Backbone, *, b: int, version: int, bits: int, stem: int):
        super().__init__(codec_of(bits), teacher, teacher.imitated.bottlefit)
        wanted = teacher.shape_after(self.target)
        widths = [round(share * wanted[0]) for share in teacher.imitated.decoder]
        self.encoder = encoder_of(teacher.channels, b, version, stem, widths[0])
        self.decoder = decoder_of(b, version, stem, widths, teacher.imitated.pool)
        self._wanted = wanted

    def check_imitates(self) -> None:
        """Raise ValueError unless its decoder gives a map like the teacher's, which it learns from."""
        found = self._shape_given()
        if found != self._wanted:
            raise ValueError(
                f"bottlefit at {self.resolution} px gives a map of {found}, and the teacher's after "
                f'"{self.target}" is {self._wanted}: to learn, take another version or a multiple of 32 pixels'
            )

    def _shape_given(self) -> tuple[int, ...]:
        """Shape of the decoder's map: nothing is computed."""
        bare = [copy.deepcopy(part).to("meta") for part in (self.encoder, self.decoder)]
        with torch.no_grad():
            picture = torch.empty(1, self.channels, self.resolution, self.resolution, device="meta")
            return tuple(bare[1](bare[0](picture)).shape[1:])

    def plain(self, images: Tensor) -> Tensor:
        """Logits with the payload as it is, as it is trained: codes are made afterwards."""
        return self.tail(self.encoder(images))


def bottlefit(
    model: nn.Module,
    *,
    b: PositiveInt = 3,
    version: Literal[1, 2, 3] = 2,
    bits: Annotated[int, Field(ge=1, le=32)] = 32,
    stage2: Literal["ft", "kd"] = "kd",
    fe: bool = False,
    epochs: Count | None = None,
    stem: PositiveInt | None = None,
) -> BottleFit:
    """The network with its first half replaced by BottleFit's encoder and decoder.

    Args:
        model: the teacher.
        b: channels of the bottleneck.
        version: where it is cut: after the first pooling (1), after the convolution behind it (2), one later (3).
        bits: of a number that is sent: 32 for floats, else codes of 1 to 16, made after training.
        stage2: learns from labels (ft) or from the teacher's answers as well (kd).
        fe: whether the encoder is frozen in the second stage.
        epochs: of each of the two stages; None for ten where the model has a task to learn from.
        stem: channels of the first convolution (of version 1, which sends those, of its decoder's hidden one); None for
            the paper's 64, and 16 of split_digits.

    Raises:
        ValueError: the network has no stages that are known, it is to learn from maps that are not as large as the
            decoder's, or there are no codes of so many bits.
    """
    teacher = as_backbone(model)
    own_stem = stem or teacher.imitated.stem
    student = BottleFit(teacher, b=b, version=version, bits=bits, stem=own_stem)
    student.pictures = jpeg_curve(teacher)
    steps = 2 * steps_of(epochs_for(teacher, epochs))
    if steps:
        student.check_imitates()
    settings = {"b": b, "version": version, "stage2": stage2, "fe": fe, "stem": own_stem}
    learned(student, teacher, bottlefit, settings, steps, _Training(teacher, stage2, fe))
    return student.eval()


class _Training:
    """Both stages; the bits are no part of it."""

    def __init__(self, teacher: Backbone, kind: Second, fe: bool):
        self.teacher, self.kind, self.fe = teacher, kind, fe

    def __call__(self, student: Any, batches: Any, steps: int) -> list[float]:
        """The loss of each step."""
        given, half = in_two(batches, steps)

        def imitation(images: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                maps = self.teacher.maps(images, student.imitated)
            return squared(student.maps(student.encoder(images)), maps)

        modes(student, [student.later])
        losses = stage(adam(learning([student.encoder, student.decoder])), given, imitation, half, [0.5])
        modes(student, [student.encoder] if self.fe else [])
        second = second_stage(_Plain(student), self.teacher, self.kind)
        losses += stage(sgd(learning([student])), given, second, half, [0.5])
        settled(student)
        return losses


class _Plain(nn.Module):
    """The student without codes."""

    def __init__(self, student: BottleFit):
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> Tensor:
        return self.student.plain(images)
