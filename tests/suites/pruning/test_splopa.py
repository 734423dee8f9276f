"""Adapters of blocks: the library's weight, the pruned source where they start, the plain layer when they are added."""

import pytest
import torch
from torch import nn

from suites.common.digits_vit import digits_vit
from suites.pruning.splopa import BlockAdapted, Prototypes, learned_numbers, splopa


def small():
    torch.manual_seed(0)
    return digits_vit(width=16, heads=2, depth=2, resolution=8, mlp_ratio=2.0)


def test_the_adapted_weight_is_the_librarys():
    library = pytest.importorskip("sp_adapters")
    torch.manual_seed(0)
    theirs = library.SPLoPA(nn.Linear(16, 24), num_prototypes=5, block_shape=(8, 4), shared_prototypes=False)
    prototypes = Prototypes(5, (8, 4))
    ours = BlockAdapted(nn.Linear(16, 24), torch.arange(12), (3, 4), prototypes)
    with torch.no_grad():
        ours.layer.weight.copy_(theirs.weight)
        held = theirs.adapter.prototypes
        # the library names the inputs of a prototype first: its rows have as many numbers as a block has columns
        prototypes.columns.copy_(held.rows)
        prototypes.rows.copy_(held.cols)
        ours.places.copy_(theirs.adapter.pos_weights.flatten(1))
        assert torch.allclose(ours.layer.weight + ours.added(), theirs.adapted_weight, atol=1e-7)
    learned = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    assert learned == learned_numbers(12, 5, (8, 4)) + 24  # and the biases


def test_prototypes_of_zero_leave_the_pruned_source():
    source, adapted = small(), small()
    splopa(adapted, keep=0.5, block=[8, 8], prototypes=3, merged=False)
    splopa(source, keep=0.5, block=[8, 8], prototypes=3, kernel="mask")
    x = source.example_inputs(2)
    with torch.no_grad():
        wanted = source(*x)
        assert torch.allclose(adapted(*x), wanted, atol=1e-5)


def test_an_adapter_that_moved_is_added_in_within_its_blocks_alone():
    torch.manual_seed(0)
    layer = BlockAdapted(nn.Linear(16, 16), torch.tensor([0, 3]), (2, 2), Prototypes(3, (8, 8)))
    nn.init.normal_(layer.prototypes.rows)
    x = torch.randn(4, 16)
    with torch.no_grad():
        added = layer.added()
        assert not bool(added[:8, 8:].any() or added[8:, :8].any())
        by_hand = sum(
            torch.kron(torch.tensor([[float(layer.places[p, 0]), 0.0], [0.0, float(layer.places[p, 1])]]), block)
            for p, block in enumerate(layer.prototypes())
        )
        assert torch.allclose(added, by_hand, atol=1e-6)
        wanted = layer(x)
        assert torch.allclose(layer.fused()(x), wanted, atol=1e-6)


def test_all_layers_share_their_prototypes():
    model = splopa(small(), keep=0.5, block=[8, 8], prototypes=3, merged=False)
    parts = [part for part in model.modules() if isinstance(part, BlockAdapted)]
    assert len({id(part.prototypes) for part in parts}) == 1
    kept = sum(part.places.shape[1] for part in parts)
    own = {id(p): p.numel() for part in parts for p in (part.places, *part.prototypes.parameters())}
    assert sum(own.values()) == learned_numbers(kept, 3, (8, 8))
