"""Spark: a top-k without sorting, units and keys that are predicted, sparse forms, and counts."""

import pytest
import torch
import torch.nn.functional as F

from suites.attention import spark as file
from suites.attention.spark import SparkFFN, SparkKeeper, spark, spark_decoder, statistical_topk
from suites.common.decoder import decoder
from suites.common.decoder_cache import pair
from suites.common.rotary import rotated, rotation
from tests.suites.conftest import spread
from tests.suites.decode.walking import ids_of, small, walk


@pytest.mark.parametrize("form", ["statistical", "topk", "sort"])
def test_the_operator_agrees_with_its_reference(form):
    module = statistical_topk(size=500, k=40, rows=3, form=form)
    x = module.example_inputs(2)[0]
    assert torch.allclose(module(x), module.reference(x), atol=module.tolerance)
    kept = module.declares(x)
    if form == "statistical":  # only about so many
        assert kept["kept_min"] < kept["kept_mean"] < kept["kept_max"] and abs(kept["kept_mean"] - 40) < 5
    else:
        assert torch.all((module(x) > 0).sum(-1) == 40) and set(kept.values()) == {40}


@pytest.mark.parametrize("k", [10, 80, 500])
def test_about_k_of_gaussian_numbers_stay_and_the_threshold_shifts_with_them(k):
    x = torch.randn(200, 1000)
    kept = (x > file.threshold(x, k)).sum(-1).double()
    assert abs(kept.mean() - k) < 5 * (k / 200) ** 0.5 + 0.02 * k
    assert torch.all((kept - k).abs() < 6 * k**0.5 + 2)
    assert torch.allclose(file.threshold(x + 3, k), file.threshold(x, k) + 3, atol=1e-4)


@pytest.mark.parametrize("form", ["statistical", "topk", "sort"])
def test_all_of_them_kept_are_the_numbers_as_they_are(form):
    """No number is dropped, so that there is no threshold to take off: n = k = 7."""
    module = statistical_topk(size=7, k=7, rows=2, form=form)
    x = module.example_inputs(3)[0]
    assert torch.equal(module(x), x) and torch.equal(module.reference(x), x)


def test_a_mask_limits_the_statistics_to_what_is_there():
    x, seen = torch.randn(1, 50), torch.zeros(1, 50, dtype=torch.bool)
    seen[0, :30] = True
    assert torch.allclose(file.threshold(x, 5, seen=seen), file.threshold(x[:, :30], 5), atol=1e-5)
    assert file.threshold(x, 30, seen=seen) == -torch.inf


def ffn(form, k=20):
    torch.manual_seed(0)
    return spread(SparkFFN(16, 60, 8, k, form))


def test_units_are_predicted_from_part_of_the_input():
    x = torch.randn(1, 1, 16)
    with torch.no_grad():
        masked, gathered = ffn("masked"), ffn("gathered")
        u = masked.predict @ x[0, 0, :8]
        theta = u.mean() + u.std(correction=0) * file.gaussian_quantile(20, 60)
        gate = F.gelu((u - theta).clamp(min=0))
        expected = masked.down.t() @ (gate * (masked.up @ x[0, 0, 8:]))
        assert torch.allclose(masked(x)[0, 0], expected, atol=1e-5)
        assert torch.allclose(gathered(x), masked(x), atol=1e-5)
        assert int(gathered.kept) == int(masked.kept) == int((gate != 0).sum())


def test_all_units_and_all_keys_make_sparse_and_dense_agree():
    x = torch.randn(1, 1, 16)
    with torch.no_grad():
        all_units = ffn("masked", k=60)
        u = F.gelu(F.linear(x[..., :8], all_units.predict))
        dense = (u * F.linear(x[..., 8:], all_units.up)) @ all_units.down
        assert torch.allclose(all_units(x), dense, atol=1e-6)
        assert torch.allclose(ffn("gathered", k=60)(x), dense, atol=1e-5)


def slow_attention(q, k, v, split, count):
    """One query per head over all keys, by loops."""
    out = []
    for h in range(q.shape[0]):
        keys, values = k[h * k.shape[0] // q.shape[0]], v[h * k.shape[0] // q.shape[0]]
        scores = keys[:, :split] @ q[h, :split]
        theta = -torch.inf
        if len(scores) > count:
            theta = scores.mean() + scores.std(correction=0) * file.gaussian_quantile(count, len(scores))
        live = [j for j in range(len(scores)) if scores[j] > theta]
        weights = (scores[live] * split**-0.5).softmax(0)
        rest = F.softplus(keys[live][:, split:] @ q[h, split:] * (q.shape[1] - split) ** -0.5)
        out.append((weights * rest) @ values[live])
    return torch.stack(out)


@pytest.mark.parametrize("form", ["masked", "gathered"])
@pytest.mark.parametrize("count", [4, 12, 100])
def test_keys_are_picked_and_weighed_as_described(form, count):
    keeper = SparkKeeper(8, count, form)
    q, k, v = (torch.randn(1, heads, 30, 16, dtype=torch.double) for heads in (4, 2, 2))
    whole = keeper.attend(q, k, v)
    kept = pair(k[:, :, :20], v[:, :, :20])
    for i in range(20, 30):
        now = slice(i, i + 1)
        out, kept = keeper.step(q[:, :, now], k[:, :, now], v[:, :, now], kept)
        expected = slow_attention(q[0, :, i], k[0, :, : i + 1], v[0, :, : i + 1], 8, count)
        assert torch.allclose(out[0, :, 0], expected, atol=1e-9)
        assert torch.allclose(whole[0, :, i], expected, atol=1e-9)


@pytest.mark.parametrize("form", ["masked", "gathered"])
def test_a_query_that_keeps_no_key_gets_zeros(form):
    """Equal scores have no deviation, so that theta is each of them and none is above it.

    Scores of 1 and -1 in turn have mean 0 and deviation 1: with k = 1 of 10 theta is Phi^-1(0.9) = 1.28, above all.
    """
    keeper = SparkKeeper(2, 1, form)
    q, v = torch.tensor([[[[1.0, 0.0, 0.5, 0.5]]]]), torch.randn(1, 1, 10, 4)
    for firsts in ([1.0] * 10, [1.0, -1.0] * 5):
        k = torch.zeros(1, 1, 10, 4)
        k[0, 0, :, 0] = torch.tensor(firsts)
        out, _ = keeper.step(q, k[:, :, 9:], v[:, :, 9:], pair(k[:, :, :9], v[:, :, :9]))
        assert torch.equal(out, torch.zeros(1, 1, 1, 4))
        assert torch.isfinite(keeper.attend(q.expand(1, 1, 10, 4), k, v)).all()


def test_both_halves_of_a_head_know_distances_alone():
    """A score of either half depends on how far apart two tokens are, as rotary positions promise."""
    attention = spark(small(), units=10, keys=8).blocks[0].attention.double()
    q, k = (torch.randn(1, 1, 1, 16, dtype=torch.double) for _ in range(2))

    def scores(place):
        like = torch.zeros((), dtype=torch.double)
        a = attention.placed_queries(q, rotation(place + 5, 1, 16, like))
        b = attention.placed_keys(k, rotation(place, 1, 16, like))
        return torch.stack([(a[..., part] * b[..., part]).sum() for part in (slice(0, 8), slice(8, 16))])

    assert torch.allclose(scores(0), scores(40), atol=1e-9)
    # each half is a head of 8 numbers of its own
    like = torch.zeros((), dtype=torch.double)
    expected = [rotated(part, rotation(7, 1, 8, like)) for part in q.chunk(2, dim=-1)]
    assert torch.allclose(attention.placed_queries(q, rotation(7, 1, 16, like)), torch.cat(expected, dim=-1))
    with pytest.raises(ValueError, match="multiple of 4"):
        spark(small(head=6))


@pytest.mark.parametrize("parts", [(True, True), (True, False), (False, True)])
def test_a_prompt_and_steps_equal_one_parallel_forward_in_both_forms(parts):
    ids, logits = ids_of(1, 40), []
    for form in ("masked", "gathered"):
        model = spread(spark(small(), ffn=parts[0], attention=parts[1], units=10, keys=8, form=form))
        with torch.no_grad():
            full = model(ids)
        logits.append(walk(model, ids, 20))
        assert torch.allclose(logits[-1], full[:, 19:], atol=1e-3)
    assert torch.allclose(*logits, atol=1e-3)


def test_the_network_has_as_many_parameters_as_the_gated_one():
    plain = sum(p.numel() for p in small().parameters())
    assert sum(p.numel() for p in spark(small(), units=5).parameters()) == plain
    with pytest.raises(ValueError, match="the network has 72"):
        spark(small(), units=73)
    with pytest.raises(ValueError, match="at most as many"):
        statistical_topk(size=4, k=5)


def test_a_decoder_with_spark_from_the_start_learns_through_every_part():
    """Of as many parameters as the plain one; the loss of a text reaches what predicts, widens and narrows."""
    model = spark_decoder(width=32, layers=2, heads=2, hidden=48, units=20, keys=4).train()
    plain = decoder(width=32, layers=2, heads=2, hidden=48)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in plain.parameters())
    ids = torch.randint(256, (3, 17), generator=torch.Generator().manual_seed(0))
    F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_counts_are_those_of_the_brief():
    assert file.ffn_macs(2304, 13_824, 1024, 1106) == 18_119_680
    assert 3 * 2304 * 9216 == 63_700_992
    assert file.attention_macs(2048, 8, 256, 128) == 2_883_584
    assert 2 * 2048 * 8 * 256 == 8_388_608
