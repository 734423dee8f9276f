"""LinGen's MATE: orders and their inverses, scans that agree, windows, and counts."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from suites.attention import mate as file
from suites.attention.mate import mate_denoiser
from tests.suites.conftest import spread


@pytest.mark.parametrize("sizes", [(2, 3, 4), (1, 5, 2), (3, 1, 1)])
@pytest.mark.parametrize("order", range(4))
def test_an_order_and_its_inverse_are_the_identity(order, sizes):
    tokens = sizes[0] * sizes[1] * sizes[2]
    x = torch.arange(tokens).reshape(1, tokens, 1)
    scanned = file.ordered(x, sizes, order)
    assert torch.equal(file.restored(scanned, sizes, order), x)
    assert sorted(scanned.flatten().tolist()) == list(range(tokens))


def test_orders_are_rows_columns_and_time():
    sizes = (2, 2, 3)
    x = torch.arange(12).reshape(1, 12, 1)
    first = [file.ordered(x, sizes, order).flatten().tolist()[:3] for order in range(4)]
    assert first == [[0, 1, 2], [0, 3, 1], [0, 6, 1], [0, 6, 3]]
    assert file.ordered(x, sizes, 4).tolist() == file.ordered(x, sizes, 0).tolist()


@pytest.mark.parametrize("chunk", [1, 4, 7, 20, 50])
def test_a_chunked_scan_is_the_sequential_one(chunk):
    x, b, c = torch.randn(2, 20, 3, 4).double(), torch.randn(2, 20, 5).double(), torch.randn(2, 20, 5).double()
    decay = -torch.rand(2, 20, 3).double()
    expected = torch.zeros_like(x)
    for t in range(20):
        for j in range(t + 1):
            weight = decay[:, j + 1 : t + 1].sum(1).exp() * (c[:, t] * b[:, j]).sum(-1)[:, None]
            expected[:, t] += weight[..., None] * x[:, j]
    assert torch.allclose(file.sequential_scan(x, decay, b, c), expected, atol=1e-10)
    assert torch.allclose(file.chunked_scan(x, decay, b, c, chunk), expected, atol=1e-10)


def test_scans_of_one_network_agree_and_see_both_ways():
    models = []
    for chunk in (1, 8):
        torch.manual_seed(0)
        models.append(spread(mate_denoiser(frames=3, side=4, width=64, layers=2, chunk=chunk)).eval())
    latent, text = models[0].example_inputs(2)
    with torch.no_grad():
        assert torch.allclose(models[0](latent, text), models[1](latent, text), atol=1e-3)
        x = torch.randn(1, 10, 64)
        other = x.clone()
        other[0, 9] += 1
        scan = models[0].blocks[0].scan
        assert not torch.allclose(scan(x)[:, 0], scan(other)[:, 0])
        assert torch.equal(scan.ahead(x)[:, :9], scan.ahead(other)[:, :9])


def test_without_review_tokens_and_at_the_first_order_it_is_plain_bidirectional_mamba():
    model = mate_denoiser(frames=2, side=4, width=64, review=0).eval()
    block, x = model.blocks[0], torch.randn(1, 32, 64)
    with torch.no_grad():
        expected = block.scan(x) + block.window(x, (2, 4, 4))
        assert torch.allclose(block.mixed(x, (2, 4, 4)), expected, atol=1e-6)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("sizes", [(8, 4, 4), (5, 4, 6), (3, 3, 3)])
def test_a_window_attends_to_what_shares_it(sizes, shifted):
    window = file.TemporalWindow(8, 2, (4, 4, 4), shifted).double()
    tokens = sizes[0] * sizes[1] * sizes[2]
    x = torch.randn(2, tokens, 8).double()
    places = [(t, h, w) for t in range(sizes[0]) for h in range(sizes[1]) for w in range(sizes[2])]
    shift = 2 if shifted else 0
    home = [((t + shift) // 4, h // 4, w // 4) for t, h, w in places]
    mask = torch.tensor([[a == b for b in home] for a in home])
    with torch.no_grad():
        q, k, v = window.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(2, 3) / 2).masked_fill(~mask, -torch.inf)
        expected = window.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        assert torch.allclose(window(x, sizes), expected, atol=1e-9)


def test_review_tokens_are_means_of_the_whole_latent():
    x = torch.randn(1, 4 * 4 * 4, 6)
    assert file.review_tokens(x, (4, 4, 4), 0).shape == (1, 0, 6)
    review = file.review_tokens(x, (4, 4, 4), 16)
    assert review.shape == (1, 16, 6) and torch.allclose(review.mean(1), x.mean(1), atol=1e-6)


@pytest.mark.parametrize("chunk", [8, 16])
def test_executed_products_are_the_closed_form(chunk):
    """Of whole chunks; the first has no state to read, and the score square is one for all heads."""
    scan = file.Mamba2(64, 2, 64, 64, 4, chunk)
    x = torch.randn(1, 64, 64)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        scan(x)
    padding = 3 * 4 * (128 + 2 * 64)  # the convolution's last positions, which are cut off
    unread = chunk * 128 * 64
    expected = 64 * file.mamba_macs_per_token(64, chunk=chunk) + padding - unread
    assert counter.get_total_flops() // 2 == expected


def test_executed_products_token_by_token_are_the_closed_form_too():
    """7 tokens of 64: 64 (256 + 128 + 2) + 4 x 256 + 128 x 64 of maps and convolution, 2 x 128 x 64 of the state."""
    scan = file.Mamba2(64, 2, 64, 64, 4, 1)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        scan(torch.randn(1, 7, 64))
    each = 64 * 386 + 4 * 256 + 128 * 64 + 2 * 128 * 64
    assert each == file.mamba_macs_per_token(64)
    assert counter.get_total_flops() // 2 == 7 * each + 3 * 4 * 256  # the convolution's last places, which are cut off


def test_the_scan_grows_with_the_tokens_and_full_attention_with_their_square():
    def products(frames, attention):
        model = mate_denoiser(frames=frames, side=4, width=64, attention=attention)
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            model(*model.example_inputs(1))
        return counter.get_total_flops()

    mate, full = ([products(frames, kind) for frames in (16, 32, 64)] for kind in ("mate", "full"))
    assert mate[2] - mate[1] == pytest.approx(2 * (mate[1] - mate[0]), rel=0.01)
    assert full[2] - full[1] > 2.5 * (full[1] - full[0])


def test_a_width_without_heads_says_so():
    with pytest.raises(ValueError, match="heads of 64"):
        mate_denoiser(width=100)
