"""SLAB: the norm's schedule and folding, the two orders of linear attention, and counts."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from suites.attention import slab as file
from suites.attention.slab import slab_vit
from tests.suites.conftest import spread

SMALL = {"width": 24, "heads": 3, "depth": 2, "patch": 4, "resolution": 16, "classes": 5}


def trained(variant):
    """A network with statistics and weights that differ from their start."""
    torch.manual_seed(0)
    model = spread(slab_vit(**SMALL, variant=variant, lambda_steps=3)).train()
    with torch.no_grad():
        for _ in range(5):
            model(*model.example_inputs(4))
    return model.eval()


@pytest.mark.parametrize("variant", ["slab", "prepbn"])
def test_folding_changes_nothing(variant):
    model = trained(variant)
    images = model.example_inputs(3)[0]
    with torch.no_grad():
        before = model(images)
        after = file.fold(model)(images)
    assert torch.allclose(before, after, atol=1e-5)
    assert not any(isinstance(module, file.ProgressiveNorm) for module in model.modules())


def test_a_folded_norm_is_a_plain_batchnorm_with_the_same_statistics():
    norm = trained("slab").norm.rep
    x = torch.randn(2, 7, 24)
    with torch.no_grad():
        plain = norm.folded()
        assert torch.allclose(plain(x.flatten(0, 1)).reshape(x.shape), norm(x), atol=1e-5)
        sigma = (norm.bn.running_var + norm.bn.eps).sqrt()
        assert torch.allclose(plain.weight, norm.bn.weight + norm.alpha * sigma)
        assert torch.allclose(plain.bias, norm.bn.bias + norm.alpha * norm.bn.running_mean)
    assert torch.equal(plain.running_mean, norm.bn.running_mean)


def test_lambda_falls_from_one_to_zero_and_evaluation_never_uses_it():
    norm = file.ProgressiveNorm(6, steps=4, warmup=2).train()
    x = torch.randn(3, 5, 6) * 3 + 1
    shares = []
    for _ in range(8):
        shares.append(norm.share)
        out = norm(x)
        if shares[-1] == 1:
            assert torch.allclose(out, norm.ln(x), atol=1e-6)
    assert shares == [1, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    early = file.ProgressiveNorm(6, steps=100).train()
    early(x)
    early.eval()
    with torch.no_grad():
        assert torch.equal(early(x), early.rep(x))
        early.rep.alpha.zero_()
        assert torch.allclose(early(x), early.rep.bn(x.flatten(0, 1)).reshape(x.shape))


def test_a_schedule_of_no_steps_is_repbn_from_the_start_and_warms_up_all_the_same():
    x = torch.randn(3, 5, 6) * 3 + 1
    at_once = file.ProgressiveNorm(6, steps=0).train()
    assert at_once.share == 0
    assert torch.allclose(at_once(x), at_once.rep(x), atol=1e-6)
    later = file.ProgressiveNorm(6, steps=0, warmup=2).train()
    shares = []
    for _ in range(4):
        shares.append(later.share)
        later(x)
    assert shares == [1, 1, 0, 0]
    norms = [m for m in slab_vit(**SMALL, lambda_steps=4, lambda_warmup=3).modules() if isinstance(m, type(later))]
    assert len(norms) == 5 and all((norm.steps, norm.warmup) == (4, 3) for norm in norms)


def test_both_orders_of_linear_attention_are_the_definition(monkeypatch):
    q, k, v = (torch.rand(2, 3, 9, 4, dtype=torch.double) for _ in range(3))
    expected = torch.zeros_like(v)
    for i in range(9):
        weights = (q[:, :, i : i + 1] * k).sum(-1)
        expected[:, :, i] = (weights[..., None] * v).sum(2) / (weights.sum(-1, keepdim=True) + 1e-6)
    for square in (True, False):
        monkeypatch.setattr(file, "square_is_cheaper", lambda *_, square=square: square)
        assert torch.allclose(file.linear_attention(q, k, v), expected, atol=1e-12)


def test_the_cheaper_order_is_taken():
    assert not file.square_is_cheaper(196, 64, 196, 64)
    assert file.square_is_cheaper(16, 64, 16, 64)


def test_the_attention_module_is_its_description():
    module = spread(file.LinearAttention(12, 3, 4)).double()
    x = torch.randn(2, 16, 12, dtype=torch.double)
    with torch.no_grad():
        q, k, v = F.linear(x, module.qkv.weight, module.qkv.bias).chunk(3, -1)
        q, k = q.relu(), (k + module.position).relu()
        out = torch.zeros_like(v)
        for h in range(3):
            c = slice(4 * h, 4 * h + 4)
            weights = q[..., c] @ k[..., c].transpose(1, 2)
            out[..., c] = weights @ v[..., c] / (weights.sum(-1, keepdim=True) + 1e-6)
            image = v[..., c].transpose(1, 2).reshape(2, 4, 4, 4)
            local = F.conv2d(image, module.dwc.weight, module.dwc.bias, padding=2, groups=4)
            out[..., c] += local.flatten(2).transpose(1, 2)
        assert torch.allclose(module(x), module.proj(out), atol=1e-9)


def test_counts_are_those_of_the_brief():
    assert file.macs() == 1_139_086_848
    assert file.macs(linear=False) == 1_246_563_840


@pytest.mark.parametrize("variant", ["slab", "sla", "prepbn", "plain"])
def test_executed_products_are_the_closed_form(variant):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model = slab_vit(**SMALL, variant=variant)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(*model.example_inputs(1))
    assert counter.get_total_flops() // 2 == file.macs(**SMALL, linear=variant in ("slab", "sla"))


def test_what_cannot_be_folded_says_so():
    with pytest.raises(ValueError, match="cannot be folded"):
        slab_vit(**SMALL, variant="sla", folded=True)
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        file.fold(slab_vit(**SMALL).train())
