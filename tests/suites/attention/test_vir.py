"""ViR: parallel, recurrent and chunks agree; causality; counts of the paper's sizes."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from suites.attention import vir as file
from suites.attention.vir import vir
from tests.suites.conftest import spread

SMALL = {"width": 16, "heads": 2, "depth": 2, "patch": 4, "resolution": 16, "classes": 5}


def inputs(tokens=23, heads=3, size=4):
    return [torch.randn(2, heads, tokens, size, dtype=torch.double) for _ in range(3)]


def slowly(q, k, v, g):
    out = torch.zeros_like(v)
    for h in range(q.shape[1]):
        for i in range(q.shape[2]):
            for j in range(i + 1):
                score = (q[:, h, i] * k[:, h, j]).sum(-1) / q.shape[3] ** 0.5
                out[:, h, i] += g[h] ** (i - j) * score[:, None] * v[:, h, j]
    return out


@pytest.mark.parametrize("chunk", [0, 1, 7, 16, 23, 40])
def test_every_form_is_the_definition(chunk):
    q, k, v = inputs()
    g = file.decays(3).double()
    forms = {0: file.parallel, 1: file.recurrent}
    out = forms[chunk](q, k, v, g) if chunk in forms else file.chunked(q, k, v, g, chunk)
    assert torch.allclose(out, slowly(q, k, v, g), atol=1e-10)


def test_no_decay_and_one_head_is_causal_linear_attention():
    q, k, v = inputs(heads=1)
    expected = torch.stack(
        [(q[:, :, i : i + 1] @ (k[:, :, : i + 1].transpose(2, 3) @ v[:, :, : i + 1]))[:, :, 0] / 2 for i in range(23)],
        dim=2,
    )
    assert torch.allclose(file.parallel(q, k, v, torch.ones(1, dtype=torch.double)), expected, atol=1e-10)


def test_decays_run_from_a_32nd_to_a_512th():
    g = file.decays(4)
    assert float(1 - g[0]) == pytest.approx(1 / 32, rel=1e-5) and float(1 - g[-1]) == pytest.approx(1 / 512, rel=1e-3)


def test_forms_of_one_network_agree_and_a_later_patch_changes_nothing_before_it():
    images = torch.randn(2, 3, 16, 16)
    models = []
    for chunk in (0, 1, 7):
        torch.manual_seed(0)
        models.append(spread(vir(**SMALL, chunk=chunk)))
    with torch.no_grad():
        outs = [model(images) for model in models]
        assert all(torch.allclose(out, outs[0], atol=1e-4) for out in outs)
        x = models[0].tokens(images)
        other = x.clone()
        other[:, 9] += 1
        block = models[0].blocks[0]
        before, after = block(x), block(other)
    assert torch.equal(before[:, :9], after[:, :9]) and not torch.allclose(before[:, 9:], after[:, 9:])


def test_the_second_reading_weighs_every_patch_by_the_quadratic_form():
    """Bidirectional: the mirrored half of one retention is a sum over all patches, by its definition."""
    q, k, v = inputs(tokens=9)
    g, tokens = file.decays(3).double(), 9
    twice = [torch.cat([x, x.flip(2)], dim=2) for x in (q, k, v)]
    weight = torch.zeros(3, tokens, tokens, dtype=torch.double)
    for i in range(tokens):
        for j in range(tokens):
            weight[:, i, j] = g ** (2 * tokens - 1 - i - j) + (g ** (j - i) if j >= i else 0)
    expected = (q @ k.transpose(2, 3) / 2 * weight) @ v
    for out in (file.parallel(*twice, g), file.recurrent(*twice, g), file.chunked(*twice, g, 7)):
        assert torch.allclose(out[:, :, tokens:].flip(2), expected, atol=1e-10)


def test_a_bidirectional_network_answers_alike_in_every_form_and_ends_in_its_class_token():
    images, models = torch.randn(2, 3, 16, 16), []
    for chunk in (0, 1, 7):
        torch.manual_seed(0)
        models.append(spread(vir(**SMALL, chunk=chunk, bidirectional=True)))
    with torch.no_grad():
        outs = [model(images) for model in models]
        x = models[0].tokens(images)
    assert all(torch.allclose(out, outs[0], atol=1e-4) for out in outs)
    assert x.shape == (2, 2 * 16 + 1, 16) and torch.equal(x[:, :16], x[:, 16:32].flip(1))
    assert torch.equal(x[:, -1], models[0].cls_token[0].expand(2, -1))


def test_a_stream_gives_the_same_tokens_from_a_state_of_fixed_size():
    block = spread(vir(**SMALL)).blocks[0]
    x = torch.randn(2, 9, 16)
    with torch.no_grad():
        whole, state, out = block(x), None, []
        for i in range(9):
            y, state = block.stream(x[:, i : i + 1], state)
            out.append(y)
            assert state.numel() == 2 * file.state_numbers(16, 2)
    assert torch.allclose(torch.cat(out, dim=1), whole, atol=1e-5)


def test_sizes_and_products_are_those_of_the_brief():
    with torch.device("meta"):
        model = vir()
    assert sum(p.numel() for p in model.parameters()) == 22_059_496
    assert file.macs() == 4_598_882_304
    assert file.macs(chunk=1) == 4_357_413_888
    assert file.macs(chunk=16) == 4_381_237_248
    assert file.macs(bidirectional=True) == 9_826_418_688  # 393 tokens: patches, their mirror, the class token
    assert file.macs(chunk=1, bidirectional=True) == 8_634_817_536
    large = {"width": 768, "heads": 12, "resolution": 1024}
    assert round(file.macs(**large) / 1e9, 3) == 659.783
    assert round(file.macs(**large, chunk=1) / 1e9, 3) == 355.227


@pytest.mark.parametrize(
    "chunk, bidirectional", [(0, False), (1, False), (5, False), (16, False), (0, True), (5, True)]
)
def test_executed_products_are_the_closed_form(chunk, bidirectional):
    model = vir(**SMALL, chunk=chunk, bidirectional=bidirectional)
    for device in ("cpu", "meta"):
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            model.to(device)(*(x.to(device) for x in model.example_inputs(1)))
        assert counter.get_total_flops() // 2 == file.macs(**SMALL, chunk=chunk, bidirectional=bidirectional)


def test_sizes_that_do_not_divide_say_so():
    with pytest.raises(ValueError, match="must be a multiple"):
        vir(width=10, heads=4)
