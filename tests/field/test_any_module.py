"""Kinds of modules that users hand over, with values by hand: adapters, parametrized, lazy, scripted, deep, many."""

import copy
import importlib.util
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import bench
from bench.errors import BenchError
from bench.meters import handed_over
from tests.field import modules
from tests.sweeping import configuration, sweep

X = torch.rand(4, 16)


def counted(module, inputs=X):
    frame = bench.measure(module, inputs, ["params", "macs"])
    values = dict(zip(frame["metric"], frame["value"], strict=True))
    return values["params"], values["macs"], {flag["code"] for flag in frame.attrs["flags"]}


def lin(out=8, into=16):
    return nn.Linear(into, out, bias=False)


# ---------------------------------------------------------------- adapters
@pytest.fixture(scope="module")
def peft():
    if importlib.util.find_spec("peft") is None:
        pytest.skip("peft is not installed")
    from suites.common.torchvision_remedy import import_beside_torchvision

    return import_beside_torchvision("peft")


def adapted(peft, **settings):
    """Two layers of 256 and 128 weights with rank 4 beside them."""
    base = nn.Sequential(lin(16), nn.ReLU(), lin(8))
    return peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["0", "2"], **settings))


def test_low_rank_adapters_are_parameters_and_products_until_they_are_merged(peft):
    module = adapted(peft)
    extra = 4 * (16 + 16) + 4 * (16 + 8)
    assert counted(module)[:2] == (384 + extra, 384 + extra)
    assert counted(module.merge_and_unload())[:2] == (384, 384)


def test_an_adapter_that_does_not_run_is_a_parameter_and_no_product(peft):
    module = adapted(peft)
    module.add_adapter("other", peft.LoraConfig(r=2, target_modules=["0"]))
    extra = 4 * (16 + 16) + 4 * (16 + 8)
    assert counted(module)[:2] == (384 + extra + 2 * 32, 384 + extra)


def test_scaling_adapters_add_no_product(peft):
    module = peft.get_peft_model(nn.Sequential(lin(16)), peft.IA3Config(target_modules=["0"], feedforward_modules=[]))
    assert counted(module)[:2] == (256 + 16, 256)


@pytest.mark.slow
def test_adapters_are_measured_in_workers(peft, tmp_path):
    (record,) = sweep(configuration(tmp_path, ["tests.field.modules:adapted"])).records
    values = {row["metric"]: row["value"] for row in record["readings"]}
    assert (record["status"], values["params"], values["macs"]) == ("ok", 384 + 224, 384 + 224)
    assert values["latency_ms"] > 0


# ---------------------------------------------------------------- parameters that are not plain
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(10, 16), lin(10)
        self.out.weight = self.table.weight

    def forward(self, ids):
        return self.out(self.table(ids))


class TwoFactors(nn.Module):
    """Weights [8, 16] as a product of [8, 2] and [2, 16], made in every forward."""

    def __init__(self):
        super().__init__()
        self.right = nn.Parameter(torch.rand(2, 16))

    def forward(self, left):
        return left @ self.right

    def right_inverse(self, weight):
        return weight[:, :2].clone()


def parametrized(module, by):
    parametrize.register_parametrization(module, "weight", by, unsafe=True)
    return module


def test_tied_weights_count_once_and_multiply():
    assert counted(Tied(), torch.zeros(4, 3, dtype=torch.long))[:2] == (160, 3 * 160)


def test_a_parametrization_is_run_and_counted():
    size, macs, _ = counted(parametrized(lin(), TwoFactors()))
    assert (size, macs) == (8 * 2 + 2 * 16, 128 + 8 * 2 * 16 / 4)  # the factors once a forward, which is four samples
    assert counted(parametrizations.weight_norm(lin()))[:2] == (128 + 8, 128)


@pytest.mark.parametrize(
    ("made", "inputs", "right"),
    [
        (lambda: nn.LazyLinear(8, bias=False), X, (128, 128)),
        (
            lambda: nn.Sequential(nn.LazyConv2d(4, 3, bias=False), nn.LazyBatchNorm2d()),
            torch.rand(2, 3, 8, 8),
            (116, 36 * 108),
        ),
        (lambda: nn.Sequential(nn.LazyConv1d(4, 3, bias=False)), torch.rand(3, 8), (36, 6 * 36)),
    ],
)
def test_lazy_parameters_and_buffers_get_their_shapes_from_the_inputs_on_a_copy(made, inputs, right):
    module = made()
    assert counted(module, inputs)[:2] == right
    assert any(nn.parameter.is_lazy(p) for p in module.parameters())


# ---------------------------------------------------------------- compiled, scripted, exported
COMPILED = {
    "scripted": torch.jit.script,
    "traced": lambda module: torch.jit.trace(module, X),
    "frozen": lambda module: torch.jit.freeze(torch.jit.script(module.eval())),
    "exported": lambda module: torch.export.export(module, (X,)).module(),
    "symbolic": torch.fx.symbolic_trace,
    "compiled": lambda module: torch.compile(module, backend="eager"),
}


@pytest.mark.parametrize("how", COMPILED)
def test_modules_that_a_compiler_made_count_as_what_they_were_made_of(how):
    _, macs, flags = counted(COMPILED[how](lin()))
    assert macs == 128
    assert not flags & {"unregistered_modules", "counts_differ"}


def test_a_script_optimised_for_inference_says_that_its_weights_cannot_be_seen():
    module = torch.jit.optimize_for_inference(torch.jit.script(nn.Conv2d(3, 8, 3, bias=False).eval()))
    frame = bench.measure(module, torch.rand(2, 3, 8, 8), ["params", "macs"])
    (told,) = (flag["text"] for flag in frame.attrs["flags"] if flag["code"] == "opaque_script")
    assert "counts, parameters and size are at least" in told


# ---------------------------------------------------------------- inputs and outputs
@pytest.fixture(scope="module")
def detection():
    """torchvision's detectors; where its operators do not load, with a suppression written out."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    from suites.common.torchvision_remedy import import_beside_torchvision

    found = import_beside_torchvision("torchvision.models.detection")
    if not torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "CPU"):
        library = torch.library.Library("torchvision", "IMPL")
        library.impl("nms", suppressed, "CPU")
    yield found


def suppressed(boxes, scores, threshold):
    """Boxes kept by greedy suppression, best first."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left, kept = scores.argsort(descending=True), []
    while len(left):
        best = left[0]
        kept.append(best)
        low, high = torch.maximum(boxes[best, :2], boxes[left, :2]), torch.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        left = left[shared / (area[best] + area[left] - shared) <= threshold]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.long)


@pytest.mark.slow
def test_a_detector_takes_a_list_of_images_and_gives_lists_of_boxes(detection):
    """Counted for the batch that the list is; the pictures' own sizes are padded to one, so two cost twice one."""
    module = detection.retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=96
    )
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    size, two, _ = counted(module, (images,))
    _, one, flags = counted(module, (images[:1],))
    assert size == sum(p.numel() for p in module.parameters())
    assert two == one
    assert "data_dependent" in flags


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(16, 8))

    def forward(self, x):
        return torch.sparse.mm(x, self.weight)


@pytest.mark.parametrize("layout", ["to_sparse_coo", "to_sparse_csr"])
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_inputs_count_what_is_there_and_raise_no_false_alarm(layout):
    size, macs, flags = counted(Sparse(), getattr(torch.eye(4, 16), layout)())
    assert (size, macs) == (128, 4 * 8 / 4)
    assert "sparse" in flags and "counts_differ" not in flags


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
def test_nested_inputs_count_what_their_members_hold(layout):
    inputs = torch.nested.nested_tensor([torch.rand(3, 16), torch.rand(5, 16)], layout=layout)
    assert counted(lin(), inputs)[:2] == (128, 8 * 128 / 2)


class Silent(modules.Base):
    def forward(self, x):
        self.a(x)


class ThroughNumPy(modules.Base):
    def forward(self, x):
        return torch.from_numpy(np.tanh(self.a(x).detach().numpy()))


class Remembers(modules.Base):
    """A buffer, a list and a number that every forward moves on."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.seen, self.calls = [], 0

    def forward(self, x):
        out = self.a(x)
        self.mean.mul_(0.9).add_(out.mean(0), alpha=0.1)
        self.seen.append(out)
        self.calls += 1
        return out - self.mean


def test_a_module_that_returns_nothing_and_one_that_leaves_torch_are_counted_and_the_latter_is_said():
    assert counted(Silent())[:2] == (128, 128)
    size, macs, flags = counted(ThroughNumPy())
    assert (size, macs) == (128, 128)
    assert "outside_torch" in flags and "counts_differ" not in flags


def test_what_a_module_remembers_is_afterwards_what_it_was():
    module = Remembers()
    before = copy.deepcopy(module.state_dict())
    assert counted(module)[:2] == (128, 128)
    assert torch.equal(module.state_dict()["mean"], before["mean"])
    assert (module.seen, module.calls) == ([], 0)


# ---------------------------------------------------------------- many and deep
class Wraps(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@pytest.fixture
def deep():
    """A thousand modules inside each other, and the recursion that their user has allowed for them."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    module = lin(16)
    for _ in range(1000):
        module = Wraps(module)
    yield module
    sys.setrecursionlimit(limit)


def test_a_thousand_levels_are_counted_without_a_false_alarm(deep):
    size, macs, flags = counted(deep)
    assert (size, macs) == (256, 256)
    assert "unexplained_time" not in flags


def test_the_recursion_that_the_caller_allows_reaches_a_worker(deep, tmp_path):
    path = tmp_path / "deep.pickle"
    handed_over.write(path, deep, (X,), {})
    sys.setrecursionlimit(1000)
    handed_over.apply_settings(str(path))
    module, args, _ = handed_over.read(str(path))
    assert module(*args).shape == (4, 16)
    assert sys.getrecursionlimit() >= 20_000


class Calls(modules.Base):
    def __init__(self):
        super().__init__()
        self.a = lin(16)

    def forward(self, x):
        for _ in range(1000):
            x = self.a(x)
        return x


def test_one_module_called_a_thousand_times_has_its_parameters_once():
    assert counted(Calls())[:2] == (256, 256_000)


@pytest.mark.slow
def test_ten_thousand_modules_are_counted():
    assert counted(nn.Sequential(*(lin(16) for _ in range(10_000))))[:2] == (2_560_000, 2_560_000)


class Endless(modules.Base):
    def forward(self, x):
        return self(self.a(x.expand(4, 8).repeat(1, 2)) if x.shape[1] == 8 else self.a(x))


def test_a_recursion_without_end_is_the_users_error_with_a_few_of_the_users_lines():
    with pytest.raises(BenchError, match="RecursionError") as told:
        counted(Endless())
    lines = str(told.value).splitlines()[1:]
    assert 0 < len(lines) <= 3 and all("test_any_module.py" in line for line in lines)
