"""Methods that learn: two steps each, through the cache, and a second build reads what the first learned."""

import pytest
import torch

from suites.common.decoder import decoder
from suites.common.digits_resnet import digits_resnet
from suites.common.digits_vit import digits_vit
from suites.common.dit import dit
from suites.common.tasks.digit_images import DigitImages
from suites.common.tasks.digit_images import Training as OfImages
from suites.common.tasks.digits import Digits, Training
from suites.common.tasks.text_bytes import TextBytes
from suites.common.tasks.text_bytes import Training as OfBytes
from suites.quantization.bit_scaling import bit_scaling
from suites.quantization.bitnet158 import bitnet158
from suites.quantization.fp8_block import fp8_block
from suites.quantization.fp8_vs_int8 import fp8_vs_int8
from suites.quantization.hawq import hawq
from suites.quantization.hawqv3 import hawqv3
from suites.quantization.int16_dfp import int16_dfp
from suites.quantization.lrp_qvit import lrp_qvit


def classifier():
    return digits_vit(width=16, heads=2, depth=1, resolution=16)


def residual():
    return digits_resnet(blocks=1, width=4)


def speaker():
    return decoder(width=16, layers=1, heads=2, hidden=24)


def loaded(folder, build):
    """The model with weights of a task that it learned for a step."""
    torch.manual_seed(0)
    if build is speaker:
        task = TextBytes(folder, 0, training=OfBytes(steps=1, batch=2, length=32), prompt=8, scored=2)
    else:
        task = Digits(folder, 0, training=Training(steps=1, grown_steps=1, copies=1))
    task.prepare("model", build)
    model = build()
    task.load(model, "model")
    return model


@pytest.mark.parametrize(
    "build, method, settings",
    [
        (residual, hawq, {"bits": [8, 4], "iterations": 2, "training_steps": 6, "samples": 8}),
        (residual, hawqv3, {"probes": 2, "samples": 16}),
        (classifier, fp8_vs_int8, {"format": "e3m4", "training_steps": 2, "calibration_samples": 8}),
        (classifier, bitnet158, {"training_steps": 2}),
        (classifier, lrp_qvit, {"calibration_samples": 8}),
        (speaker, bitnet158, {"training_steps": 2}),
        (speaker, bit_scaling, {"bits": 3, "training_steps": 2, "group": 8}),
        (speaker, bit_scaling, {"bits": 16, "kind": "fp", "activation_bits": 8, "training_steps": 2}),
        (speaker, fp8_block, {"learning": True, "size": 8, "training_steps": 2}),
        (speaker, int16_dfp, {"training_steps": 2}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_learned_weights_are_remembered(tmp_path, build, method, settings):
    one, two = (method(loaded(tmp_path, build), **settings) for _ in range(2))
    args = one.example_inputs(2)
    answer = one(*args)
    assert torch.equal(answer, two(*args)) and bool(answer.isfinite().all())
    told = [{name: made.method_cost[name] for name in ("forwards", "backwards", "samples")} for made in (one, two)]
    assert told[0] == told[1] and told[0]["samples"] > 0  # learned, or read: the row costs the same
    assert told[0]["backwards"] >= settings.get("training_steps", 0) and one.method_cost["seconds"] > 0


@pytest.mark.parametrize("method, settings", [(int16_dfp, {}), (fp8_block, {"learning": True, "size": 8})])
def test_a_training_step_in_low_precision_follows_the_plain_one(method, settings):
    torch.manual_seed(0)
    plain = speaker()
    ids = torch.randint(0, 256, (4, 24))
    gradients = []
    for model in (plain, method(speaker_like(plain), **settings)):
        torch.nn.functional.cross_entropy(model(ids).flatten(0, -2), ids.flatten()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    apart = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    assert 0 < apart < 0.15


def speaker_like(plain):
    twin = speaker()
    twin.load_state_dict(plain.state_dict())
    return twin


@pytest.mark.slow
def test_a_sampler_learns_under_rounding(tmp_path):
    build = lambda: dit(width=16, heads=2, depth=1)  # noqa: E731
    task = DigitImages(tmp_path, 0, training=OfImages(steps=2, batch=4), samples=66, seeds=2, judge_steps=2)
    task.prepare("model", build)
    model = build()
    task.load(model, "model")
    made = bit_scaling(model, bits=4, training_steps=2, group=8)
    assert bool(made(*made.example_inputs(2)).isfinite().all())
