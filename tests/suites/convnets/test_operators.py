"""Every layer that stands beside a slow reference gives what the reference gives."""

import pytest
import torch

from bench.workloads.operator import errors
from tests.suites.convnets.building import made, stirred

BESIDE = [
    ("ska(width=16)", 6),
    ("lka(width=5)", 8),
    ("gnconv(width=12)", 7),
    ("sdlska(width=6)", 7),
    ("kernelwarehouse_layer(width=5, ratio=2)", 6),
    ("spaced_depthwise(width=3, count=4, window=7)", 6),
    ("subspace_attention(width=12, groups=3)", 5),
    ("channel_filter(width=9, taps=5)", 3),
    ("hypergraph(width=32, edges=5)", 4),
    ("fdconv_layer(width=20)", 7),
    ("fdconv_layer(width=20, size=1)", 7),
    ("mixed_layer(width=8)", 6),
    ("mixed_layer(width=8, kind='condconv', kernels=3, size=1)", 5),
    ("hyperzzw(width=3)", 6),
    ("apriori_layer(width=5, rank=2)", 6),
    ("apriori_layer(width=5, rank=2, size=5, form='kernel')", 6),
    ("deformable_layer(width=4)", 6),
    ("deformable_layer(width=4, kind='bound')", 6),
    ("deformable_layer(width=4, kind='square')", 6),
    ("deformable_layer(width=4, kind='deform_dw')", 6),
    ("deformable_layer(width=4, kind='square_dw')", 6),
    ("row_exchange(width=4, row=11)", 3),
    ("row_exchange(width=4, row=11, form='banded')", 3),
]


def agree(spec, resolution):
    operator = stirred(made(spec, resolution))
    inputs = operator.example_inputs(2)
    with torch.no_grad():
        distance, largest, wrong = errors(operator(*inputs), operator.reference(*inputs))
    assert wrong is None
    assert distance < operator.tolerance
    assert largest < 10 * operator.tolerance


@pytest.mark.parametrize("spec, resolution", BESIDE)
def test_it_gives_what_its_reference_gives(spec, resolution):
    agree(spec, resolution)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("block, halo", [(4, 1), (2, 3), (8, 0)])
def test_timms_halo_attention_is_attention_query_by_query(block, halo):
    operator = made(f"halo_attention(width=32, block={block}, halo={halo})", 8)
    for parameter in operator.parameters():  # relative positions start near zero, which would hide them
        parameter.data.normal_(0, 0.3)
    inputs = operator.example_inputs(2)
    with torch.no_grad():
        distance, _, wrong = errors(operator(*inputs), operator.reference(*inputs))
    assert wrong is None
    assert distance < operator.tolerance
