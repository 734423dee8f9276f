"""Pictures that are sent: the sizes of their classes, seeded, and like photographs."""

import io

import numpy as np
import pytest
from PIL import Image

from suites.serving import images


@pytest.mark.parametrize(("name", "width", "height", "size"), [("small", 60, 70, 4_000), ("medium", 500, 375, 121_000)])
def test_classes_have_the_sizes_of_the_study(name, width, height, size):
    found = images.facts(images.file(name, 0))
    assert (found["width"], found["height"]) == (width, height)
    assert found["bytes"] == pytest.approx(size, rel=0.08)
    assert found["bits_per_pixel"] == pytest.approx(8 * found["bytes"] / (width * height))


@pytest.mark.slow
def test_the_large_class_has_the_size_of_the_study():
    found = images.facts(images.file("large", 1))
    assert (found["width"], found["height"]) == (3564, 2880)
    assert found["bytes"] == pytest.approx(9_500_000, rel=0.08)


def test_a_picture_is_seeded_and_each_is_another():
    images.file.cache_clear()
    first = images.file("small", 0)
    images.file.cache_clear()
    assert images.file("small", 0) == first != images.file("small", 1)
    assert images.file("small", 0, seed=5) != first


def test_a_picture_is_neither_noise_nor_flat():
    pixels = np.asarray(Image.open(io.BytesIO(images.file("medium", 0))).convert("L"), dtype=float)
    steps = np.diff(pixels, axis=1)
    assert pixels.std() > 20  # it shows something
    assert steps.std() < pixels.std()  # neighbours are alike: noise would have steps of 1.4 times its spread


def test_a_picture_of_one_s_own_has_the_sides_and_quality_it_names():
    wide, plain = images.facts(images.file("96x64q30", 0)), images.facts(images.file("96x64", 0))
    assert (wide["width"], wide["height"]) == (96, 64) and wide["bytes"] < plain["bytes"]


@pytest.mark.parametrize("name", ["huge", "96x", "4x4", "96x64q99", "20000x100"])
def test_what_is_no_picture_is_refused(name):
    with pytest.raises(ValueError, match="image="):
        images.picture(name)
