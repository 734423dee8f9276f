"""Decoders, resizers and the chain of stages: kinds fit, libraries agree, and a reference written out agrees."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from bench.errors import UsageError
from suites.serving import decoders, images, resizers
from suites.serving.preprocessing import IMAGENET, Preprocessing
from suites.serving.stage import Stage, chained

FILE = images.file("small", 0)
DECODERS = ["pillow", "torchvision", "simplejpeg", "opencv"]
NEEDS = {"simplejpeg": "simplejpeg", "opencv": "cv2", "opencv_area": "cv2", "opencv_linear": "cv2"}


def needed(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    if name == "torchvision":
        try:
            decoders.decoder(name, (1, 1))
        except NotImplementedError as error:  # one that was built for another torch has no operators
            pytest.skip(str(error))


def test_a_stage_takes_what_the_one_before_gives():
    stages = [Stage("a", str, "file", "pixels"), Stage("b", str, "image", "batch")]
    with pytest.raises(ValueError, match="a gives pixels, and b takes image"):
        chained(stages)


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_give_bytes_of_red_green_and_blue_that_agree_to_a_few_levels(name):
    needed(name)
    wanted = np.asarray(Image.open(io.BytesIO(FILE)).convert("RGB")).astype(int)
    found = decoders.decoder(name, (32, 32))(FILE)
    assert found.dtype == np.uint8 and found.shape == (70, 60, 3)
    assert np.abs(found - wanted).max() <= 4  # a transposed colour would be off by a hundred


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_make_three_colours_of_a_grey_file(name):
    needed(name)
    target = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3, "L").save(target, "JPEG")
    assert decoders.decoder(name, (8, 8))(target.getvalue()).shape == (8, 8, 3)


def test_a_reduced_picture_is_smaller_by_a_power_of_two_and_not_below_what_is_needed():
    large = images.file("320x200", 0)
    assert decoders.decoder("pillow_draft", (64, 64))(large).shape == (100, 160, 3)
    assert decoders.decoder("pillow_draft", (150, 150))(large).shape == (200, 320, 3)


@pytest.mark.parametrize("name", resizers.NAMES)
@pytest.mark.parametrize("size", [(90, 60), (60, 90), (64, 64)])
def test_resizers_keep_the_proportions(name, size):
    needed(name)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = resizers.resizer(name, 30)(pixels)
    assert found.dtype == np.uint8 and min(found.shape[:2]) == 30
    assert found.shape[0] / found.shape[1] == pytest.approx(size[0] / size[1], rel=0.05)


def test_without_antialiasing_fine_stripes_survive_and_with_it_they_are_grey():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    for name in ("pillow", "torch"):
        assert resizers.resizer(name, 16)(stripes).std() < 12, name
    assert resizers.resizer("torch_plain", 24)(stripes).std() > 40


def test_the_two_antialiased_resizers_agree_to_a_level():
    pixels = decoders.decoder("pillow", (1, 1))(images.file("320x200", 1))
    apart = resizers.resizer("pillow", 64)(pixels).astype(int) - resizers.resizer("torch", 64)(pixels)
    assert np.abs(apart).max() <= 2


def test_the_chain_is_that_of_a_reference_written_out():
    found = FILE
    for stage in Preprocessing("pillow", "pillow", 32).stages():
        found = stage.run(found)
    picture = Image.open(io.BytesIO(FILE)).convert("RGB").resize((37, 43), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(picture))[5:37, 2:34].permute(2, 0, 1).float() / 255
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in IMAGENET)
    assert torch.allclose(found[0], (pixels - mean) / deviation, atol=1e-5)
    assert found.shape == (1, 3, 32, 32) and found.is_contiguous()


def test_a_resize_of_floats_is_what_the_resize_of_bytes_rounds():
    pixels = decoders.decoder("pillow", (1, 1))(FILE)
    found = resizers.resizer("torch", 20)(pixels)
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()
    wanted = F.interpolate(image, size=found.shape[:2], mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    assert (wanted - torch.from_numpy(found).float()).abs().max() <= 1.0


def test_a_picture_that_is_the_square_already_has_no_crop():
    names = [stage.name for stage in Preprocessing("pillow", "pillow", 32, margin=1.0).stages()]
    assert names == ["decode", "resize", "normalise", "layout", "collate"]


@pytest.mark.parametrize("what", ["decoder", "resizer"])
def test_an_unknown_library_is_named_with_those_that_there_are(what):
    make = {"decoder": lambda: decoders.decoder("libpng", (1, 1)), "resizer": lambda: resizers.resizer("lanczos", 8)}
    with pytest.raises(UsageError, match="choose pillow"):
        make[what]()


def test_opencv_keeps_to_one_thread():
    pytest.importorskip("cv2")
    assert decoders.opencv().getNumThreads() == 1
