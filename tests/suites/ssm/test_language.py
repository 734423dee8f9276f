"""Language models of scans: tokens one by one are the whole text, a cache of one size; long convolutions by hand."""

import pytest
import torch

from bench.meters import macs
from suites.ssm import closed_forms
from suites.ssm.language import scan_lm
from suites.ssm.long import PathConvolution
from suites.ssm.orders import CROSS, Orders

SMALL = {"width": 16, "layers": 2, "state": 4, "vocabulary": 31, "tied": False}


@torch.no_grad()
@pytest.mark.parametrize("scan", ["sequential", "parallel", "chunk=3", "identity"])
def test_tokens_one_by_one_answer_as_the_whole_text_and_keep_as_much_whatever_its_length(scan):
    torch.manual_seed(0)
    model = scan_lm(**SMALL, scan=scan).double()
    ids = torch.randint(31, (2, 12))
    whole, sizes = model(ids), set()
    for prompt in (1, 5, 11):  # one token is less than the filter's ring of three
        said, cache = model.prefill(ids[:, :prompt])
        torch.testing.assert_close(said, whole[:, prompt - 1])
        for place in range(prompt, 12):
            said, cache = model.decode(ids[:, place : place + 1], model.copy_cache(cache))
            torch.testing.assert_close(said, whole[:, place])
        sizes.add(model.cache_bytes(cache))
    # two layers, two texts, 32 channels of 4 states and 3 inputs, of eight bytes
    assert sizes == {2 * 2 * 32 * (4 + 3) * 8} == {model.cache_allocated(cache)}


def test_the_default_is_the_released_model_of_130_million():
    # a block: 768 x 3072, 1536 x (5 + 80 + 49 + 16 + 1), 1536 x 768, 768; and the tied table, the last norm
    block = 768 * 3072 + 1536 * (5 + 80 + 49 + 16 + 1) + 1536 * 768 + 768
    assert block == 3_771_648 and 24 * block + 50_280 * 768 + 768 == 129_135_360
    with torch.device("meta"):
        assert sum(p.numel() for p in scan_lm().parameters()) == 129_135_360


def test_a_text_costs_its_closed_form_and_a_step_no_more_than_a_token_of_it():
    with torch.device("meta"):
        model = scan_lm(**SMALL)
    ids = torch.zeros(1, 23, dtype=torch.long, device="meta")
    whole = macs.count(model, (ids,), {}, second_count=False).macs
    heads = 16 * 31
    assert whole - 23 * heads == closed_forms.scan_lm(SMALL, {}) - 4 * heads
    # by hand, a token of a block of d = 16, D = 32, R = 1, N = 4: 6 d^2 + 8 d, selection 32 (2 + 8), 32 x 4 states
    assert whole == 23 * (2 * (6 * 256 + 128 + 320 + 128) + heads)


@pytest.mark.slow
@torch.no_grad()
def test_it_answers_as_the_well_kept_library_does_with_the_same_weights():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ours = scan_lm(**{**SMALL, "tied": True}).double()
    config = transformers.MambaConfig(
        vocab_size=31, hidden_size=16, state_size=4, num_hidden_layers=2, conv_kernel=4, expand=2, time_step_rank=1,
        use_bias=False, use_conv_bias=True, layer_norm_epsilon=1e-5, residual_in_fp32=False,
    )  # fmt: skip
    theirs = transformers.MambaForCausalLM(config).double().eval()
    theirs.backbone.embeddings.weight.copy_(ours.embed.weight)
    theirs.backbone.norm_f.weight.copy_(ours.norm.weight)
    for block, layer in zip(ours.blocks, theirs.backbone.layers, strict=True):
        mixer, other = block.mixer, layer.mixer
        layer.norm.weight.copy_(block.norm.weight)
        pairs = (
            (other.in_proj.weight, mixer.enter.weight), (other.conv1d.weight, mixer.filter.weight),
            (other.conv1d.bias, mixer.filter.bias), (other.x_proj.weight, mixer.selective.x_proj[0]),
            (other.dt_proj.weight, mixer.selective.dt_proj[0]), (other.dt_proj.bias, mixer.selective.dt_bias[0]),
            (other.A_log, mixer.selective.A_log[0]), (other.D, mixer.selective.skip[0]),
            (other.out_proj.weight, mixer.leave.weight),
        )  # fmt: skip
        for parameter, value in pairs:
            parameter.copy_(value)
    ids = torch.randint(31, (2, 9))
    torch.testing.assert_close(ours(ids), theirs(ids, use_cache=False).logits, rtol=1e-4, atol=1e-6)


# -- long convolutions -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_long_convolution_is_its_sum_over_all_earlier_tokens_of_every_path():
    torch.manual_seed(0)
    layer = PathConvolution(3, Orders(CROSS, 1, False)).double()
    x = torch.randn(2, 3, 5, 3, dtype=torch.float64)
    kernel, given = layer.kernel(15), layer.orders.apart(x)  # [4, 3, 15] and [4, 2, 15, 3]
    made = torch.zeros_like(given)
    for token in range(15):
        for back in range(token + 1):
            made[:, :, token] += kernel[:, None, :, back] * given[:, :, token - back]
    torch.testing.assert_close(layer(x), layer.orders.together(made, 3, 5))


@torch.no_grad()
def test_kernels_of_all_lengths_are_one_kernel_of_sub_kernels_twice_as_long_and_half_as_strong():
    torch.manual_seed(0)
    layer = PathConvolution(2, Orders(CROSS, 1, False))
    long = layer.kernel(40)
    assert torch.equal(layer.kernel(7), long[..., :7]) and long.shape == (4, 2, 40)
    assert torch.equal(long[..., :4], layer.weight[:, :, 0])
    assert torch.allclose(long[..., 4:8], 0.5 * layer.weight[:, :, 1])
    # the third is stretched from 4 to 8 places: its first and last numbers stand at both ends
    third = layer.weight[:, :, 2]
    assert torch.allclose(long[..., 8], 0.25 * third[..., 0]) and torch.allclose(long[..., 15], 0.25 * third[..., 3])
    assert layer.kernel(4 * 2**13 + 5)[..., -5:].abs().max() == 0
