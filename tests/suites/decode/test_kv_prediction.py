"""KV Prediction: identity maps, the predicted cache, its training loss, and the sizes of the paper."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from suites.common.decoder import decoder, published_decoder
from suites.common.decoder_shape import cache_bytes_per_token, parameters
from suites.common.decoder_shapes import shape_of
from suites.decode import kv_prediction as file
from suites.decode.kv_prediction import KVPrediction, kv_prediction
from tests.suites.conftest import spread
from tests.suites.decode.walking import ids_of, small, walk


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True, "qkv_bias": True}])
def test_the_base_as_its_own_auxiliary_with_identity_maps_is_the_plain_model(changes):
    model, ids = small(**changes), ids_of(2, 30)
    same = kv_prediction(copy.deepcopy(model), keep_layers=[0, 1])
    assert torch.allclose(walk(same, ids, 20), walk(model, ids, 20), atol=1e-4)
    with torch.no_grad():
        assert torch.allclose(same(ids), model(ids), atol=1e-4)
        true = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        assert same.loss(ids) == pytest.approx(2 * float(true), abs=1e-4)


def apart(**changes):
    """Base and auxiliary of different widths, maps that are no identities."""
    torch.manual_seed(3)
    base, auxiliary = small(layers=3), small(layers=2, width=32, heads=2, kv_heads=1)
    model = KVPrediction(base, auxiliary, [0, 0, 1])
    spread(model.predictor)
    return model.eval()


def test_the_predicted_cache_is_the_map_of_the_auxiliarys_keys_and_values():
    model, ids = apart(), ids_of(1, 9)
    with torch.no_grad():
        _, cache = model.prefill(ids)
        _, own = model.auxiliary.decoder.prefill(ids[:, :8])
        for layer, source in enumerate([0, 0, 1]):
            values = own.kept[source].v.filled.transpose(1, 2).flatten(2)
            wanted = model.predictor.v[layer](values).unflatten(-1, (2, 16)).transpose(1, 2)
            assert torch.allclose(cache.kept[layer].v.filled[:, :, :8], wanted, atol=1e-5)
            attention = model.auxiliary.decoder.blocks[source].attention
            found = model.auxiliary(ids[:, :8])[source][0]
            keys = attention.placed_keys(found.unflatten(-1, (1, 16)).transpose(1, 2), model.base.rotation(0, 8))
            assert torch.allclose(keys, own.kept[source].k.filled, atol=1e-5)
    assert cache.seen == 9 and model.cache_bytes(cache) == 9 * 3 * 2 * 2 * 16 * 4


def test_the_first_token_and_the_parallel_form_agree():
    model, ids = apart(), ids_of(2, 12)
    with torch.no_grad():
        parallel = model(ids)
        for tokens in (1, 2, 7, 12):
            logits, _ = model.prefill(ids[:, :tokens])
            assert torch.allclose(logits, parallel[:, tokens - 1], atol=1e-4)


def test_the_loss_teaches_auxiliary_and_maps_and_leaves_the_base():
    model, ids = apart(), ids_of(4, 24)
    before = copy.deepcopy(model.base.state_dict())
    optimizer = torch.optim.AdamW([p for n, p in model.named_parameters() if not n.startswith("base.")], 1e-2)
    losses = []
    for _ in range(12):
        loss = model.loss(ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is None for p in model.base.parameters())
    assert all(torch.equal(v, before[n]) for n, v in model.base.state_dict().items())


def test_executed_products_until_the_first_token_are_the_closed_form():
    model, ids = apart(), ids_of(1, 9)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model.prefill(ids)
    expected = file.macs_first_token(model.base.shape, model.auxiliary.decoder.shape, [0, 0, 1], 9)
    assert counter.get_total_flops() // 2 == expected


def test_sizes_and_ratio_of_the_papers_pair():
    base, auxiliary = shape_of("openelm_1_1b"), shape_of("openelm_450m")
    mapping = file.early_shared_mapping(28, 20)
    assert mapping == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, *range(8, 20)]
    assert file.predictor_parameters(base, auxiliary, mapping) == 6_206_592
    assert round(parameters(base) / parameters(auxiliary), 4) == 2.3621


def test_method_bytes_are_those_of_auxiliary_and_predictor():
    model = kv_prediction(small(layers=4), keep_layers=[0, 2])
    own = [*model.auxiliary.parameters(), *model.predictor.parameters()]
    assert model.method_bytes() == 4 * sum(p.numel() for p in own)
    assert sum(p.numel() for p in model.predictor.parameters()) == 4 * 2 * 33 * 32
    assert model.predictor.mapping == [0, 0, 1, 1]


def test_a_smaller_sibling_reads_the_prompt_at_the_papers_sizes():
    with torch.device("meta"):
        model = kv_prediction(published_decoder(name="openelm_1_1b"), auxiliary="openelm_450m")
        ids = torch.empty(2, 59, dtype=torch.long)
    base, auxiliary = shape_of("openelm_1_1b"), shape_of("openelm_450m")
    assert sum(p.numel() for p in model.predictor.parameters()) == 6_206_592
    assert model.method_bytes() == 4 * (parameters(auxiliary) + 6_206_592)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        _, cache = model.prefill(ids)
    expected = file.macs_first_token(base, auxiliary, file.early_shared_mapping(28, 20), 59)
    assert counter.get_total_flops() // 2 == 2 * expected
    assert model.cache_bytes(cache) == 2 * 59 * cache_bytes_per_token(base, 4)


def test_a_smaller_sibling_learns_beside_the_base():
    model = kv_prediction(decoder(layers=6), auxiliary="byte_1m")
    assert model.predictor.mapping == [0, 0, 1, 1, 2, 3]
    assert model.loss(torch.randint(256, (2, 12))).requires_grad


def test_wrong_settings_say_what_to_do():
    with pytest.raises(ValueError, match="61 tokens is wanted"):
        kv_prediction(small(), auxiliary="byte_1m")
    with pytest.raises(ValueError, match="4 layers: 1 to 2 are wanted"):
        kv_prediction(small(vocabulary=256), auxiliary="byte_1m")
    with pytest.raises(ValueError, match="keep one"):
        kv_prediction(small(), keep_layers=[0], auxiliary="byte_1m")
    with pytest.raises(ValueError, match="below 2 are wanted"):
        kv_prediction(small(), keep_layers=[0, 2])
    with pytest.raises(ValueError, match="without a task"):
        kv_prediction(small(), training_steps=3)
