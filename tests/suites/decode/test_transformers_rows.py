"""transformers' rows run the same weights: their numbers and their text are the plain decoder's."""

from importlib.util import find_spec

import pytest
import torch

from suites.common.decoder import decoder
from suites.common.decoder_shape import cache_bytes_per_token
from suites.common.speculation import greedy
from suites.decode.plain import sliding_window

if find_spec("transformers") is None:
    pytest.skip("transformers is not installed", allow_module_level=True)

from suites.decode.transformers_rows import transformers_assisted, transformers_decoder


def small():
    torch.manual_seed(3)
    return decoder(width=64, layers=4, heads=4, kv_heads=2, hidden=48)


def prompt():
    torch.manual_seed(4)
    ids = torch.randint(256, (2, 20))
    return torch.cat([ids, ids], dim=1)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_every_cache_gives_the_plain_text_and_keeps_the_plain_bytes(cache):
    ids, plain = prompt(), small()
    row = transformers_decoder(small(), cache=cache, capacity=100)
    with torch.no_grad():
        assert torch.allclose(row(ids), plain(ids), atol=1e-5)
        assert torch.equal(greedy(row, ids, 12), greedy(plain, ids, 12))
        _, kept = row.prefill(ids)
        for place in range(3):
            _, kept = row.decode(ids[:, place : place + 1], kept)
    per_token = cache_bytes_per_token(plain.shape, 4)
    assert row.cache_bytes(kept) == 2 * 43 * per_token
    assert row.cache_allocated(kept) == 2 * (100 if cache == "static" else 43) * per_token


def test_a_sliding_cache_gives_the_window_of_ours_and_keeps_no_more():
    ids, ours = prompt(), sliding_window(small(), window=16, sinks=0)
    row = transformers_decoder(small(), cache="sliding", window=16)
    with torch.no_grad():
        assert torch.allclose(row(ids), ours(ids), atol=1e-5)
        assert torch.equal(greedy(row, ids, 12), greedy(ours, ids, 12))
        _, kept = row.prefill(ids)
    # The library drops the oldest token before the next one comes: 15 between steps where the window is 16.
    assert row.cache_bytes(kept) == 2 * 15 * cache_bytes_per_token(small().shape, 4)


@pytest.mark.parametrize("draft", ["lookup", "exit"])
def test_assisted_decoding_gives_the_plain_text_in_fewer_steps(draft):
    ids = prompt()
    row = transformers_assisted(small(), draft=draft)
    with torch.no_grad():
        assert torch.equal(row.write(ids, 16), greedy(small(), ids, 16))
    assert 1 <= row.written()["tokens_per_step"] <= 5


def test_weights_are_shared_not_copied():
    plain = small()
    row = transformers_decoder(plain)
    assert row.model.lm_head.weight is plain.head.weight
    assert sum(p.numel() for p in row.parameters()) == sum(p.numel() for p in plain.parameters())


def test_what_llama_has_not_is_refused():
    with pytest.raises(ValueError, match="Llama has neither biases nor norms"):
        transformers_decoder(decoder(width=64, layers=2, heads=4, hidden=48, qk_norm=True))
    with pytest.raises(ValueError, match="fewer than"):
        transformers_assisted(small(), draft="exit", exit=4)
