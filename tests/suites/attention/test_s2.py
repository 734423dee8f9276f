"""S2-Attention: its mask by definition, block skipping, and a cache that forgets what no head will read."""

import pytest
import torch

from suites.attention import s2 as file
from suites.attention.operator import masked_attention
from suites.attention.s2 import block_mask, s2_attention, s2_decoder
from suites.common.decoder import decoder
from tests.suites.conftest import spread
from tests.suites.decode.walking import ids_of, walk

SMALL = {"length": 50, "heads": 4, "width": 8, "block": 8, "local": 2, "stride": 4}


@pytest.mark.parametrize("heads, local, stride", [(8, 4, 4), (3, 1, 4), (2, 2, 8), (4, 3, 1)])
def test_the_mask_is_that_of_the_definition(heads, local, stride):
    step = max(1, stride // heads)
    mask = block_mask(heads, 9, local, stride)
    for h in range(heads):
        for i in range(9):
            for j in range(9):
                expected = j <= i and (i - j < local or (j + h * step + 1) % stride == 0)
                assert bool(mask[h, i, j]) == expected
    same = block_mask(heads, 9, local, stride, homogeneous=True)
    assert torch.equal(same[0], mask[0]) and all(torch.equal(row, same[0]) for row in same)


def test_enough_heads_see_the_whole_lower_triangle_together():
    whole = torch.ones(12, 12, dtype=torch.bool).tril()
    assert torch.equal(block_mask(8, 12, 1, 8).any(dim=0), whole)
    assert torch.equal(block_mask(4, 12, 2, 4).any(dim=0), whole)
    assert not torch.equal(block_mask(3, 12, 1, 8).any(dim=0), whole)


def test_pairs_are_those_of_the_brief():
    module = s2_attention(length=2048, heads=8, block=64, local=4, stride=4)
    assert (module.block_pairs, 8 * 32 * 33 // 2) == (1788, 4224)
    assert (module.token_pairs, 8 * 2048 * 2049 // 2) == (6_807_552, 16_785_408)
    assert module.required_macs == 2 * 6_807_552 * 64
    assert module.executed_macs == 2 * 1788 * 64 * 64 * 64
    assert s2_attention(form="masked").executed_macs == 2 * 8 * 2048**2 * 64


def test_a_record_holds_three_numbers_of_a_pattern():
    """3 blocks of 2, a band of one and stripes at every third block, from block 2, 1, 0 of three heads.

    Head 0 sees 3 diagonal blocks (9 causal pairs); head 1 also block 1 from row 2 (+ 4); head 2 also block 0 from
    rows 1 and 2 (+ 8): 9 x 3 + 12 = 39 pairs of 3 x 36.
    """
    row = s2_attention(length=6, heads=3, width=5, block=2, local=1, stride=3)
    assert (row.macs_dense, row.macs_nonzero) == (2 * 108 * 5, 2 * 39 * 5)
    assert row.executed_macs == 2 * (3 + 4 + 5) * 4 * 5


@pytest.mark.parametrize("tokens", [48, 50, 8, 3])
@pytest.mark.parametrize("form", ["blocks", "masked", pytest.param("flex", marks=pytest.mark.slow)])
def test_forms_agree_with_the_reference(form, tokens):
    module = s2_attention(**{**SMALL, "length": tokens}, form=form)
    q, k, v = module.example_inputs(2)
    assert torch.allclose(module(q, k, v), module.reference(q, k, v), atol=module.tolerance)
    assert module.token_pairs == int(module.seen().sum())


def test_a_band_as_long_as_the_sequence_is_dense():
    module = s2_attention(**{**SMALL, "local": 7})
    q, k, v = module.example_inputs(1)
    causal = torch.ones(50, 50, dtype=torch.bool).tril()
    assert torch.allclose(module(q, k, v), masked_attention(q, k, v, causal), atol=1e-5)


def model(**changes):
    torch.manual_seed(0)
    plain = spread(decoder(width=32, layers=2, heads=4, hidden=24, vocabulary=61)).eval()
    return s2_decoder(plain, **{"block": 4, "local": 2, "stride": 4, **changes})


def test_forgetting_what_is_never_read_changes_no_output():
    s2, ids = model(), ids_of(2, 60)
    with torch.no_grad():
        full = s2(ids)
    assert torch.allclose(walk(s2, ids, 21), full[:, 20:], atol=1e-4)
    kept = []

    def check(tokens, cache):
        held = int((cache.kept[0].places >= 0).sum())
        assert held == file.alive_tokens(4, 4, 2, 4, tokens)
        assert cache.kept[0].bytes == 2 * held * 16 * 4 + cache.kept[0].places.numel() * 8
        kept.append(held)

    walk(s2, ids, 21, check)
    assert kept[-1] < 4 * 60


def test_a_decoder_of_equal_stripes_sees_what_the_mask_says():
    keeper = model(homogeneous=True).blocks[0].attention.keeper
    places = torch.arange(24)
    seen = keeper.rule(places, places.expand(4, -1))
    assert torch.equal(seen, file.token_mask(block_mask(4, 6, 2, 4, homogeneous=True), 4, 24))
    assert all(torch.equal(head, seen[0]) for head in seen)
    ids = ids_of(1, 50)
    s2 = model(homogeneous=True)
    with torch.no_grad():
        full = s2(ids)
    assert torch.allclose(walk(s2, ids, 21), full[:, 20:], atol=1e-4)


def test_dense_layers_stay_plain_and_a_long_band_is_the_plain_decoder():
    ids = ids_of(1, 30)
    torch.manual_seed(0)
    plain = spread(decoder(width=32, layers=2, heads=4, hidden=24, vocabulary=61)).eval()
    with torch.no_grad():
        assert torch.allclose(model(local=100)(ids), plain(ids), atol=1e-5)
    mixed = model(dense_layers="alternate")
    kinds = [type(block.attention.keeper).__name__ for block in mixed.blocks]
    assert kinds == ["Keeper", "S2Keeper"]
    with pytest.raises(ValueError, match="kv_heads = heads"):
        s2_decoder(decoder(kv_heads=2))
