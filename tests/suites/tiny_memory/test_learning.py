"""Rows with a score: each network learns its task for a few steps, and methods go on with what was learned."""

import pytest
import torch

from suites.common.tasks import digits, motion_blur, photos, volumes
from suites.tiny_memory.continual import continual_digits
from suites.tiny_memory.deblur_unet import deblur_unet
from suites.tiny_memory.deeprftv2 import deeprftv2
from suites.tiny_memory.gkcl import gkcl, kcl
from suites.tiny_memory.mcunetv2 import mcunetv2
from suites.tiny_memory.networks import mobilenet_chain
from suites.tiny_memory.reversible import reversible
from suites.tiny_memory.reversible_unet import reversible_unet

DIGITS = digits.Training(steps=2, grown_steps=1, batch=8)


def learned(task, make):
    def build():
        torch.manual_seed(0)
        return make()

    notes = task.prepare("tiny", build)
    net = build()
    task.load(net, "tiny")
    return net, notes


@pytest.mark.parametrize("redistributed", [0, 4])
def test_a_network_of_digits_answers_the_same_by_patches(tmp_path, redistributed):
    task = digits.Digits(tmp_path, 0, training=DIGITS)
    net, _ = learned(task, lambda: mobilenet_chain(width=0.1, resolution=32, classes=10, redistributed=redistributed))
    images = next(iter(task.batches(3)))[0]
    with torch.no_grad():
        wanted = net(images)
        found = mcunetv2(net, tiles=2)(images)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_reversible_net_learns_volumes_as_the_ordinary_one(tmp_path, monkeypatch):
    monkeypatch.setattr(volumes, "HELD_OUT", 2)
    found = []
    for change in (lambda net: net, reversible):
        task = volumes.Volumes(tmp_path / str(len(found)), 0, training=volumes.Training(steps=2, batch=1))
        net, notes = learned(
            task, lambda change=change: change(reversible_unet(width=4, couplings=1, expansion=2, levels=2, side=8))
        )
        assert 0 <= notes["test_dice"] <= 1
        found.append(net.head.weight)
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("make", [
    lambda: deeprftv2(width=4, sub_unets=1, resolution=16), lambda: deblur_unet(width=4, blocks=1, resolution=16),
])  # fmt: skip
def test_blur_is_learned(tmp_path, make):
    task = motion_blur.MotionBlur(tmp_path, 0, training=photos.Training(steps=2, batch=2, side=16), tile=160)
    _, notes = learned(task, make)
    assert notes["test_psnr_db"] > 20  # it starts as the picture, and two steps do not leave it


@pytest.mark.parametrize("method, keeps", [(gkcl, "decoder"), (kcl, "head")])
def test_learners_begin_anew_and_remember_what_they_learned(tmp_path, method, keeps):
    task = digits.Digits(tmp_path, 0, training=DIGITS)
    net, _ = learned(task, lambda: continual_digits(hidden=8))
    first, second = (method(net, samples=3, training_steps=10) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.accuracies.shape == (5, 5) and hasattr(first, keeps)
    assert not torch.equal(first.encoder[1].weight, net.encoder[1].weight)
    images, _ = next(iter(task.batches(3)))
    assert first(images).shape == (3, 10)


def test_no_part_of_a_network_stands_where_a_label_is_read():
    from bench.labels import labels_of

    for net in (deeprftv2(width=4, resolution=16), deblur_unet(width=4), reversible_unet(width=4, side=8, levels=2)):
        assert labels_of(net) == {"execution": "real", "kernel": None}
