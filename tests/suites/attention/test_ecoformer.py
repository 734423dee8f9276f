"""EcoFormer: codes, the linear form, learning a hash, and the printed counts."""

import pytest
import torch
import torch.nn.functional as F

from suites.attention import ecoformer as file
from suites.attention.eco_pvt import eco_pvt, pvt_work
from suites.attention.ecoformer import KernelHash, ecoformer_attention

SMALL = {"widths": [16, 16, 20, 32], "depths": [1, 1, 1, 1], "resolution": 32, "classes": 5}


@pytest.mark.parametrize("form", ["linear", "direct", "released"])
def test_forms_agree_with_weights_written_out(form):
    module = ecoformer_attention(length=30, heads=2, width=8, form=form)
    q, k, v = module.example_inputs(2)
    assert torch.allclose(module(q, k, v), module.reference(q, k, v), atol=module.tolerance)
    if form != "released":
        codes_q, codes_k = (module.hash(F.normalize(x, dim=-1)) for x in (q, k))
        for i in range(30):
            weights = 17 + (codes_q[0, 1, i] * codes_k[0, 1]).sum(-1)
            assert torch.all(weights > 0)
            expected = (weights[:, None] * v[0, 1]).sum(0) / weights.sum()
            assert torch.allclose(module(q, k, v)[0, 1, i], expected, atol=1e-5)


def test_codes_are_signs_of_centred_kernels_and_equal_inputs_have_equal_codes():
    torch.manual_seed(0)
    hashing = KernelHash(2, 8)
    x = F.normalize(torch.randn(2, 2, 6, 8), dim=-1)
    x[1] = x[0]
    hashing.draw_anchors(x, torch.Generator().manual_seed(0))
    codes = hashing(x)
    assert codes.shape == (2, 2, 6, 16) and set(codes.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(codes[0], codes[1])
    distance = torch.stack([((x[0, 1, 3] - a) ** 2).sum() for a in hashing.anchors[1]])
    kernel = torch.exp(-distance / (2 * hashing.spread[1, 0, 0])) - hashing.mean[1, 0]
    assert torch.equal(codes[0, 1, 3], torch.where(hashing.rows[1] @ kernel >= 0, 1.0, -1.0))


def test_integer_codes_give_what_float_codes_give():
    codes = torch.randint(0, 2, (1, 2, 20, 16)) * 2 - 1
    v = torch.randint(-9, 9, (1, 2, 20, 4))
    top = codes @ (codes.transpose(2, 3) @ v) + 17 * v.sum(2, keepdim=True)
    bottom = codes @ codes.sum(2)[..., None] + 17 * 20
    as_floats = file.coded_attention(codes.double(), codes.double(), v.double())
    assert torch.allclose(as_floats, top.double() / bottom.double())


def test_the_gradient_of_a_sign_passes_within_one():
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    y = file._StraightSign.apply(x)
    y.sum().backward()
    assert y.tolist() == [-1, -1, 1, 1, 1] and x.grad.tolist() == [0, 1, 1, 1, 0]


def test_targets_name_the_most_and_the_least_similar():
    x = F.normalize(torch.randn(1, 30, 8), dim=-1)
    targets = file.similarity_targets(x, 4)
    similarity = x[0] @ x[0].t()
    for i in range(30):
        order = similarity[i].argsort(descending=True).tolist()
        assert {j for j in range(30) if targets[0, i, j] == 1} == set(order[:4])
        assert {j for j in range(30) if targets[0, i, j] == -1} == set(order[-4:])


def test_learning_keeps_a_row_only_if_its_loss_fell():
    torch.manual_seed(0)
    hashing = KernelHash(1, 8, bits=4)
    x = F.normalize(torch.randn(2, 1, 40, 8), dim=-1)
    before = hashing.rows.clone()
    hashing.learn(x, steps=20, rate=5e-3)
    assert not torch.equal(hashing.rows, before)
    kernels = torch.randn(1, 20, 25)
    start = torch.randn(25)
    assert torch.equal(file.learned_row(kernels, torch.zeros(1, 20, 20), start, 5, 0.1), start)


def test_the_network_learns_its_hashes_layer_by_layer():
    torch.manual_seed(0)
    model = eco_pvt(**SMALL)
    images = model.example_inputs(2)[0]
    hashes = [m.hash for m in model.modules() if isinstance(m, file.Attention) and m.hash is not None]
    assert len(hashes) == 3
    before = [h.anchors.clone() for h in hashes]
    with torch.no_grad():
        out = model(images)
    model.learn_hashes(F.interpolate(images, 64), steps=3)
    assert out.shape == (2, 5)
    assert all(not torch.equal(h.anchors, old) for h, old in zip(hashes, before, strict=True))


def test_counts_and_energy_are_the_printed_ones():
    eco, plain = pvt_work("b0"), pvt_work("b0", coded=False)
    assert round(eco.multiplications / 1e9, 4) == 0.5354 and round(eco.additions / 1e9, 4) == 0.5648
    assert round(eco.joules * 1e3, 3) == 2.489
    assert round(plain.multiplications / 1e9, 4) == 2.0159 and round(plain.additions / 1e9, 4) == 1.9933
    assert round(plain.joules * 1e3, 4) == 9.2527
    assert round(100 * (1 - eco.joules / plain.joules)) == 73
    with torch.device("meta"):
        model = eco_pvt()
    assert sum(p.numel() for p in model.parameters()) == 3_136_328


@pytest.mark.parametrize(
    "size, coded, softmax",
    [
        ("b1", (2.0296, 2.0889, 9.390), (5.0191, 4.9966, 23.068)),
        ("b2", (3.8528, 3.9652, 17.824), (8.6407, 8.6050, 39.715)),
        ("b3", (6.5415, 6.7151, 30.247), (11.8613, 11.8233, 54.528)),
        ("b4", (9.5713, 9.8236, 44.255), (15.9724, 15.9278, 73.433)),
    ],
)
def test_larger_sizes_are_those_of_the_page_of_findings(size, coded, softmax):
    for works, expected in ((pvt_work(size), coded), (pvt_work(size, coded=False), softmax)):
        found = (works.multiplications / 1e9, works.additions / 1e9, works.joules * 1e3)
        assert tuple(round(value, places) for value, places in zip(found, (4, 4, 3), strict=True)) == expected


def test_sizes_that_do_not_fit_say_so():
    with pytest.raises(ValueError, match="multiple of 32"):
        eco_pvt(resolution=100)
