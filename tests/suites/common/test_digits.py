import json

import pytest
import torch

from bench.config import catalogue as catalogues
from bench.meters import quality
from suites.common import digits_data
from suites.common.digits_cnn import digits_cnn
from suites.common.digits_resnet import digits_resnet
from suites.common.digits_vit import digits_vit
from suites.common.scan import vision_scan
from suites.common.task import TaskError, learning_task
from suites.common.tasks.digits import Digits, Training
from suites.common.vit import vit

QUICK = Training(steps=200, grown_steps=20, copies=2, rate=4e-3)


def small():
    torch.manual_seed(3)
    return digits_vit(width=48, heads=3, depth=4, patch=8, resolution=32, mlp_ratio=2)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return cache, Digits(cache, 0, training=QUICK).prepare("small", small)


def test_training_learns_and_notes_how(prepared):
    _, notes = prepared
    assert notes["test_accuracy"] > 70 and notes["train_accuracy"] > 70
    assert notes["recipe"]["steps"] == 200 and len(notes["sha256"]) == 64


def test_loaded_weights_have_the_accuracy_that_was_noted(prepared):
    cache, notes = prepared
    task, module = Digits(cache, 0, training=QUICK), small()
    assert task.load(module, "small")["sha256"] == notes["sha256"]
    assert quality.measure(module, task, batch=100).value == pytest.approx(notes["test_accuracy"])
    assert learning_task(module, "any", "") is task


def test_training_again_gives_the_same_bytes_and_the_cache_spares_it(prepared, tmp_path, monkeypatch):
    cache, notes = prepared
    assert Digits(tmp_path, 0, training=QUICK).prepare("small", small)["sha256"] == notes["sha256"]
    monkeypatch.setattr(Digits, "_train", lambda *_: pytest.fail("trained although it was in the cache"))
    assert Digits(cache, 0, training=QUICK).prepare("small", small) == notes


def test_a_damaged_cache_entry_is_never_used(prepared, tmp_path):
    cache, notes = prepared
    copy = tmp_path / "digits"
    copy.mkdir()
    for file in (cache / "digits").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = copy / notes["checkpoint"]
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(TaskError, match="no trained weights"):
        Digits(tmp_path, 0, training=QUICK).load(small(), "small")


def test_another_seed_recipe_or_network_is_another_entry(prepared):
    cache, _ = prepared
    for task, module in [
        (Digits(cache, 1, training=QUICK), small()),
        (Digits(cache, 0), small()),
        (Digits(cache, 0, training=QUICK), digits_vit(width=32, heads=2, depth=2, patch=8)),
    ]:
        with pytest.raises(TaskError, match="has no trained weights for digits"):
            task.load(module, "small")


def test_digits_are_pixels_even_where_they_are_first_asked_for_among_shapes_alone():
    digits_data.digits.cache_clear()
    with torch.device("meta"):
        pixels, labels, _ = digits_data.digits()
    assert {pixels.device.type, labels.device.type, digits_data.digits()[0].device.type} == {"cpu"}


def test_the_split_is_disjoint_and_the_same_for_every_seed(tmp_path):
    train, held_out = digits_data.split()
    assert len(train) == 1200 and len(held_out) == 597 and not set(train.tolist()) & set(held_out.tolist())
    one, two = ([y for _, y in Digits(tmp_path, seed).batches(64)] for seed in (0, 5))
    assert torch.equal(torch.cat(one), torch.cat(two))
    assert Digits(tmp_path, 0).describe() == Digits(tmp_path, 5).describe()
    assert json.dumps(Digits(tmp_path, 0).describe())


def test_a_model_of_other_classes_is_refused(tmp_path):
    wrong = vit(width=16, heads=2, depth=2, patch=8, resolution=32, classes=1000)
    with pytest.raises(TaskError, match=r"1000 logits and digits has 10 classes: take digits_tiny"):
        Digits(tmp_path, 0).load(wrong, "deit_small")


def test_what_a_method_learned_is_remembered(prepared):
    cache, _ = prepared
    task = Digits(cache, 0, training=QUICK)
    task.load(small(), "small")
    calls = []

    def make():
        calls.append(1)
        return {"x": torch.ones(2)}

    first, second = (task.remembered("rates", {"target": 1.0}, make) for _ in range(2))
    assert torch.equal(first["x"], second["x"]) and len(calls) == 1
    task.remembered("rates", {"target": 2.0}, make)
    assert len(calls) == 2


def test_a_method_that_learns_refuses_a_model_without_data():
    with pytest.raises(ValueError, match="loaded without a task to learn from: give prune"):
        learning_task(small(), "diffrate", "give prune")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"width": 48, "heads": 3}, {"width": 64, "heads": 4, "mlp_ratio": 2}])
def test_the_named_digits_models_reach_a_sensible_accuracy(tmp_path, settings):
    notes = Digits(tmp_path, 0).prepare("digits", lambda: digits_vit(**settings))
    assert notes["test_accuracy"] >= 94


@pytest.mark.slow
def test_the_scan_network_reaches_a_sensible_accuracy(tmp_path):
    entry = catalogues.load().models["digits_scan"]
    notes = Digits(tmp_path, 0).prepare("digits_scan", lambda: vision_scan(**entry.settings))
    assert notes["test_accuracy"] >= 94


# ------------------------------------------------------------------------------------------------ forms and sizes


def first(task):
    return next(task.batches(4))[0]


@pytest.mark.parametrize("resolution, channels", [(8, 1), (16, 1), (28, 3), (64, 3)])
def test_digits_come_at_the_model_s_resolution_and_channels(tmp_path, resolution, channels):
    task = Digits(tmp_path, 0)
    task.fits(digits_cnn(width=4, resolution=resolution, channels=channels), "cnn")
    images = first(task)
    assert images.shape == (4, channels, resolution, resolution)
    assert all(torch.equal(images[:, 0], images[:, channel]) for channel in range(channels))
    if resolution == 8:
        pixels = digits_data.digits()[0][digits_data.split()[1][:4]]
        assert torch.allclose(images[:, 0] * digits_data.STD + digits_data.MEAN, pixels, atol=1e-6)


def test_a_jpeg_of_good_quality_is_nearly_the_image_and_of_bad_quality_is_smaller(tmp_path):
    fine, coarse = (Digits(tmp_path, 0, form="jpeg", jpeg_quality=quality) for quality in (95, 5))
    plain = first(Digits(tmp_path, 0))
    near, far = (float((first(task) - plain).abs().mean()) for task in (fine, coarse))
    assert near < 0.03 < far
    sizes = [sum(map(len, task.requests())) for task in (fine, coarse)]
    assert sizes[1] < sizes[0] and len(fine.requests()) == 597
    assert fine.requests()[0][:2] == b"\xff\xd8"  # a JPEG file begins so
    assert fine.describe()["preprocessing"]["jpeg_quality"] == 95 and json.dumps(fine.describe())


def test_strokes_go_through_the_ink_pixel_by_pixel(tmp_path):
    task = Digits(tmp_path, 0, form="strokes")
    points = first(task)
    assert points.shape == (4, 32, 3) and set(points[..., 2].flatten().tolist()) <= {0.0, 1.0}
    for path, image in zip(points, digits_data.digits()[0][digits_data.split()[1][:4]], strict=True):
        ink = {(round(7 * x), round(7 * y)) for x, y, _ in path.tolist()}
        wanted = {(x, y) for y, x in (image >= digits_data.INK).nonzero().tolist()}
        assert ink == wanted if len(wanted) <= 32 else ink < wanted
        down = [k for k in range(1, 32) if path[k, 2]]
        assert all(float((7 * (path[k, :2] - path[k - 1, :2])).norm()) < 1.5 for k in down) or len(wanted) > 32


def test_another_form_is_another_set_of_weights_and_another_digest_of_what_was_scored(tmp_path):
    model = digits_cnn(width=4)
    plain, spoiled = Digits(tmp_path, 0), Digits(tmp_path, 0, form="jpeg")
    for task in (plain, spoiled):
        task.fits(model, "cnn")
    assert plain.recipe() != spoiled.recipe()
    digests = [quality.measure(model, task).samples_digest for task in (plain, spoiled)]
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    "options, why",
    [({"form": "sound"}, "digits come as image, jpeg, strokes"), ({"form": "jpeg", "jpeg_quality": 100}, "1 to 95")],
)
def test_a_form_that_does_not_exist_is_refused(tmp_path, options, why):
    with pytest.raises(TaskError, match=why):
        Digits(tmp_path, 0, **options)


@pytest.mark.slow
@pytest.mark.parametrize("build", [digits_cnn, digits_resnet])
def test_the_convolutional_networks_reach_a_sensible_accuracy(tmp_path, build):
    def seeded():
        torch.manual_seed(0)
        return build()

    assert Digits(tmp_path, 0).prepare("digits", seeded)["test_accuracy"] >= 96
