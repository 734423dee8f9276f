import pytest
import torch

from bench.errors import UsageError
from suites.common import timm_bridge
from suites.common.vit import ViT, vit
from tests.suites.conftest import spread
from tests.suites.vit_tokens import references


def timm():
    try:
        return timm_bridge.import_timm()
    except UsageError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("changes", [{}, {"distilled": True}, {"qkv_bias": False}])
def test_fused_forward_equals_the_explicit_one(small, changes):
    model = small(**changes)
    images = torch.randn(2, 3, 20, 20, dtype=torch.double)
    with torch.no_grad():
        fast = model(images)
        slow = torch.stack([references.forward(model, image, references.nothing)[0] for image in images])
    assert torch.allclose(fast, slow, atol=1e-10)


@pytest.mark.parametrize(
    "name, options",
    [
        ("deit_tiny_patch16_224", {}),
        ("vit_small_patch16_224", {}),
        ("deit_tiny_distilled_patch16_224", {}),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "img_size": 96}),
    ],
)
def test_logits_equal_timms_given_the_same_weights(name, options):
    theirs = spread(timm().create_model(name, **options)).eval()
    ours = timm_bridge.as_vit(theirs)
    images = torch.randn(2, 3, ours.resolution, ours.resolution)
    with torch.no_grad():
        expected, actual = theirs(images), ours(images)
    assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_timm_names_build_as_they_are_or_as_our_own_network():
    timm()
    plain = timm_bridge.timm_model(name="vit_tiny_patch16_224", resolution=64)
    assert not isinstance(plain, ViT) and plain(torch.randn(1, 3, 64, 64)).shape == (1, 1000)
    assert isinstance(timm_bridge.timm_model(name="vit_tiny_patch16_224.augreg_in21k", resolution=64, native=True), ViT)
    with pytest.raises(UsageError, match='did you mean "vit_tiny_patch16_224"'):
        timm_bridge.timm_model(name="vit_tiny_patch16_225")
    with pytest.raises(ValueError, match="not a plain vision transformer"):
        timm_bridge.timm_model(name="resnet18", native=True)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"heads": 3}, "width=16 is not a multiple of heads=3"),
        ({"resolution": 21}, "try resolution=20"),
        ({"class_token": False}, 'set pool="mean"'),
        ({"distilled": True, "pool": "mean"}, 'set pool="token"'),
        ({"pool": "max"}, 'use "token" or "mean"'),
    ],
)
def test_numbers_that_do_not_fit_are_refused_with_a_remedy(small, changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_wrong_image_size_is_refused_with_a_remedy(small):
    with pytest.raises(ValueError, match="resolution=24"):
        small()(torch.randn(1, 3, 24, 24, dtype=torch.double))


def test_mean_pooling_weighs_tokens_by_their_size(small):
    from suites.common.vit import Tokens

    model = small(pool="mean")
    x = torch.randn(1, 4, 16, dtype=torch.double)
    size = torch.tensor([[1.0, 2.0, 1.0, 3.0]])
    expected = model.head(model.fc_norm((2 * x[:, 1] + x[:, 2] + 3 * x[:, 3]) / 6))
    assert torch.allclose(model.classify(Tokens(x, 1, size)), expected)


def test_every_named_model_has_the_parameters_it_is_known_for():
    """Published sizes in millions: DeiT-T/S/B 5.7/22.1/86.6, ViT-L 304.3, ViT-H/14 632.0."""
    published = {(192, 3, 12, 16): 5.717416, (384, 6, 12, 16): 22.050664, (768, 12, 12, 16): 86.567656}
    published |= {(1024, 16, 24, 16): 304.326632, (1280, 16, 32, 14): 632.04580}
    for (width, heads, depth, patch), millions in published.items():
        with torch.device("meta"):
            model = vit(width=width, heads=heads, depth=depth, patch=patch)
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(millions * 1e6, rel=1e-4)
