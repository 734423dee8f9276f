"""Networks that somebody brings: methods follow them on the inputs that they came with, or say why they cannot."""

import copy

import pytest
import torch
from torch import nn

from bench.errors import UsageError
from bench.testing import Subject
from bench.testing.trial import count, on_meta, trial_of
from suites.pruning.block_sparse import block_sparse, sparse_weights
from suites.pruning.channel_slim import channel_slim
from suites.pruning.fast_sparse import fast_sparse
from suites.pruning.global_magnitude import global_magnitude
from suites.pruning.lpvit import lpvit
from suites.pruning.ssvi import ssvi


def narrow(batch: int = 1):
    """Two layers and the inputs that they take."""
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3)), (torch.rand(batch, 6),)


class ByNumpy(nn.Module):
    """Its middle leaves autograd."""

    resolution = 8

    def __init__(self):
        super().__init__()
        self.a, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(torch.from_numpy(self.a(x).mean((2, 3)).detach().numpy().copy()))


class Reads(nn.Module):
    """It reads the weight of its layer and never calls it, as torchvision's Swin does."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 4)

    def forward(self, x):
        return nn.functional.linear(x, self.a.weight, self.a.bias)

    def example_inputs(self, batch):
        return torch.rand(batch, 6)


def test_channels_are_cut_on_the_inputs_that_a_builder_gave_and_counted_without_values():
    pytest.importorskip("torch_pruning")
    subject = Subject("own", model=f"{__name__}:narrow", method="channel_slim(rate=0.9)", shape={"batch": 2})
    trial = trial_of(subject)
    assert trial.built.module[0].out_features == 2  # 20 x (1 - 0.9) is 1.9999999999999996 in binary
    assert not hasattr(trial.built.module, "example_inputs")
    assert trial.macs.macs == count(on_meta(trial)).macs == 2 * (6 * 2 + 2 * 3)
    with torch.device("meta"), pytest.raises(ValueError, match="everywhere=False"):
        channel_slim(narrow()[0], everywhere=True)


def test_what_cannot_be_followed_is_told():
    pytest.importorskip("torch_pruning")
    with pytest.raises(UsageError, match="autograd does not see what a does for the outputs"):
        channel_slim(ByNumpy())
    with pytest.raises(ValueError, match="channel_slim: Sequential has no linear or convolutional layers"):
        channel_slim(nn.Sequential(nn.ReLU()))


def test_a_kernel_is_refused_where_its_layers_are_not_called():
    with pytest.raises(ValueError, match=r"Reads does not run with them .*Take kernel='mask'"):
        global_magnitude(Reads(), sparsity=0.5, kernel="csr")
    assert isinstance(global_magnitude(Reads(), sparsity=0.5), Reads)
    with pytest.raises(ValueError, match="none of the 1 pruned layers of Sequential"):
        global_magnitude(nn.Sequential(nn.Conv1d(4, 4, 3)), sparsity=0.5, kernel="csr")
    with pytest.raises(ValueError, match="put it into a Sequential"):
        global_magnitude(nn.Linear(4, 4), sparsity=0.5, kernel="csr")
    with pytest.raises(
        ValueError, match="Linear has no linear layers whose outputs and inputs blocks of 32 x 32 divide"
    ):
        block_sparse(nn.Linear(4, 4))


class Edges(nn.Module):
    """Convolutions along one axis and along two, with no zeros around their maps."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv1d(2, 4, 5, padding=2, padding_mode="circular")
        self.b = nn.Conv2d(1, 3, 3, padding="same", padding_mode="reflect", dilation=1)

    def forward(self, x):
        return self.b(self.a(x)[:, None])


def test_a_layer_of_drawn_weights_keeps_its_padding():
    torch.manual_seed(0)
    plain, x = Edges().eval(), torch.rand(3, 2, 9)
    with torch.no_grad():
        assert torch.equal(ssvi(copy.deepcopy(plain), density=1)(x), plain(x))


class Named(nn.Module):
    """Two inputs by name, and a matrix that is no layer's."""

    def __init__(self):
        super().__init__()
        self.a, self.w = nn.Linear(6, 8), nn.Parameter(torch.rand(8, 6))

    def forward(self, left, right):
        return self.a(left) + nn.functional.linear(right, self.w)

    def example_inputs(self, batch):
        return {"left": torch.rand(batch, 6), "right": torch.rand(batch, 6)}


def test_scores_of_data_are_refused_where_inputs_are_several_and_weights_of_no_layer_are_named():
    with pytest.raises(ValueError, match=r"one tensor of inputs .* Named has others"):
        lpvit(Named(), block=[2, 2])
    assert int((sparse_weights(Named(), sparsity=0.5, kernel="mask").w == 0).sum()) == 0
    with pytest.raises(ValueError, match=r"no 1x1 convolutions .*; w, a.weight are tied, or of other layers"):
        fast_sparse(Named())


def test_layers_that_tiles_do_not_divide_stay_dense_beside_those_that_run():
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 130))
    model.example_inputs = lambda batch: (torch.rand(batch, 64),)
    torch.manual_seed(0)
    x = torch.rand(3, 64)
    with torch.no_grad():
        wanted = global_magnitude(copy.deepcopy(model), sparsity=0.6)(x)
        tiled = global_magnitude(model, sparsity=0.6, kernel="lscd")
        assert torch.allclose(tiled(x), wanted, atol=1e-6)
    assert [type(part).__name__ for part in tiled] == ["SparseLinear", "ReLU", "Linear"]


class Shared(nn.Module):
    """Two layers with one weight, whose outputs meet, and a head that is the embedding where `tied`."""

    def __init__(self, tied):
        super().__init__()
        self.embed, self.a, self.b = nn.Embedding(12, 8), nn.Linear(8, 16), nn.Linear(8, 16)
        self.down, self.head = nn.Linear(16, 8), nn.Linear(8, 12, bias=False)
        self.b.weight = self.a.weight
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        return self.head(self.down(self.a(x) + self.b(x.flip(1))))

    def example_inputs(self, batch):
        return torch.randint(12, (batch, 5))


def test_weights_that_are_one_stay_one_or_are_not_cut():
    pytest.importorskip("torch_pruning")
    network = channel_slim(Shared(tied=False), rate=0.5)
    assert network.b.weight is network.a.weight and network.a.out_features == 8
    with torch.device("meta"):
        empty = channel_slim(Shared(tied=False), rate=0.5)
    assert empty.b.weight is empty.a.weight
    assert sum(p.numel() for p in empty.parameters()) == sum(p.numel() for p in network.parameters())
    with pytest.raises(UsageError, match=r"cut embed.weight and head.weight of Shared differently"):
        channel_slim(Shared(tied=True), rate=0.5)
