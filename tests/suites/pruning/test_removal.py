"""A removed channel, head, feature or dimension gives what the zeroed one gives."""

import copy

import pytest
import torch
from torch import nn

from bench.meters import macs
from suites.common.bert import bert
from suites.common.cut_attention import CutAttention
from suites.common.digits_resnet import digits_resnet
from suites.common.digits_vit import digits_vit
from suites.common.torchvision_remedy import import_beside_torchvision
from suites.pruning.channel_slim import channel_slim
from suites.pruning.global_magnitude import global_magnitude
from suites.pruning.groups import groups_of, keep_channels, zero_channels
from suites.pruning.lapp import Bypassed, _remove, expected_share, gate_by, kept_to, lapp, products_of
from suites.pruning.masksparsity import marked, masksparsity, penalty
from suites.pruning.nets.gpt import gpt
from suites.pruning.nets.mobilenet import mobilenet_v1
from suites.pruning.nets.resnet_cifar import resnet_cifar
from suites.pruning.nets.resnet_imagenet import resnet34, resnet50
from suites.pruning.nets.vgg import vgg16_cifar
from suites.pruning.nets.yolov8 import yolov8
from suites.pruning.rethinking import scratch_steps, slim
from suites.pruning.spa import Adapted, attach, channel_scores, spa, task_bytes, whole_rank
from suites.pruning.sparsebytenn import permute
from suites.pruning.transformers import blocks_of, cut_hidden
from suites.pruning.yolo_chain import yolov8_chain
from suites.pruning.yolo_slimming import yolo_slimming
from tests.suites.pruning.test_learning import lesson

NETWORKS = {
    "digits": lambda: digits_resnet(width=6, resolution=8),
    "cifar": lambda: resnet_cifar(depth=20, resolution=8),
    "resnet34": lambda: resnet34(widths=[6] * 16, overall=[8] * 4 + [12] * 4 + [16] * 6 + [20] * 3, resolution=32),
    "resnet50": lambda: resnet50(widths=[6] * 16, overall=[8] + [12] * 3 + [16] * 13, resolution=32),
    "vgg": lambda: vgg16_cifar(channels=[6] * 13),
    "mobilenet": lambda: mobilenet_v1(width=0.25, resolution=32, classes=5),
    "yolo": lambda: yolov8(nc=3, resolution=32),
}


def alive(model):
    """The network with norms that are neither one nor zero."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_a_removed_channel_is_a_zeroed_one(name):
    torch.manual_seed(0)
    model = alive(NETWORKS[name]())
    zeroed, x = copy.deepcopy(model), model.example_inputs(2)
    for group in groups_of(model, "test"):
        drop = torch.randperm(group.size)[: group.size // 3].sort().values
        keep = torch.tensor([i for i in range(group.size) if i not in drop.tolist()])
        zero_channels(zeroed, group, drop)
        keep_channels(model, group, keep)
    with torch.no_grad():
        wanted, found = zeroed(*x), model(*x)
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in zeroed.parameters())


@pytest.mark.parametrize("name", ["mobilenet", "digits", "vgg"])
def test_another_order_of_channels_changes_nothing(name):
    torch.manual_seed(0)
    model = alive(NETWORKS[name]())
    x = model.example_inputs(2)
    with torch.no_grad():
        wanted = model(*x)
        for group in groups_of(model, "test"):
            permute(model, group, torch.randperm(group.size))
        found = model(*x)
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


def test_a_removed_head_is_a_zeroed_one_and_so_is_a_dimension():
    torch.manual_seed(0)
    attention, x = CutAttention(16, 4, 6, 5), torch.randn(2, 7, 16)
    zeroed = copy.deepcopy(attention)
    zeroed.head_gate = torch.tensor([1.0, 0.0, 1.0, 0.0])
    with torch.no_grad():
        for head in range(4):
            for start in (head * 6, 24 + head * 6):
                zeroed.qkv.weight[start + 2] = 0
                zeroed.qkv.bias[start + 2] = 0
    attention.cut(torch.tensor([0, 2]), qk=torch.tensor([0, 1, 3, 4, 5]))
    with torch.no_grad():
        assert torch.allclose(attention(x)[0], zeroed(x)[0], atol=1e-6)


def test_a_removed_feature_is_a_zeroed_one():
    torch.manual_seed(0)
    model = gpt(width=16, layers=2, heads=2, vocabulary=11, length=12)
    blocks, (x,) = blocks_of(model, "test"), model.example_inputs(2)
    gate = torch.ones(64)
    gate[::2] = 0
    blocks[1].mlp.gate = gate
    with torch.no_grad():
        wanted = model(x)
        blocks[1].mlp.gate = None
        blocks[1].mlp.cut(torch.arange(1, 64, 2))
        assert torch.allclose(model(x), wanted, atol=1e-6)


class NormOverKept(nn.Module):
    """A LayerNorm whose statistics are those of the kept dimensions, and zero elsewhere."""

    def __init__(self, norm, keep):
        super().__init__()
        self.norm, self.keep = norm, keep

    def forward(self, x):
        part = x[..., self.keep]
        normal = nn.functional.layer_norm(part, part.shape[-1:], self.norm.weight[self.keep], self.norm.bias[self.keep])
        return torch.zeros_like(x).index_copy(-1, self.keep, normal)


@pytest.mark.parametrize("build", [
    lambda: gpt(width=16, layers=2, heads=2, vocabulary=11, length=12, tied=False),
    lambda: digits_vit(width=16, heads=2, depth=2, resolution=8),
])  # fmt: skip
def test_a_removed_hidden_dimension_is_one_that_no_norm_sees(build):
    torch.manual_seed(0)
    model = build()
    keep = torch.tensor([0, 2, 3, 5, 8, 9, 10, 15])
    blocks_of(model, "test")
    masked, x = copy.deepcopy(model), model.example_inputs(2)
    for name, part in list(masked.named_modules()):
        if isinstance(part, nn.LayerNorm):
            parent, _, own = name.rpartition(".")
            setattr(masked.get_submodule(parent), own, NormOverKept(part, keep))
    cut_hidden(model, keep)
    with torch.no_grad():
        assert torch.allclose(model(*x), masked(*x), atol=1e-4)


def test_opened_transformers_are_the_same_bit_for_bit():
    torch.manual_seed(0)
    model = digits_vit(width=16, heads=2, depth=2, resolution=8)
    x = model.example_inputs(2)
    with torch.no_grad():
        wanted = model(*x)
        blocks_of(model, "test")
        assert torch.equal(model(*x), wanted)


def test_bert_is_transformers_bert():
    pytest.importorskip("transformers")
    transformers = import_beside_torchvision("transformers")
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    theirs = transformers.BertModel(config).eval()
    ours = bert(width=16, layers=2, size=8, length=6, vocabulary=11)
    state = theirs.state_dict()
    new = {"words.weight": "embeddings.word_embeddings.weight",
           "types.weight": "embeddings.token_type_embeddings.weight",
           "positions.weight": "embeddings.position_embeddings.weight", "norm.weight": "embeddings.LayerNorm.weight",
           "norm.bias": "embeddings.LayerNorm.bias", "pooler.weight": "pooler.dense.weight",
           "pooler.bias": "pooler.dense.bias"}  # fmt: skip
    found = {name: state[other] for name, other in new.items()}
    for i in range(2):
        layer = f"encoder.layer.{i}"
        for kind in ("weight", "bias"):
            parts = [state[f"{layer}.attention.self.{each}.{kind}"] for each in ("query", "key", "value")]
            found[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(parts)
            found[f"blocks.{i}.attn.proj.{kind}"] = state[f"{layer}.attention.output.dense.{kind}"]
            found[f"blocks.{i}.norm1.{kind}"] = state[f"{layer}.attention.output.LayerNorm.{kind}"]
            found[f"blocks.{i}.mlp.fc1.{kind}"] = state[f"{layer}.intermediate.dense.{kind}"]
            found[f"blocks.{i}.mlp.fc2.{kind}"] = state[f"{layer}.output.dense.{kind}"]
            found[f"blocks.{i}.norm2.{kind}"] = state[f"{layer}.output.LayerNorm.{kind}"]
    ours.load_state_dict(found)
    ids = torch.randint(11, (2, 6))
    with torch.no_grad():
        assert torch.allclose(ours(ids), theirs(ids).pooler_output, atol=1e-5)


def test_a_dependency_graph_cuts_any_network_or_says_why_not():
    pytest.importorskip("torch_pruning")

    class Theirs(nn.Module):
        resolution = 8

        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 2)

        def forward(self, x):
            return self.fc(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))

    model = channel_slim(Theirs(), rate=0.5)
    assert (model.a.out_channels, model.b.out_channels, model.fc.out_features) == (4, 4, 2)
    with pytest.raises(Exception, match="no channels"):
        channel_slim(_Single())


class _Single(nn.Module):
    resolution = 8

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(192, 2)

    def forward(self, x):
        return self.fc(x.flatten(1))


def test_methods_on_channels_name_the_way_for_other_networks():
    with pytest.raises(ValueError, match="channel_slim follows any network"):
        slim(_Single())
    assert isinstance(global_magnitude(_Single(), sparsity=0.5), _Single)


def test_penalties_reach_marked_gains_alone():
    model = digits_resnet(width=4, resolution=8)
    groups = groups_of(model, "test")
    drops = [torch.arange(group.size) < 1 for group in groups]
    penalty(model, groups, drops).backward()
    for group in groups:
        for _, norm, _ in group.outs:
            gradient = model.get_submodule(norm).weight.grad
            assert float(gradient[0].abs()) > 0
            assert not bool(gradient[1:].any())
    every = [torch.ones(group.size, dtype=torch.bool) for group in groups]
    assert float(penalty(model, groups, every)) == float(penalty(model, groups, None))
    assert all(
        int(drop.sum()) == group.size - 1 for drop, group in zip(marked(model, groups, 9.0), groups, strict=True)
    )


def test_one_channel_stays_whatever_the_threshold_marks():
    model = masksparsity(
        digits_resnet(width=16, blocks=1, resolution=8), threshold=9.0, sparse_steps=0, masked_steps=0, steps=0
    )
    assert model.stage1[0].conv1.out_channels == model.stage3[0].conv2.out_channels == 1


def test_a_bypass_starts_as_nothing():
    torch.manual_seed(0)
    model = alive(digits_resnet(width=8, resolution=8))
    x = model.example_inputs(2)
    with torch.no_grad():
        wanted = model(*x)
        assert torch.allclose(lapp(model, steps=0)(*x), wanted, atol=1e-6)


@pytest.mark.parametrize("width", ["full", "kept", None])
def test_a_closed_gate_of_lapp_is_a_removed_filter(width):
    torch.manual_seed(0)
    model = lapp(alive(digits_resnet(width=8, blocks=2, resolution=8)), steps=0, bypass=width is not None)
    for part in model.modules():
        if isinstance(part, Bypassed):
            nn.init.normal_(part.bypass.pointwise.weight, std=0.2)
    groups = [group for group in groups_of_conv1(model) if not group.trunk]
    keeps = [torch.arange(1, group.size, 2) for group in groups]
    gates = [torch.zeros(group.size).index_fill(0, keep, 1.0) for group, keep in zip(groups, keeps, strict=True)]
    undo = [gate_by(model, group, lambda g=gate: g, width == "full") for group, gate in zip(groups, gates, strict=True)]
    x = model.example_inputs(2)
    with torch.no_grad():
        wanted = model(*x)
        for take_off in undo:
            take_off()
        assert not torch.allclose(model(*x), wanted, atol=1e-3)
        _remove(model, groups, keeps, width == "full")
        assert torch.allclose(model(*x), wanted, atol=1e-5)


def groups_of_conv1(model):
    """Groups of the first convolutions of the blocks, as `lapp` finds them before they have bypasses."""
    plain = digits_resnet(width=8, blocks=2, resolution=8)
    return [group for group in groups_of(plain, "test") if group.name.endswith("conv1")]


@pytest.mark.parametrize("bypass", [True, False])
def test_the_share_that_lapp_steers_by_is_what_the_trace_counts(bypass):
    def counted(model):
        return macs.count(model, model.example_inputs(1), second_count=False).macs

    torch.manual_seed(0)
    plain = digits_resnet(width=8, blocks=2, resolution=8)
    dense = counted(plain) - plain.head.weight.numel()
    groups = [group for group in groups_of(plain, "test") if not group.trunk and group.name.endswith("conv1")]
    model = lapp(copy.deepcopy(plain), steps=0, bypass=bypass)
    around = counted(model) - counted(plain)
    keeps = [torch.arange(2 + place) for place, _ in enumerate(groups)]
    gates = [torch.zeros(group.size).index_fill(0, keep, 1.0) for group, keep in zip(groups, keeps, strict=True)]
    wanted = float(expected_share(gates, products_of(model, groups, bypass))) * dense
    _remove(model, groups, keeps, bypass)
    assert counted(model) - around - plain.head.weight.numel() == pytest.approx(wanted, rel=1e-6)


def test_filters_are_kept_to_the_target_by_their_margins():
    """Of 4 x 10 + 2 x 30 + 20 = 120 products 60 % are 72: 10 + 30 + 20 for the best of each, and one of ten more."""
    margins = [torch.tensor([0.5, -0.1, 0.2, -0.3]), torch.tensor([-0.4, -0.2])]
    sizes = [(4, 10, 20.0), (2, 30, 0.0)]
    assert [kept.tolist() for kept in kept_to(margins, sizes, 0.6)] == [[0, 2], [1]]
    assert [kept.tolist() for kept in kept_to(margins, sizes, 1.0)] == [[0, 1, 2, 3], [0, 1]]
    assert [kept.tolist() for kept in kept_to(margins, sizes, 0.5)] == [[0], [1]]


@pytest.mark.parametrize("how", [{"bypass_width": "kept"}, {"bypass": False}, {}])
@pytest.mark.parametrize("target", [0.7, 0.9])
def test_lapp_reaches_its_target_within_two_per_cent(how, target):
    """Products without the bypasses; a filter of this network is 1.1 % of them at most."""
    places = {}

    def products(model):
        convs = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and "bypass" not in n}
        return sum(conv.weight.numel() * places[name.removesuffix(".conv")] for name, conv in convs.items())

    torch.manual_seed(0)
    model = digits_resnet(width=16, blocks=2, resolution=8)
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda _m, _i, out, name=name: places.__setitem__(name, out[0, 0].numel()))
    with torch.no_grad():
        model(*model.example_inputs(1))
    dense = products(model)
    model.task = lesson(model)
    assert products(lapp(model, target=target, steps=4, **how)) / dense == pytest.approx(target, abs=0.02)


def test_a_target_below_what_a_full_bypass_leaves_is_refused():
    model = digits_resnet(width=8, blocks=2, resolution=8)
    model.task = lesson(model)
    with pytest.raises(ValueError, match="bypass_width='kept'"):
        lapp(model, target=0.4, steps=4)


def test_a_slimmed_chain_answers_with_boxes_from_a_smaller_network():
    def answer(chain):
        value = chain.example_request(3)
        with torch.inference_mode():
            for _, stage in chain.stages():
                value = stage(value)
        return value

    def chain():
        torch.manual_seed(0)
        return yolov8_chain(nc=3, side=64)

    wanted = answer(chain())
    assert wanted.shape[1] == 6
    assert torch.equal(answer(yolo_slimming(chain(), rate=0.0, box_rate=0.0)), wanted)
    slimmed = yolo_slimming(chain())
    assert slimmed.kernel == "slim"
    assert sum(p.numel() for p in slimmed.parameters()) < 0.4 * sum(p.numel() for p in chain().parameters())
    assert answer(slimmed).shape[1] == 6


def test_scratch_b_trains_as_long_in_products():
    assert scratch_steps(700, 100.0, 80.0) == 875
    assert scratch_steps(90, 100.0, 30.0) == 180  # at most twice


@pytest.mark.parametrize("longest, steps", [(2.0, 4), (3.0, 6)])
def test_scratch_b_is_cut_off_where_it_is_told_to(longest, steps):
    model = digits_resnet(width=8, blocks=2, resolution=8)
    model.task = lesson(model)
    slim(model, rate=0.9, trunk=True, start="scratch_b", steps=2, longest=longest)
    assert model.method_cost["samples"] == 32 * steps


@pytest.mark.parametrize("method", ["splora", "sppara"])
def test_an_adapter_added_in_is_the_adapted_layer(method):
    torch.manual_seed(0)
    model = alive(digits_resnet(width=4, resolution=8))
    x = model.example_inputs(2)
    attach(model, method, 2)
    for part in model.modules():
        if isinstance(part, Adapted):
            for parameter in part.parameters(recurse=False):
                nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        wanted = model(*x)
        for name, part in list(model.named_modules()):
            if isinstance(part, Adapted):
                parent, _, own = name.rpartition(".")
                setattr(model.get_submodule(parent), own, part.fused())
        assert torch.allclose(model(*x), wanted, atol=1e-5)


def test_a_rank_below_one_is_a_share_of_the_sources_outputs():
    assert [whole_rank(0.25, outputs) for outputs in (16, 10, 1)] == [4, 2, 1]  # 2.5 to the even 2, one at least
    assert whole_rank(3, 100) == 3
    model = spa(digits_resnet(width=8, resolution=8), keep=0.5, rank=0.25, merged=False)
    ranks = [getattr(model, f"stage{i}")[0].conv1.down.shape[0] for i in (1, 2, 3)]
    assert ranks == [2, 4, 8]  # of 8, 16 and 32 outputs, of which half are left


@pytest.mark.parametrize("score", ["gradient", "taylor"])
def test_channels_are_scored_by_one_batch_of_the_task(score):
    torch.manual_seed(0)
    model = alive(digits_resnet(width=4, blocks=1, resolution=8))
    model.task = lesson(model)
    groups = [group for group in groups_of(model, "test") if not group.trunk]
    found = channel_scores(model, groups, score)
    inputs, labels = next(iter(model.task.training_batches(32, 1, 0)))
    nn.functional.cross_entropy(model(inputs), labels).backward()
    for group, scores in zip(groups, found, strict=True):
        weight = model.get_submodule(group.name).weight
        change = weight.grad if score == "gradient" else weight.detach() * weight.grad
        assert torch.allclose(scores, change.abs().flatten(1).sum(1), rtol=1e-4)
    before = copy.deepcopy(found[0])
    slimmed = spa(model, keep=0.5, score=score, method="full")
    assert slimmed.stage1[0].conv1.out_channels == 2 and len(before) == 4


def test_adapters_leave_the_same_slim_network():
    shapes = []
    for method in ("full", "splora", "sppara"):
        torch.manual_seed(0)
        model = spa(digits_resnet(width=8, resolution=8), keep=0.5, method=method)
        shapes.append([tuple(p.shape) for p in model.parameters()])
    assert shapes[0] == shapes[1] == shapes[2]


def test_a_task_takes_its_mask_and_what_it_learns():
    source = digits_resnet(width=8, resolution=8)
    layers = [part for part in source.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    shapes = [(layer.weight.shape[1], layer.weight.shape[0], 1) for layer in layers]
    others = sum(p.numel() for p in source.parameters()) - sum(layer.weight.numel() for layer in layers)
    adapted = spa(copy.deepcopy(source), keep=1.0, rank=3, merged=False)
    assert adapted.kept_bytes == task_bytes(shapes, 3, others)
    assert spa(copy.deepcopy(source), keep=0.7, rank=3).kept_bytes < adapted.kept_bytes
    whole = spa(copy.deepcopy(source), keep=1.0, method="full")
    assert whole.kept_bytes == sum(map(sum, (shape[:2] for shape in shapes))) / 8 + 4 * sum(
        p.numel() for p in source.parameters()
    )


def test_a_network_that_gives_its_example_as_one_tensor_is_followed():
    pytest.importorskip("torch_pruning")
    torch.manual_seed(0)
    model = digits_resnet(width=8, resolution=8)
    (x,) = model.example_inputs(1)
    model.example_inputs = lambda batch: x.expand(batch, -1, -1, -1)
    assert channel_slim(model, rate=0.5).stage1[0].conv1.out_channels == 4


def test_a_share_that_is_kept_is_decimal():
    """0.7 of ten channels are 7, although 1 - 0.7 is 0.30000000000000004 in binary."""
    model = spa(digits_resnet(width=10, resolution=8), keep=0.7)
    assert model.stage1[0].conv1.out_channels == 7


def test_splora_is_the_library():
    adapters = pytest.importorskip("sp_adapters")
    torch.manual_seed(0)
    linear = nn.Linear(256, 512)
    ours = Adapted(copy.deepcopy(linear), 32, False)
    theirs = adapters.SPLoRA(linear, rank=32)
    assert sum(p.numel() for p in ours.parameters() if p.requires_grad) == 25_088
    assert sum(p.numel() for p in theirs.parameters() if p.requires_grad) == 25_088
