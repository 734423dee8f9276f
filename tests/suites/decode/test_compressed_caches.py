"""Caches that pack older tokens: their numbers, their bytes, and that nothing packed is nothing changed."""

import copy
import math

import pytest
import torch

from suites.common.decoder_cache import grouped_mix, grouped_scores
from suites.decode import million as million_file
from suites.decode import mustafar as mustafar_file
from suites.decode import vidkv as vidkv_file
from suites.decode.bits import packed, quantised, restored, unpacked
from suites.decode.compressed import CompressingKeeper, packed_tokens
from suites.decode.million import million
from suites.decode.mustafar import mustafar
from suites.decode.plain import dynamic_cache, sliding_window, uniform_cache
from suites.decode.vidkv import vidkv
from tests.suites.decode.walking import ids_of, keepers, small, walk

METHODS = {
    "int8": (uniform_cache, {"bits": 8, "group": 8}),
    "int4": (uniform_cache, {"bits": 4, "group": 8}),
    "int2": (uniform_cache, {"bits": 2, "group": 8}),
    "vidkv": (vidkv, {"group": 8, "residual": 8}),
    "vidkv_plain_signs": (vidkv, {"key_bits": 1.25, "group": 8, "residual": 8}),
    "vidkv_2": (vidkv, {"key_bits": 2.0, "value_bits": 2.0, "group": 8, "residual": 8}),
    "mustafar": (mustafar, {"sparsity": 0.5, "residual": 4, "chunk": 64}),
    "mustafar_csr": (mustafar, {"sparsity": 0.7, "form": "csr", "residual": 4, "chunk": 64}),
    "mustafar_masked": (mustafar, {"sparsity": 0.7, "form": "masked", "residual": 4, "chunk": 64}),
    "million": (million, {"parts": 8, "bits": 4, "residual": 16, "calibration_tokens": 256}),
}


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12])
def test_codes_survive_their_packing(bits):
    codes = torch.randint(2**bits, (3, 5, 16))
    bytes_ = packed(codes, bits)
    assert bytes_.dtype == torch.uint8 and bytes_.shape[-1] == 16 * bits // 8
    assert torch.equal(unpacked(bytes_, bits), codes)


def test_quantised_numbers_are_within_half_a_step():
    x = torch.randn(4, 9, 6)
    codes, scale, low = quantised(x, 4, dim=1)
    assert int(codes.min()) >= 0 and int(codes.max()) <= 15 and scale.shape == (4, 1, 6)
    error = (restored(codes, scale, low, x.dtype) - x).abs()
    assert torch.all(error <= 0.5 * scale.float() + 0.01 * x.abs().max())
    constant, _, low = quantised(torch.full((2, 3), 0.25), 4, dim=1)
    assert torch.equal(constant, torch.zeros(2, 3, dtype=torch.int32)) and torch.all(low == 0.25)


@pytest.mark.parametrize(
    "method, chosen",
    [
        (uniform_cache, {"bits": 2, "group": 64}),
        (vidkv, {"residual": 64}),
        (mustafar, {"residual": 64, "chunk": 64}),
        (mustafar, {"residual": 64, "chunk": 64, "form": "csr"}),
        (million, {"parts": 8, "bits": 1, "residual": 64, "calibration_tokens": 32}),
        (dynamic_cache, {}),
        (sliding_window, {"window": 64, "sinks": 0}),
    ],
)
def test_tokens_that_stay_plain_give_the_plain_model_bit_for_bit(method, chosen):
    model, ids = small(), ids_of(2, 40)
    plain = walk(model, ids, 30)
    assert torch.equal(walk(method(copy.deepcopy(model), **chosen), ids, 30), plain)


@pytest.mark.parametrize("form", ["bitmap", "csr", "masked"])
def test_mustafar_that_prunes_nothing_gives_the_plain_logits(form):
    model, ids = small(), ids_of(2, 150)
    plain = walk(model, ids, 140)
    reduced = mustafar(copy.deepcopy(model), sparsity=1.9 / 16, form=form, chunk=64)
    assert torch.allclose(walk(reduced, ids, 140), plain, atol=1e-4)


def test_million_with_a_centroid_for_every_vector_gives_the_plain_logits():
    model = small(layers=1, heads=2, kv_heads=1, width=32)
    ids = ids_of(1, 40)
    with torch.no_grad():
        _, cache = model.prefill(ids)
    reduced = million(copy.deepcopy(model), parts=1, bits=8, residual=8, calibration_tokens=8)
    books = keepers(reduced)[0].books
    for name in ("keys", "values"):
        line = getattr(cache.kept[0], name[0])
        rows = line.filled.flatten(0, 2)
        setattr(books, name, million_file.centroids(rows, 256, 0)[None])
    assert torch.allclose(walk(reduced, ids, 20), walk(model, ids, 20), atol=1e-4)


def unpacked_reference(model, ids, prompt):
    """The same walk with every packed part multiplied through its dense copy."""
    for keeper in keepers(model):
        keeper.scores = lambda q, old, own=keeper: grouped_scores(q, own.unpack(old, q.dtype)[0])
        keeper.mix = lambda w, old, own=keeper: grouped_mix(w, own.unpack(old, w.dtype)[1])
    return walk(model, ids, prompt)


@pytest.mark.parametrize("name", METHODS)
def test_products_with_packed_numbers_are_those_with_their_dense_copy(name):
    method, chosen = METHODS[name]
    model, ids = method(small(), **chosen), ids_of(2, 150)
    fast = walk(model, ids, 130)
    assert torch.allclose(fast, unpacked_reference(model, ids, 130), atol=1e-4)
    assert any(isinstance(keeper, CompressingKeeper) for keeper in keepers(model))


@pytest.mark.parametrize("name", METHODS)
def test_sequences_of_a_batch_do_not_touch_each_other(name):
    method, chosen = METHODS[name]
    model, ids = method(small().double(), **chosen), ids_of(3, 90)
    alone = torch.cat([walk(model, row[None], 80) for row in ids])
    assert torch.allclose(walk(model, ids, 80), alone, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_several_tokens_at_once_see_what_single_steps_see(name):
    method, chosen = METHODS[name]
    model, ids = method(small(), **chosen), ids_of(2, 84)
    with torch.no_grad():
        _, cache = model.prefill(ids[:, :81])
        together, _ = model.decode(ids[:, 81:], model.copy_cache(cache))
    if name.startswith(("int", "million")):  # a chunk may be packed between two single steps
        assert together.shape == (2, 61)
        return
    assert torch.allclose(together, walk(model, ids, 81)[:, -1], atol=1e-4)


def per_token(name, packed_count):
    """Bytes of `packed_count` packed tokens of a layer (batch 1, two key heads of 16) by hand; fp16 scales."""
    groups = packed_count // 8
    by_name = {
        # keys: 8 channels at 2 bits (2 B), 10 spectrum numbers (2 B); per group 8 x 4 B and 10 x 2 B; order 16 B a
        # head.
        "vidkv": packed_count * 2 * (2 + 2 + 4) + groups * 2 * (8 * 4 + 10 * 2 + 16 * 2) + (32 if packed_count else 0),
        "vidkv_plain_signs": (
            packed_count * 2 * (1 + 2 + 4) + groups * 2 * (4 * 4 + 12 * 2 + 16 * 2) + (32 if packed_count else 0)
        ),
        "million": packed_count * 2 * 2 * 8 * 4 // 8,
        "mustafar_csr": packed_count * 2 * 2 * 6 * 8 + (2 * 2 * 4 * (packed_count + 1) if packed_count else 0),
    }
    if name.startswith("int"):
        return packed_count * 32 * int(name[3:]) // 8 * 2 + packed_count * 2 * 2 * 4 + groups * 32 * 4
    return by_name[name]


@pytest.mark.parametrize("name", ["int8", "int4", "vidkv", "vidkv_plain_signs", "million", "mustafar_csr"])
def test_cache_bytes_are_the_closed_form_at_every_length(name):
    method, chosen = METHODS[name]
    model, ids = method(small(), **chosen), ids_of(1, 150)
    keeper = keepers(model)[0]
    lengths = []

    def check(tokens, cache):
        count = packed_tokens(tokens, keeper.residual, keeper.chunk)
        plain = (tokens - count) * 2 * 2 * 16 * 4
        assert model.cache_bytes(cache) == 2 * (plain + per_token(name, count))
        lengths.append(count)

    walk(model, ids, 60, check)
    assert len(set(lengths)) > 1


def test_mustafar_keeps_the_largest_numbers_and_no_short_context():
    x = torch.randn(50, 128)
    kept = mustafar_file.pruned(x, 0.5)
    assert torch.all((kept != 0).sum(-1) == 65) and mustafar_file.survivors(128, 0.5) == 65
    for row, pruned_row in zip(x[:5], kept[:5], strict=True):
        largest = sorted(row.abs().tolist())[63:]
        assert sorted(pruned_row[pruned_row != 0].abs().tolist()) == largest
    assert mustafar_file.survivors(16, 1.9 / 16) == 16
    assert [packed_tokens(n, 32, 256) for n in (31, 287, 288, 543, 544)] == [0, 0, 256, 256, 512]


def test_a_bitmap_form_holds_the_tiles_it_was_made_of_and_its_bytes_are_the_papers():
    x = mustafar_file.pruned(torch.randn(2, 3, 64, 128), 0.5)
    form = mustafar_file.compressed(x.unflatten(3, (-1, 64)))
    assert torch.equal(mustafar_file.dense_tiles(form).flatten(3), x)
    units = sum(math.ceil(int((tile != 0).sum()) / 8) for tile in x.reshape(-1, 64))
    assert form.values.numel() == 8 * units and form.bits.numel() == x.numel() // 8
    least, most = mustafar_file.value_bytes_per_token(128, 65)
    assert (least, most) == (168, 168)
    assert round(least / 256, 3) == 0.656


def test_ternary_values_pass_a_threshold_and_are_the_mean_of_what_passes():
    x = torch.randn(2, 8, 3)
    codes, scale = vidkv_file.ternary_codes(x, 0.7)
    for b in range(2):
        for c in range(3):
            column = x[b, :, c]
            bound = 0.7 * column.abs().mean()
            passed = [abs(v) for v in column.tolist() if abs(v) > bound]
            assert float(scale[b, 0, c]) == pytest.approx(sum(passed) / len(passed), rel=1e-3)
            signs = [0 if abs(v) <= bound else (1 if v > 0 else -1) for v in column.tolist()]
            assert (codes[b, :, c] - 1).tolist() == signs


def test_vidkv_keys_keep_their_wide_channels_well_and_the_signs_of_the_others_spectrum():
    keeper = keepers(vidkv(small(), group=8, residual=0))[0]
    k = torch.randn(1, 2, 16, 16) * torch.linspace(0.1, 4, 16)
    wanted = torch.empty_like(k)
    for head in range(2):
        width = (k[0, head].amax(0) - k[0, head].amin(0)).argsort(descending=True)
        for start in (0, 8):
            rows = k[0, head, start : start + 8]
            wide = rows[:, width[:8]]
            low = wide.amin(0).half().float()
            step = ((wide.amax(0) - low) / 3).half().float()
            wanted[0, head, start : start + 8, width[:8]] = ((wide - low) / step).round().clamp(0, 3) * step + low
            spectrum = torch.fft.fft(rows[:, width[8:]], norm="ortho")[:, :5]
            real = torch.where(spectrum.real > 0, 1.0, -1.0) * spectrum.real.abs().mean(0).half().float()
            imag = torch.where(spectrum.imag > 0, 1.0, -1.0) * spectrum.imag.abs().mean(0).half().float()
            whole = torch.complex(real, imag)
            wanted[0, head, start : start + 8, width[8:]] = torch.fft.irfft(whole, n=8, norm="ortho")
    restored_keys, _ = keeper.unpack(keeper.pack(k, torch.randn(1, 2, 16, 16)), torch.float32)
    assert torch.allclose(restored_keys, wanted, atol=1e-5)


def test_vidkv_bits_are_those_of_the_brief():
    assert vidkv_file.nominal_bits(1.5, 1.58) == pytest.approx(1.54)
    assert vidkv_file.nominal_bits(1.5, 1.58, 0.2) == pytest.approx((1.5 + 1.664) / 2)
    assert vidkv_file.released_bits(0.5) == (3.5, 3.0)
    assert sum(vidkv_file.released_bits(0.5)) / 2 == 3.25


def test_vidkv_keeps_the_values_of_salient_tokens_at_two_bits():
    model, ids = small(), ids_of(2, 60)
    some = vidkv(copy.deepcopy(model), salient=0.5, prefix=32, group=8, residual=8)
    with torch.no_grad():
        picked = some.relevant(ids)
        embedded = model.embed.weight[ids]
        relevance = torch.einsum("bvd,btd->bv", embedded[:, :32], embedded[:, 32:]) / 28
        _, cache = some.prefill(ids)
    assert picked.shape == (2, 16)
    for row, scores in zip(picked, relevance, strict=True):
        assert set(row.tolist()) == set(scores.topk(16).indices.tolist())
    k, v = keepers(some)[0].unpack(cache.kept[0].old, torch.float32)
    assert k.shape == v.shape == (2, 2, 48, 16)
    assert walk(some, ids, 56).shape == (2, 5, 61)
    assert some.cache_bits()["stored"] > vidkv(small(), group=8, residual=8).cache_bits()["stored"]
    with pytest.raises(ValueError, match="set prefix"):
        vidkv(small(), salient=0.2)
    with pytest.raises(ValueError, match="lower residual"):
        some.prefill(ids[:, :36])


@pytest.mark.parametrize("name", ["int8", "int4", "vidkv", "vidkv_plain_signs", "million"])
def test_stored_bits_are_what_a_long_cache_takes(name):
    method, chosen = METHODS[name]
    model, ids = method(small(), **chosen), ids_of(1, 256 + chosen.get("residual", 0) % 16)
    with torch.no_grad():
        _, cache = model.prefill(ids)
    count = cache.kept[0].count
    order = 32 if name.startswith("vidkv") else 0
    bits = 8 * (cache.kept[0].bytes - cache.kept[0].recent.bytes - order) / (count * 2 * 2 * 16)
    assert model.cache_bits()["stored"] == pytest.approx(bits)


def test_kmeans_finds_what_is_there():
    points = torch.tensor([[0.0, 0.0], [0.0, 0.2], [5.0, 5.0], [5.0, 5.2]])
    found = million_file.centroids(points, 4, 3)
    assert {tuple(row) for row in found.tolist()} == {tuple(row) for row in points.tolist()}
    means = million_file.centroids(points.repeat(4, 1) + 1e-3 * torch.randn(16, 2), 2, 20, seed=1)
    near = million_file.nearest(points, means)
    assert near[0] == near[1] != near[2] == near[3]
    distances = torch.cdist(points, means)
    assert torch.equal(near, distances.argmin(1))


def test_million_codes_take_the_bytes_of_the_brief():
    sizes = million_file.cache_bytes(4096, 32, 32, 128, parts=64, bits=8)
    assert sizes == {"codes": 520_093_696, "residual": 67_108_864, "codebooks": 131_072}
    dense = 4096 * 524_288
    assert round(sum(sizes.values()) / dense, 5) == 0.27350


def test_codebooks_are_the_methods_bytes_and_held_once():
    model = million(small(), parts=8, bits=4, calibration_tokens=64)
    assert model.method_bytes() == 2 * 16 * 16 * 4


def test_wrong_settings_say_what_to_do():
    with pytest.raises(ValueError, match="does not divide a head of 16"):
        million(small(), parts=5)
    with pytest.raises(ValueError, match="bits must be"):
        million(small(), parts=8, bits=3)
    with pytest.raises(ValueError, match="take a multiple"):
        mustafar(small(), chunk=100)
    with pytest.raises(ValueError, match="already changed"):
        million(uniform_cache(small()))
