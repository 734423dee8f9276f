"""Every kernel against the mask, every mask against torch's own and its closed form, stored bytes as they lie."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from bench.config import catalogue
from bench.errors import UsageError
from suites.common.mlp import digits_mlp
from suites.pruning import formats
from suites.pruning.allocation import global_masks
from suites.pruning.global_magnitude import global_magnitude
from suites.pruning.kernels import place
from suites.pruning.layers import sparsity_of, write_zeros
from suites.pruning.operator import sparse_linear
from suites.pruning.structures import blocks, n_of_m, per_row, unstructured

PATTERNS = {
    "weight": lambda w: unstructured(w, 0.8),
    "row": lambda w: per_row(w, 0.8),
    "blocks": lambda w: blocks(w, (16, 16), 0.75),
    "balanced": lambda w: blocks(w, (16, 16), 0.75, balanced=True),
    "1xN": lambda w: blocks(w, (4, 1), 0.5, balanced=True),
    "n:m": lambda w: n_of_m(w, 2, 4),
}
LAYERS = {
    "linear": (lambda: nn.Linear(128, 256), (5, 128)),
    "conv": (lambda: nn.Conv2d(64, 128, 3, 2, 1), (2, 64, 9, 9)),
    "pointwise": (lambda: nn.Conv2d(64, 128, 1, bias=False), (2, 64, 5, 5)),
    "strided": (lambda: nn.Conv2d(64, 128, 1, 2), (1, 64, 7, 7)),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("structure", PATTERNS)
@pytest.mark.parametrize("kernel", ["csr", "gather", "lscd", "bsr"])
def test_a_kernel_gives_what_the_mask_gives(kernel, structure, layer):
    if kernel == "bsr" and structure not in ("blocks", "balanced"):
        pytest.skip("square blocks alone")
    build, shape = LAYERS[layer]
    plain, x = build(), torch.randn(shape)
    pattern = PATTERNS[structure](plain.weight.detach().abs())
    assert int(pattern.mask.sum()) == pattern.count
    write_zeros(plain, pattern.mask)
    with torch.no_grad():
        wanted, found = plain(x), place(plain, pattern, kernel)(x)
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


def test_a_depthwise_layer_keeps_its_zeros_in_a_dense_kernel():
    conv = nn.Conv2d(8, 8, 3, groups=8)
    assert place(conv, unstructured(conv.weight.detach().abs(), 0.5), "csr") is conv


def test_stored_bytes_are_the_closed_forms():
    for kernel, wanted in (
        ("csr", formats.csr_bytes(64, 205)),
        ("dense", formats.dense_bytes(64, 32)),
    ):
        assert sparse_linear(outputs=64, inputs=32, sparsity=0.9, kernel=kernel).stored_bytes() == wanted
    shape = {"outputs": 64, "inputs": 32, "structure": "block", "sparsity": 0.75}
    blocked = sparse_linear(**shape, block=[8, 8], kernel="bsr")
    assert blocked.stored_bytes() == formats.bsr_bytes(64, (8, 8), 8)
    gathered = sparse_linear(**shape, block=[4, 1], kernel="gather")
    assert gathered.stored_bytes() == formats.gather_bytes(64, 4, 8)
    assert formats.gathered_bytes(64, 4, 8, 128) == 16 * 8 * 128 * 4
    tiled = sparse_linear(outputs=256, inputs=128, sparsity=0.8, kernel="lscd")
    counts = tiled.product.counts
    assert (len(counts), sum(counts)) == (4, 256 * 128 - int(0.8 * 256 * 128))
    assert tiled.stored_bytes() == formats.lscd_bytes(counts, value=4)
    assert tiled.product.half().stored_bytes() == formats.lscd_bytes(counts)  # a word of 32 bits


def test_one_threshold_is_torchs_global_pruning():
    torch.manual_seed(0)
    model = digits_mlp(widths=[16, 8], resolution=8)
    twin = digits_mlp(widths=[16, 8], resolution=8)
    twin.load_state_dict(model.state_dict())
    total = sum(layer.weight.numel() for layer in model.layers)
    parameters = [(layer, "weight") for layer in twin.layers]
    prune.global_unstructured(parameters, prune.L1Unstructured, amount=int(0.7 * total))
    global_magnitude(model, sparsity=0.7)
    for ours, theirs in zip(model.layers, twin.layers, strict=True):
        assert torch.equal(ours.weight != 0, theirs.weight_mask.bool())


def test_a_minimum_shields_small_layers_and_keeps_the_total():
    torch.manual_seed(0)
    scores = {"large": torch.rand(1000) + 1, "small": 0.01 * torch.rand(20), "middle": 0.1 * torch.rand(200)}
    masks = global_masks(scores, 0.5, least_percent=5.0)
    least = int(0.05 * 1220)
    assert sum(int(m.sum()) for m in masks.values()) == 610
    assert bool(masks["small"].all())
    assert int(masks["middle"].sum()) == least
    with pytest.raises(ValueError, match="lower min_threshold"):
        global_masks(scores, 0.99, least_percent=5.0)


def test_a_minimum_is_per_cent_of_the_whole_network():
    """5 % of 4096 + 128 + 80 weights are 215: both small layers are below that and stay."""
    method = catalogue.load().method("global_magnitude")
    catalogue.check_method(method, {"min_threshold": 5.0})
    with pytest.raises(UsageError, match="min_threshold"):
        catalogue.check_method(method, {"min_threshold": 101.0})
    model = global_magnitude(digits_mlp(widths=[16, 8]), sparsity=0.5, min_threshold=5.0)
    assert [int((layer.weight != 0).sum()) for layer in model.layers] == [4096 - 2152, 128, 80]


@pytest.mark.parametrize("kernel", ["mask", "csr", "gather"])
def test_no_sparsity_is_the_plain_network(kernel):
    torch.manual_seed(0)
    model, x = digits_mlp(widths=[16, 8], resolution=8), torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        wanted = model(x)
        found = global_magnitude(model, sparsity=0.0, kernel=kernel)(x)
    assert torch.equal(wanted, found) if kernel == "mask" else torch.allclose(wanted, found, atol=1e-6)


def test_tied_and_missing_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head, self.inner = nn.Embedding(8, 4), nn.Linear(4, 8, bias=False), nn.Linear(4, 4)
            self.head.weight = self.words.weight

    model = global_magnitude(Tied(), sparsity=0.5)
    assert sparsity_of(model, ["inner"]) == 0.5
    assert bool((model.words.weight != 0).all())
    with pytest.raises(ValueError, match="no linear or convolutional layers"):
        global_magnitude(nn.Sequential(nn.ReLU()))


def test_semi24_says_what_it_needs():
    with pytest.raises(ValueError, match="2:4 alone"):
        sparse_linear(outputs=64, inputs=32, kernel="semi24")
    layer = sparse_linear(outputs=64, inputs=32, structure="n:m", kernel="semi24")
    if not torch.cuda.is_available():
        with pytest.raises(NotImplementedError, match="compute capability"):  # which makes its row `unsupported`
            layer(torch.randn(32, 4))


def test_a_random_control_keeps_as_many_and_knows_nothing_of_the_weights():
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(global_magnitude(digits_mlp(widths=[16, 8], resolution=8), sparsity=0.7, score="random"))
    masks = [[layer.weight != 0 for layer in model.layers] for model in models]
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))
    total = sum(mask.numel() for mask in masks[0])
    assert sum(int(mask.sum()) for mask in masks[0]) == total - int(0.7 * total)
    torch.manual_seed(0)
    sized = global_magnitude(digits_mlp(widths=[16, 8], resolution=8), sparsity=0.7)
    assert not torch.equal(sized.layers[0].weight != 0, masks[0][0])


def test_gather_refuses_what_it_cannot_run():
    with pytest.raises(ValueError, match="does not divide"):
        sparse_linear(outputs=30, inputs=32, structure="block", block=[4, 1], kernel="gather")
    with pytest.raises(ValueError, match="groups of m=7"):
        n_of_m(torch.rand(4, 8), 1, 7)
