"""The digits networks: one frame, many attentions; each learns, folds and agrees with its operator."""

from itertools import pairwise

import pytest
import torch

from suites.attention import digits_attention as file
from suites.attention.digits_attention import digits_attention, folded_digits
from suites.attention.kernel_rpe import KernelAttention
from suites.common.tasks.digits import Digits, Training, train

KINDS = ("plain", "slab", "prepbn", "sla", "neighborhood", "kernel_rpe", "vir", "ecoformer")


@pytest.fixture(autouse=True)
def _few_steps_of_a_hash(monkeypatch):
    monkeypatch.setattr(file, "HASH_STEPS", 2)


def small(kind, **more):
    torch.manual_seed(0)
    return digits_attention(kind=kind, width=16, heads=2, depth=2, **more)


def taught(kind, folder):
    """A small network after twelve batches of the task."""
    model, task = small(kind, lambda_steps=6, features=4, hash_after=9), Digits(folder, 0)
    task.fits(model, kind)
    how = Training(steps=8, grown_steps=4, batch=8)
    train(model, how, lambda steps, seed: task.training_batches(how.batch, steps, seed), 0)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_on_the_task(tmp_path, kind):
    """The gradient reaches pixels and head through every attention."""
    before, after = small(kind, lambda_steps=6, features=4).state_dict(), taught(kind, tmp_path).state_dict()
    for name in ("pixels.weight", "blocks.0.fc1.weight", "head.weight"):
        assert not torch.equal(before[name], after[name])
    assert all(torch.isfinite(value).all() for value in after.values())


@pytest.mark.parametrize("kind", ["slab", "prepbn"])
def test_folding_a_trained_network_changes_nothing(tmp_path, kind):
    model, images = taught(kind, tmp_path), torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        before = model(images)
        assert torch.allclose(folded_digits(model)(images), before, atol=1e-4)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_forms_of_retention_share_their_answer(bidirectional):
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        answers = [small("vir", chunk=chunk, bidirectional=bidirectional)(images) for chunk in (0, 1, 7, 64)]
    assert all(torch.allclose(answers[0], other, atol=1e-5) for other in answers[1:])


def test_kernelised_attention_of_the_network_is_the_direct_sum():
    model = small("kernel_rpe")
    (found, *_) = [m for m in model.modules() if isinstance(m, KernelAttention)]
    q, k, v = (torch.randn(2, 2, 64, 8) for _ in range(3))
    assert torch.allclose(found(q, k, v), found.reference(q, k, v), atol=1e-4)


def test_codes_take_over_from_softmax_when_their_hashes_are_learned():
    """100 of 130 parts of the training attend by softmax; then each layer's hash is learned once."""
    model, images = small("ecoformer", hash_after=2), torch.randn(4, 1, 8, 8)
    hashes = [block.attn.hash for block in model.blocks]
    seen = [torch.cat([h.anchors.flatten() for h in hashes])]
    model.train()
    for _ in range(4):
        model(images)
        seen.append(torch.cat([h.anchors.flatten() for h in hashes]))
    assert [torch.equal(before, after) for before, after in pairwise(seen)] == [True, True, False, True]
    attention, x = model.blocks[0].attn, torch.randn(2, 64, 16)
    with torch.no_grad():
        coded, attention.hashed = attention(x), False
        assert not torch.equal(attention(x), coded) and torch.equal(attention.eval()(x), coded)


def test_the_coded_network_states_less_work_than_the_plain_one_and_no_other_states_any():
    coded, plain = small("ecoformer").stated_work, small("plain").stated_work
    attention = (
        2 * 64 * (2 * 25 + 16 * 25 + 16 + 1 + 8),
        2 * 64**2 * 16 + 2 * 64**2,
    )  # by hand, of one layer of 16 in 2 heads
    assert plain["multiplications"] - coded["multiplications"] == 2 * (attention[1] - attention[0] + 64 * 16**2 + 16)
    assert not hasattr(small("vir"), "stated_work")


def test_a_window_over_the_whole_digit_is_refused_beyond_it_and_layernorm_cannot_be_folded():
    with pytest.raises(ValueError, match="odd side"):
        digits_attention(kind="neighborhood", kernel=9)
    with pytest.raises(ValueError, match="kind slab or prepbn"):
        folded_digits(small("plain"))
    with pytest.raises(ValueError, match="take kind=vir"):
        small("plain", bidirectional=True)
