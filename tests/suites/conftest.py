import pytest
import torch

from suites.common.vit import vit


@pytest.fixture(autouse=True)
def _one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def spread(model):
    """The model with weights large enough that attention differs between tokens."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data = parameter.data + 0.15 * noise if "norm" in name else 0.3 * noise
    return model


@pytest.fixture
def small():
    """A builder of small random ViTs in double precision: 4 blocks, 25 patches."""

    def build(**changes):
        settings = {"width": 16, "heads": 2, "depth": 4, "patch": 4, "resolution": 20, "classes": 5}
        return spread(vit(**{**settings, **changes}).double())

    return build
