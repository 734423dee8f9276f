"""Sub-networks of one store: slices equal copies, switching changes nothing, only what runs learns."""

import copy

import pytest
import torch
import torch.nn.functional as F

from suites.common.decoder import decoder
from suites.common.digits_vit import digits_vit
from suites.dynamic.deps import deps
from suites.dynamic.elastic import bytes_of, storage_share, touched
from suites.dynamic.elasticvit import elasticvit, elasticvit_net
from suites.dynamic.elasticvit_learning import banks_of, drawn
from suites.dynamic.elasticvit_space import macs as elastic_macs
from suites.dynamic.matformer import matformer, nest
from suites.dynamic.ofa import ofa, ofa_net
from suites.dynamic.ofa_learning import recalibrate, sort
from suites.dynamic.ofa_space import choice, digits_space, macs, smallest
from suites.dynamic.sortednet import activate, best_within, sortednet

from . import counting


def ofa_store():
    torch.manual_seed(0)
    store = ofa_net(space="digits", resolution=32)
    for name, parameter in store.named_parameters():
        if name.endswith(".matrix"):
            parameter.data += 0.1 * torch.randn_like(parameter)
    for module in store.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return store


def evit_store():
    torch.manual_seed(0)
    store = elasticvit_net(base="digits", resolution=32)
    for name, parameter in store.named_parameters():
        if name.endswith("offsets"):
            torch.nn.init.normal_(parameter)
    return store


def small_vit():
    torch.manual_seed(0)
    return digits_vit(width=16, heads=2, depth=3)


SMALL = {
    "ofa": (ofa_store, ofa, {"depth": [1, 2, 1], "expand": [2, 4, 2, 4], "kernel": [3, 5, 5, 3]}, 3),
    "elasticvit": (
        evit_store, elasticvit,
        {"channels": [8, 8, 16, 16, 32, 48, 64], "depths": [1, 1, 2, 1, 1, 2, 1], "kernels": [3, 3, 5],
         "mlp": [1, 2, 3, 1], "values": [2, 3, 1, 1], "expansions": [1, 2, 3]}, 3,
    ),
    "matformer": (small_vit, matformer, {"granularity": [0.125, 0.5, 1.0]}, 3),
    "sortednet": (small_vit, sortednet, {"depth": 2, "width": 0.25}, 3),
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_slice_of_the_store_and_a_copy_of_it_are_the_same_network(name):
    make, method, settings, channels = SMALL[name]
    images = torch.randn(2, channels, 32, 32)
    one, other = (method(make(), **settings, form=form) for form in ("slice", "extract"))
    torch.testing.assert_close(one(images), other(images), rtol=0, atol=1e-6)
    assert counting.of(one, (images,))[0] == counting.of(other, (images,))[0]
    assert bytes_of(other) < bytes_of(make())
    whole = make()
    torch.testing.assert_close(method(make())(images), whole(images), rtol=0, atol=0)


def test_slices_are_views_of_the_store_and_inputs_of_a_layer_are_strided():
    store = evit_store()
    one = elasticvit(store, **SMALL["elasticvit"][2], form="slice")
    name = "stages.2.blocks.0.fc1.weight"
    view, whole = one.get_parameter(name), store.get_parameter(name)
    assert view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
    assert not view.is_contiguous()
    with torch.no_grad():
        whole[0, 0] = 7.0
    assert view[0, 0] == 7.0


@torch.no_grad()
def test_switching_there_and_back_changes_nothing():
    images, store = torch.randn(2, 3, 32, 32), ofa_store()
    before = store(images)
    store.activate(smallest(store.space))
    assert not torch.equal(store(images), before)
    store.activate(choice(store.space))
    assert torch.equal(store(images), before)
    vit = digits_vit(width=16, heads=2, depth=3)
    before = vit(images)
    nest(vit, [8, 16, 32])
    nest(vit, [64, 64, 64])
    assert torch.equal(vit(images), before)
    activate(vit, 1, 0.5)
    activate(vit, 3, 1.0)
    assert torch.equal(vit(images), before)


def test_weights_that_do_not_run_have_no_gradient():
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    vit = digits_vit(width=16, heads=2, depth=3)
    nest(vit, [16, 16, 16])
    F.cross_entropy(vit(images), labels).backward()
    mlp = vit.blocks[0].mlp
    assert mlp.fc1.whole.weight.grad[16:].abs().max() == 0 < mlp.fc1.whole.weight.grad[:16].abs().max()
    assert mlp.fc2.whole.weight.grad[:, 16:].abs().max() == 0
    store = ofa_store()
    store.activate(choice(store.space, 1, 2, 3))
    F.cross_entropy(store(images), labels).backward()
    first = store.units[0][0]
    assert (
        first.widen[0].weight.grad[first.mid :].abs().max() == 0 < first.widen[0].weight.grad[: first.mid].abs().max()
    )
    assert store.units[0][1].widen[0].weight.grad is None


@torch.no_grad()
def test_sorting_channels_leaves_the_network_as_it_is_and_puts_the_important_ones_first():
    store, images = ofa_store(), torch.randn(2, 3, 32, 32)
    before = store(images)
    sort(store)
    torch.testing.assert_close(store(images), before, rtol=1e-4, atol=1e-5)
    norms = store.units[1][0].narrow[0].weight.abs().sum(dim=(0, 2, 3))
    assert (norms[:-1] >= norms[1:]).all()


def test_products_grow_with_every_dimension():
    space = digits_space()
    for name in ("depth", "expand", "kernel"):
        few, many = (macs(space, choice(space, **{name: value}), 32) for value in _ends(space, name))
        assert few < many
    with pytest.raises(ValueError, match="offers"):
        choice(space, depth=3)
    with pytest.raises(ValueError, match="one per block"):
        choice(space, depth=1, expand=[2, 2])


def _ends(space, name):
    values = {"depth": space.depths, "expand": space.expands, "kernel": space.kernels}[name]
    return min(values), max(values)


class Batches:
    """A task that gives the same images again and again."""

    def __init__(self, images):
        self.images = images

    def training_batches(self, size, steps, seed):
        for _ in range(steps):
            yield self.images, torch.zeros(len(self.images), dtype=torch.long)


def test_recalibrated_norms_are_those_of_the_batches_and_the_store_keeps_its_own():
    store = ofa_store()
    images = torch.randn(16, 3, 32, 32)
    store.task = Batches(images)
    kept = copy.deepcopy(store.state_dict())
    store.activate(choice(store.space, 1, 2, 3))
    recalibrate(store, 2)
    first = store.units[0][0]
    with torch.no_grad():
        inside = F.conv2d(store.stem(images), first.widen[0].weight[: first.mid])
    torch.testing.assert_close(first.stats[0][0], inside.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, kept[name]) for name, value in store.state_dict().items())
    with torch.no_grad():
        small = ofa(store, depth=1, expand=2, kernel=3, form="extract", recalibrated=2)
        torch.testing.assert_close(small(images), store(images), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_switch_with_recalibration_gives_what_the_recalibrated_copy_gives_and_leaves_the_store():
    from suites.dynamic.switching import subnet_switch

    images, found = torch.randn(2, 3, 16, 16), {}
    for recalibrated in (0, 2):
        for form in ("slice", "extract", "resident"):
            torch.manual_seed(0)
            switch = subnet_switch(form=form, space="digits", resolution=16, recalibrated=recalibrated)
            before = switch.store(images)
            found[form] = switch(images)
            assert torch.equal(switch.store(images), before)  # it is the largest again, with its own statistics
            torch.testing.assert_close(found[form], switch.reference(images), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found[form], found["slice"], rtol=0, atol=1e-5)
        found[recalibrated] = found["slice"]
    assert (found[0] - found[2]).abs().max() > 1e-3
    # one forward of each of the two batches of 32, and one of each image
    torch.manual_seed(0)
    switch = subnet_switch(space="digits", resolution=16, recalibrated=2)
    least = macs(digits_space(), smallest(digits_space()), 16)
    assert counting.of(switch, (images,))[0] == (2 * 32 + 2) * least


class Kept(Batches):
    """A task that keeps nothing: what is remembered is made each time."""

    def remembered(self, what, key, make):
        return make()


def test_norms_of_a_store_that_was_trained_for_many_are_recalibrated_unless_asked_not_to(monkeypatch):
    seen = []
    monkeypatch.setattr("suites.dynamic.ofa.shrink", lambda store, *_: store.state_dict())
    monkeypatch.setattr("suites.dynamic.deps.delayed", lambda store, *_: store.state_dict())
    monkeypatch.setattr("suites.dynamic.ofa.recalibrate", lambda store, batches: seen.append(batches))
    for method, settings in (
        (ofa, {}), (ofa, {"recalibrated": 3}), (ofa, {"recalibrated": 0}), (ofa, {"recipe": "alone"}), (deps, {}),
        (deps, {"recalibrated": 0}),
    ):  # fmt: skip
        store = ofa_store()
        store.task = Kept(torch.randn(2, 3, 32, 32))
        method(store, depth=1, form="slice", training_steps=1, **settings)
    assert seen == [8, 3, 8]
    ofa(ofa_store(), form="slice")
    assert seen == [8, 3, 8]


def test_rows_say_what_their_training_multiplied():
    for method, settings, products in (
        (deps, {"warm": 1.0}, 2 * 1_228_288),  # the largest alone, two steps of 32 images, a backward twice a forward
        (deps, {"warm": 0.5}, 2 * 1_228_288 + 484_672),  # then with the smallest, and two random ones between the two
        (ofa, {"recipe": "alone", "depth": 1, "expand": 2, "kernel": 3}, 2 * 484_672),
    ):
        store = ofa_store()
        store.task = Kept(torch.randn(2, 3, 32, 32))
        found = method(store, **settings, recalibrated=0, training_steps=2).method_cost["macs"] / (3 * 32) - products
        assert found == 0 or (settings == {"warm": 0.5} and 2 * 484_672 <= found <= 2 * 1_228_288)


def test_one_store_is_smaller_than_its_sub_networks_apart():
    store = ofa_store()
    subs = [ofa(copy.deepcopy(store), depth=depth, expand=expand) for depth in (1, 2) for expand in (2, 4)]
    apart = sum(bytes_of(sub) for sub in subs)
    assert storage_share(store, subs) == pytest.approx(bytes_of(store) / apart)
    assert touched(subs[0]) == sum(p.numel() for p in subs[0].parameters()) < sum(p.numel() for p in store.parameters())


@torch.no_grad()
def test_a_decoder_nests_its_gated_networks_and_writes_with_a_cache():
    whole = decoder(width=16, layers=2, heads=2, hidden=24, vocabulary=31)
    ids = torch.randint(31, (1, 9))
    sliced, small = (matformer(copy.deepcopy(whole), granularity="L", form=form) for form in ("slice", "extract"))
    torch.testing.assert_close(sliced(ids), small(ids), rtol=0, atol=1e-6)
    _, cache = small.prefill(ids[:, :8])
    torch.testing.assert_close(small.decode(ids[:, 8:], cache)[0], small(ids)[:, -1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_decoder_drafts_with_a_part_of_itself_and_writes_what_it_would_write_alone():
    from suites.common.speculation import greedy

    torch.manual_seed(0)
    whole = decoder(width=16, layers=2, heads=2, hidden=24, vocabulary=31)
    ids = torch.randint(31, (2, 9))
    for form in ("slice", "extract"):
        main = matformer(copy.deepcopy(whole), granularity="L", draft="S", ahead=3, form=form)
        assert torch.equal(main(ids), matformer(copy.deepcopy(whole), granularity="L", form=form)(ids))
        assert torch.equal(main.write(ids, 7), greedy(main, ids, 7))
        assert main.written()["draft_acceptance"] is not None
        # drafts are those of the smallest granularity, int(24 / 8) = 3 units, on the same weights of attention
        alone = matformer(copy.deepcopy(whole), granularity="S")
        torch.testing.assert_close(main.small(ids), alone(ids), rtol=0, atol=1e-6)
        assert main.small.blocks[0].attention is main.blocks[0].attention
        assert sum(p.numel() for p in main.parameters()) == sum(p.numel() for p in matformer(
            copy.deepcopy(whole), granularity="L", form=form).parameters())  # fmt: skip
    same = matformer(copy.deepcopy(whole), draft="XL", ahead=3)
    same.write(ids, 7)  # the whole accepts all drafts of the whole
    assert same.written()["draft_acceptance"] == 100
    with pytest.raises(ValueError, match="more units"):
        matformer(copy.deepcopy(whole), granularity="M", draft="L")
    with pytest.raises(ValueError, match="writes nothing"):
        matformer(small_vit(), draft="S")


def test_banks_follow_cost_and_hold_networks_that_fit_the_store():
    import random

    store, rng = evit_store(), random.Random(0)
    banks = banks_of(store, rng, elastic_macs)
    highest = [max(elastic_macs(one, 32) for one in bank) for bank in banks]
    lowest = [min(elastic_macs(one, 32) for one in bank) for bank in banks]
    assert all(a <= b for a, b in zip(highest, lowest[1:], strict=False))
    for _ in range(5):
        shape = drawn(store.shape, rng)
        names = ("channels", "depths", "expansions", "kernels", "mlp", "values")
        small = elasticvit(store, **{name: list(getattr(shape, name)) for name in names})
        images = torch.randn(1, 3, 32, 32)
        assert counting.of(small, (images,))[0] == elastic_macs(shape, 32) <= elastic_macs(store.shape, 32)


def test_blocks_of_a_store_bound_those_of_its_sub_networks_one_by_one():
    from suites.dynamic.elasticvit_learning import nearest

    torch.manual_seed(0)
    store = elasticvit_net(base="digits", resolution=32, mlp=[3, 1, 3, 3, 3, 3])  # depths 2, 1, 2, 1 of attention
    small = elasticvit(store, mlp=[2, 1, 3, 3, 1, 3])
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert counting.of(small, (images,))[0] == elastic_macs(small.shape, 32) < elastic_macs(store.shape, 32)
    with pytest.raises(ValueError, match="above the store"):
        elasticvit(store, mlp=[3, 2, 3, 3, 3, 3])
    cut = elasticvit(store, depths=[1, 2, 2, 1, 1, 1, 1]).shape  # the first blocks keep their own
    assert cut.mlp == (3, 3, 3, 3)
    assert nearest([cut, store.shape], small.shape) is store.shape and nearest([cut, store.shape], store.shape) is cut


def test_the_largest_sub_model_within_a_budget_is_taken():
    assert best_within([10, 40, 20], 25) == 2
    assert best_within([10, 40], 5) is None
