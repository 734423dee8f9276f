"""Published networks, where timm is installed: exact products, fvcore's convention, and the bytes of a ResNet-50."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.errors import UsageError
from bench.meters import macs
from suites.common.timm_bridge import import_timm

#: GMACs: closed form of the products; with fvcore's normalisation and pooling terms.
PUBLISHED = {
    "resnet50": (4.0892, 4.1115),
    "mobilenetv2_100": (0.3008, 0.3142),
    "deit_small_patch16_224": (4.5989, 4.6083),
    "swin_tiny_patch4_window7_224": (4.4906, 4.5092),
}


@pytest.fixture(scope="module")
def timm() -> object:
    try:
        return import_timm()
    except UsageError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_to_print_precision(timm: object, name: str) -> None:
    network = timm.create_model(name).eval()  # type: ignore[attr-defined]
    count = macs.count(network, (torch.randn(1, 3, 224, 224),))
    matmul, fvcore = PUBLISHED[name]
    assert count.value("matmul") / 1e9 == pytest.approx(matmul, abs=5e-5)
    assert count.value("fvcore") / 1e9 == pytest.approx(fvcore, abs=5e-5)
    assert count.value("fvcore") == count.fvcore_macs
    assert count.coverage["known_share"] == 1
    assert count.flags == []


def test_traffic_of_resnet_50_equals_an_independent_hook_count(timm: object) -> None:
    network = timm.create_model("resnet50").eval()  # type: ignore[attr-defined]
    image = torch.randn(1, 3, 224, 224)
    by_hooks = 0

    def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal by_hooks
        by_hooks += 4 * (inputs[0].numel() + output.numel() + sum(p.numel() for p in module.parameters()))

    handles = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()
    count = macs.count(network, (image,), second_count=False)
    products = [row for row in count.operators if row["class"] == "compute"]
    assert sum(row["read_bytes"] + row["written_bytes"] for row in products) == by_hooks == 189_133_376
    assert count.traffic_bytes / 1e6 == pytest.approx(427.6, abs=0.05)


def test_enlarging_and_sampling_count_in_fvcores_convention_without_a_second_count() -> None:
    class Sampling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = nn.functional.interpolate(self.conv(x), scale_factor=2.0)
            y = nn.functional.interpolate(y, scale_factor=2.0, mode="bilinear")
            grid = torch.zeros(1, 5, 5, 2, dtype=y.dtype)
            return nn.functional.grid_sample(y, grid, align_corners=False)

    network, image = Sampling().eval(), torch.randn(1, 3, 8, 8)
    products = 8 * 8 * 4 * 27
    terms = 4 * 16 * 16 + 4 * (4 * 32 * 32) + 4 * (4 * 5 * 5)
    alone = macs.count(network, (image,), second_count=False)
    assert alone.value("fvcore") == products + terms
    both = macs.count(network, (image,))
    assert both.value("fvcore") == both.fvcore_macs == products + terms
