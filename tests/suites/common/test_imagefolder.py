import json

import numpy as np
import pytest
import torch
from PIL import Image

from suites.common.checkpoint import CheckpointError
from suites.common.task import TaskError
from suites.common.tasks.imagefolder import PREPROCESS, ImageFolder, Preprocess, read_image
from suites.common.vit import vit

SHAPE = {"width": 16, "heads": 2, "depth": 2, "patch": 8, "resolution": 32, "classes": 3}


@pytest.fixture
def folder(tmp_path):
    """Three classes, told apart by colour; two images each, of different shapes and formats."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(["n01", "n02", "n03"]):
        place = tmp_path / "images" / name
        place.mkdir(parents=True)
        for number, shape in enumerate([(40, 60), (70, 50)]):
            pixels = generator.integers(0, 60, (*shape, 3), dtype=np.uint8)
            pixels[..., label] += 180
            Image.fromarray(pixels).save(place / f"{number}.{'png' if number else 'JPEG'}")
    return tmp_path / "images"


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(vit(**SHAPE).state_dict(), path)
    return path


def task(folder, checkpoint=None, **options):
    return ImageFolder(cache="unused", seed=0, root=str(folder), checkpoint=checkpoint and str(checkpoint), **options)


def test_evaluates_a_checkpoint_on_a_folder(folder, checkpoint):
    made, module = task(folder, checkpoint), vit(**SHAPE)
    told = made.load(module, "vit_base")
    batches = list(made.batches(4))
    assert [len(images) for images, _ in batches] == [4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 1, 1, 2, 2]
    assert batches[0][0].shape == (4, 3, 32, 32) and len(told["sha256"]) == 64
    assert made.describe()["n"] == 6 and made.describe()["classes"] == 3
    assert torch.equal(module.head.weight, torch.load(checkpoint)["head.weight"])
    assert made.prepare("vit_base", lambda: vit(**SHAPE))["sha256"] == told["sha256"]


def test_preprocessing_cuts_the_centre_and_normalises(tmp_path):
    """A grey square in the middle of a black image fills the input exactly, and 128 becomes its normalised value."""
    pixels = np.zeros((64, 96, 3), dtype=np.uint8)
    pixels[16:48, 32:64] = 128
    Image.fromarray(pixels).save(tmp_path / "a.png")
    how = Preprocess(crop=0.5, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2))
    image = read_image(tmp_path / "a.png", 32, how)
    expected = torch.tensor([(128 / 255 - m) / s for m, s in zip(how.mean, how.std, strict=True)])
    assert image.shape == (3, 32, 32)
    assert torch.allclose(image, expected[:, None, None].expand(3, 32, 32), atol=1e-5)


@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (224, 224), (50, 60)])
def test_preprocessing_gives_the_resolution_whatever_the_shape(tmp_path, shape):
    Image.fromarray(np.full((*shape, 3), 200, dtype=np.uint8)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 224, PREPROCESS["deit"])
    assert image.shape == (3, 224, 224) and float(image.std(dim=(1, 2)).max()) < 1e-5


@pytest.mark.parametrize(
    "name, expected", [("deit_small", "deit"), ("vit_large", "augreg"), ("timm:vit_base_patch16_224", "augreg")]
)
def test_preprocessing_follows_the_family_of_the_checkpoint(folder, checkpoint, name, expected):
    made = task(folder, checkpoint)
    made.load(vit(**SHAPE), name)
    assert made.preprocess == PREPROCESS[expected]


def test_a_config_beside_the_checkpoint_and_options_go_first(folder, checkpoint):
    config = {"pretrained_cfg": {"crop_pct": 0.95, "interpolation": "bilinear", "mean": [0, 0, 0], "std": [1, 1, 1]}}
    (checkpoint.parent / "config.json").write_text(json.dumps(config))
    made = task(folder, checkpoint)
    made.load(vit(**SHAPE), "deit_small")
    assert made.preprocess == Preprocess(0.95, "bilinear", (0, 0, 0), (1, 1, 1))
    made = task(folder, checkpoint, preprocess="mae", crop=1.0)
    made.load(vit(**SHAPE), "deit_small")
    assert made.preprocess == Preprocess(1.0)


def test_val_below_the_root_is_found_and_a_limit_is_seeded(folder, checkpoint, tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    folder.rename(tmp_path / "data" / "val")
    made = task(tmp_path / "data", checkpoint, limit=4)
    assert made.describe()["split"] == "val" and len(made.samples) == 4
    assert made.samples == task(tmp_path / "data", checkpoint, limit=4).samples


def test_what_is_wrong_with_the_data_is_named(folder, checkpoint, tmp_path):
    with pytest.raises(TaskError, match=r"data\.root=.*nowhere is not a folder"):
        task(tmp_path / "nowhere")
    (tmp_path / "empty" / "n01").mkdir(parents=True)
    with pytest.raises(TaskError, match="1 class folders and no images"):
        task(tmp_path / "empty")
    with pytest.raises(TaskError, match="has no class folders"):
        task(tmp_path / "empty" / "n01")
    with pytest.raises(TaskError, match='did you mean "augreg"'):
        task(folder, preprocess="augre")
    with pytest.raises(TaskError, match=r"checkpoint=<file"):
        task(folder).load(vit(**SHAPE), "deit_small")
    with pytest.raises(CheckpointError, match="does not exist"):
        task(folder, tmp_path / "no.pth").load(vit(**SHAPE), "deit_small")
    torch.save(vit(**{**SHAPE, "classes": 10}).state_dict(), tmp_path / "ten.pth")
    with pytest.raises(TaskError, match="3 class folders and deit_small has 10 logits"):
        task(folder, tmp_path / "ten.pth").load(vit(**{**SHAPE, "classes": 10}), "deit_small")
    (folder / "n01" / "broken.png").write_bytes(b"not an image")
    with pytest.raises(TaskError, match=r"broken\.png cannot be read"):
        list(task(folder, checkpoint).batches(10))
