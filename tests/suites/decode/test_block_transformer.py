"""Block Transformer: causality, incremental and parallel forms, and its counts."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from suites.decode import block_transformer as file
from suites.decode.block_transformer import block_transformer
from tests.suites.conftest import spread
from tests.suites.decode.walking import ids_of, walk


def small(**changes):
    settings = {"width": 32, "heads": 2, "block_layers": 2, "token_layers": 2, "vocabulary": 61}
    torch.manual_seed(0)
    return spread(block_transformer(**{**settings, **changes})).eval()


def slow_logits(model, ids):
    """Logits after each position of one sequence that starts at a block, block by block without any cache."""
    out, block, pad = [], model.block, model.vocabulary
    for place in range(1, len(ids) + 1):
        start = place // block * block
        vectors = [torch.cat([model.embed_block.weight[pad]] * block)]
        for first in range(0, start, block):
            vectors.append(torch.cat([model.embed_block.weight[i] for i in ids[first : first + block].tolist()]))
        x = model.blocks(torch.stack(vectors)[None])[0, -1]
        prefix = model.prefixes(x)
        inside = [*prefix, *(model.embed_token.weight[i] for i in ids[start:place].tolist())]
        spelt = model.tokens(torch.stack(inside)[None])[0, -1]
        out.append(model.head(model.norm(spelt)))
    return torch.stack(out)


def test_parallel_logits_are_those_of_the_slow_reference():
    model, ids = small(), ids_of(2, 13)
    with torch.no_grad():
        expected = torch.stack([slow_logits(model, row) for row in ids])
        assert torch.allclose(model(ids), expected, atol=1e-5)


@pytest.mark.parametrize("block", [1, 2, 4])
@pytest.mark.parametrize("prompt", [4, 8])
def test_a_prompt_and_steps_equal_one_parallel_forward(block, prompt):
    model, ids = small(block=block), ids_of(2, 19)
    with torch.no_grad():
        assert torch.allclose(walk(model, ids, prompt), model(ids)[:, prompt - 1 :], atol=1e-4)


def test_a_prompt_that_fills_no_block_is_padded_on_the_left():
    model, ids = small(), ids_of(2, 11)
    padded = torch.nn.functional.pad(ids, (2, 0), value=61)
    with torch.no_grad():
        expected = model(torch.nn.functional.pad(padded, (0, 0)))[:, 7:]
        assert torch.allclose(walk(model, ids, 6), expected, atol=1e-4)


@pytest.mark.parametrize("block", [1, 4])
def test_a_changed_token_changes_nothing_before_it(block):
    model, ids = small(block=block), ids_of(1, 16)
    with torch.no_grad():
        plain = model(ids)
        for place in range(16):
            other = ids.clone()
            other[0, place] = (ids[0, place] + 1) % 61
            changed = (model(other) != plain).any(dim=-1)[0]
            assert not changed[:place].any() and changed[place]


def test_a_changed_token_leaves_the_prefix_of_its_own_block():
    model, ids = small(), ids_of(1, 16)
    other = ids.clone()
    other[0, 9] = (ids[0, 9] + 1) % 61
    with torch.no_grad():
        parts = []
        for given in (ids, other):
            vectors = model.vectors(model.padded(given, 4, 0))
            parts.append(model.prefixes(model.blocks(vectors)))
    assert torch.equal(parts[0][:, :3], parts[1][:, :3]) and not torch.allclose(parts[0][:, 3], parts[1][:, 3])


def test_cache_bytes_are_the_closed_form_at_every_length():
    model = small()

    def check(tokens, cache):
        blocks, inside = 1 + 2 + (tokens - 8) // 4, (tokens - 8) % 4
        line = 2 * 2 * 32 * 4
        assert model.cache_bytes(cache) == 3 * (line * blocks + line * (2 + inside) + 8 * inside)

    walk(model, ids_of(3, 30), 8, check)


def test_the_cache_that_stays_is_an_eighth_of_a_plain_decoders():
    assert file.cache_bytes_per_token(768, 6) == 4608
    assert 8 * file.cache_bytes_per_token(768, 6) == 2 * 12 * 768 * 2


def test_weights_and_products_are_those_of_the_brief():
    assert file.layer_weights(768, 12) == 84_934_656
    assert file.layer_macs_per_token(768, 6, 6) == 63_700_992
    with torch.device("meta"):
        model = block_transformer(width=768, heads=12, block_layers=6, token_layers=6, vocabulary=50_304)
    stacks = [p.numel() for s in (model.blocks, model.tokens) for n, p in s.named_parameters() if "norm" not in n]
    assert sum(stacks) == 84_934_656


def test_executed_products_of_a_block_are_the_closed_form():
    model, ids = small(), ids_of(1, 12)
    with torch.no_grad():
        _, cache = model.prefill(ids[:, :8])
        for i in range(3):
            _, cache = model.decode(ids[:, 8 + i : 9 + i], cache)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        for i in range(4):
            _, cache = model.decode(ids[:, i : i + 1], cache)
    assert counter.get_total_flops() // 2 == file.macs_block(32, 2, 2, 61, 4)


def test_wrong_settings_say_what_to_do():
    with pytest.raises(ValueError, match="not a multiple"):
        block_transformer(width=30, heads=4)
    model = small()
    with torch.no_grad():
        _, cache = model.prefill(ids_of(1, 4))
    with pytest.raises(ValueError, match="one token at a time"):
        model.decode(ids_of(1, 2), cache)
