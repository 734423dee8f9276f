"""DynamicViT, Token Transforming, STViT, LookupViT, EET, SpAtten, scans: references, counts, training."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from suites.common.scan import selective_scan, vision_scan
from suites.common.training import Pace, fit
from suites.common.vit import vit
from suites.vit_tokens import diffrate_learning, dynamicvit, eet
from suites.vit_tokens import lookupvit as lookupvit_module
from suites.vit_tokens.analytic import matmul_macs
from suites.vit_tokens.diffrate import diffrate
from suites.vit_tokens.evit import evit
from suites.vit_tokens.lookupvit import lookupvit
from suites.vit_tokens.schedules import diffrate_counts
from suites.vit_tokens.spatten import spatten
from suites.vit_tokens.stvit import stvit
from suites.vit_tokens.token_transforming import token_transforming
from suites.vit_tokens.tome import tome
from suites.vit_tokens.topvim import topvim
from tests.suites.conftest import spread
from tests.suites.vit_tokens import references
from tests.suites.vit_tokens.test_counts import S, executed
from tests.suites.vit_tokens.test_methods import agree

DEIT_S = {"width": 384, "heads": 6, "depth": 12, "patch": 16}


def images(batch=2, side=20):
    return torch.randn(batch, 3, side, side, dtype=torch.double)


def one_by_one(function, batch):
    with torch.no_grad():
        return torch.stack([function(image) for image in batch])


# ---------------------------------------------------------------- counts against the published ones
def test_dynamicvit_counts_as_published_with_and_without_predictors():
    model = dynamicvit.dynamicvit(vit(**DEIT_S))
    total = executed(model)
    attention = [197] * 3 + [138] * 3 + [97] * 3 + [68] * 3
    assert model.token_counts == attention
    assert round(total / 1e9, 4) == 2.9809
    assert round(matmul_macs(S, attention, attention) / 1e9, 4) == 2.8780


def test_stvit_counts_as_published():
    model = stvit(vit(**DEIT_S))
    assert round(executed(model) / 1e9, 4) == 1.9070
    assert model.token_counts == [196] * 4 + [16] * 8


@pytest.mark.parametrize("tokens, ratio", [(25, 1.0), (9, 0.5), (49, 2.0)])
def test_lookupvit_counts_as_its_formula(tokens, ratio):
    c, n, m = 96, 196, tokens
    block = 2 * m * c * c + 2 * n * c * c + 2 * m * n * c + 4 * m * c * c + 2 * m * m * c + 8 * m * c * c
    block += m * c * c + n * c * c + m * n * c + 2 * ratio * n * c * c
    model = lookupvit(vit(width=96, heads=3, depth=2, patch=16), tokens=tokens, ratio=ratio)
    assert executed(model) == 2 * block + n * c * 768 + 2 * 1000 * c  # a head for each of both sets


def test_token_transforming_pays_for_its_matrix():
    """2 M N C for scores and product at each application, on top of the closed form for its tokens."""
    model = token_transforming(vit(width=96, heads=3, depth=12, patch=16), keep_rate=0.7)
    shape = type(S)(96, 12, 16, 224, heads=3)
    own = sum(2 * m * n * 96 for m, n in [(138, 197), (97, 139), (68, 98)])
    assert executed(model) == matmul_macs(shape, [197] * 3 + [139] * 3 + [98] * 3 + [69] * 3) + own


def test_spatten_pays_neither_for_pruned_tokens_nor_for_pruned_heads():
    """Blocks 3 and 4 of a 4-head model run on 2 heads: projections and attention cost half."""
    model = spatten(
        vit(width=32, heads=4, depth=4, patch=4, resolution=16, classes=7), keep_tokens=0.5, keep_heads=0.5, at=[2]
    )
    c, n, m = 32, 17, 9
    full = 4 * n * c * c + 2 * n * n * c
    halved = (4 * m * c * c + 2 * m * m * c) / 2
    expected = 16 * c * 48 + 7 * c + 2 * full + 2 * halved + 8 * c * c * (n + m + m + m)
    assert executed(model) == expected


# ---------------------------------------------------------------- references
def check(model, reference, side):
    """The model agrees with the reference, image by image."""
    batch = images(side=side)
    with torch.no_grad():
        assert torch.allclose(model(batch), one_by_one(lambda image: reference(model, image), batch), atol=1e-8)


RATES = st.floats(0.05, 1.0)
#: Widths, heads, patches and stages that a method meets; grids of 2 x 2 to 7 x 7.
SHAPES = st.fixed_dictionaries(
    {"heads": st.sampled_from([1, 2, 4]), "depth": st.integers(3, 5), "resolution": st.sampled_from([8, 16, 20, 28])}
)
STAGES = st.sets(st.integers(1, 3), min_size=1, max_size=3).map(sorted)
FEW = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(shape=SHAPES, rate=RATES, temperature=st.floats(0.02, 2.0), at=STAGES, distilled=st.booleans())
@FEW
def test_token_transforming_agrees_with_the_reference(small, shape, rate, temperature, at, distilled):
    model = small(**shape, distilled=distilled)
    reduced = token_transforming(copy.deepcopy(model), keep_rate=rate, temperature=temperature, at=at)
    agree(model, reduced, references.token_transforming(rate, temperature, at, 1 + distilled))


@given(shape=SHAPES, rate=RATES, balance=st.floats(0, 1), at=STAGES, distilled=st.booleans())
@FEW
def test_eet_agrees_with_the_reference(small, shape, rate, balance, at, distilled):
    model = small(**shape, distilled=distilled)
    reduced = eet.eet(copy.deepcopy(model), keep_rate=rate, balance=balance, at=at)
    agree(model, reduced, references.eet(rate, balance, at, 1 + distilled))


@given(shape=SHAPES, rho=st.floats(0.2, 0.95), at=STAGES, distilled=st.booleans())
@FEW
def test_dynamicvit_agrees_with_the_reference(small, shape, rho, at, distilled):
    model = spread(dynamicvit.dynamicvit(small(**shape, distilled=distilled), rho=rho, at=at))
    check(model, lambda m, image: references.dynamicvit(m, image, rho, at), shape["resolution"])


@given(shape=SHAPES, tokens=RATES, heads=RATES, values=RATES, at=STAGES, distilled=st.booleans())
@FEW
def test_spatten_agrees_with_the_reference(small, shape, tokens, heads, values, at, distilled):
    model = small(**shape, distilled=distilled)
    reduced = spatten(copy.deepcopy(model), keep_tokens=tokens, keep_heads=heads, keep_values=values, at=at)
    batch = images(side=shape["resolution"])
    with torch.no_grad():
        expected = one_by_one(lambda image: references.spatten(model, image, at, tokens, heads, values), batch)
        assert torch.allclose(reduced(batch), expected, atol=1e-8)


@given(shape=SHAPES, side=st.integers(1, 4), base=st.integers(1, 3))
@FEW
def test_stvit_agrees_with_the_reference(small, shape, side, base):
    side, base = min(side, shape["resolution"] // 4), min(base, shape["depth"] - 2)
    model = stvit(small(**shape), tokens=side**2, base=base).double()
    torch.nn.init.normal_(model.blocks[base + 1].semantic)
    check(model, lambda m, image: references.stvit(m, image, side, base), shape["resolution"])
    assert model.token_counts == [m.grid**2 for m in [model] * base] + [side**2] * (shape["depth"] - base)


@given(shape=SHAPES, side=st.integers(1, 5), ratio=st.sampled_from([0.25, 1.0, 2.0]))
@FEW
def test_lookupvit_agrees_with_the_reference(small, shape, side, ratio):
    side = min(side, shape["resolution"] // 4)
    model = spread(lookupvit(small(**shape), tokens=side**2, ratio=ratio).double())
    check(model, lambda m, image: references.lookupvit(m, image, side), shape["resolution"])


def test_masked_training_of_dynamicvit_with_nothing_dropped_is_the_plain_forward(small, monkeypatch):
    plain = small()
    model = dynamicvit.dynamicvit(copy.deepcopy(plain), rho=0.6, at=[2, 3])
    keep_all = torch.tensor([1.0, 0.0], dtype=torch.double)
    monkeypatch.setattr(F, "gumbel_softmax", lambda logits, hard: keep_all.expand_as(logits))
    batch = images()
    with torch.no_grad():
        masked = dynamicvit.masked_forward(model.double(), batch)
        assert torch.allclose(masked.logits, plain(batch), atol=1e-9)
    assert [r.tolist() for r in masked.ratios] == [[1.0, 1.0]] * 2 and torch.equal(
        masked.mask, torch.ones(2, 25).double()
    )


# ---------------------------------------------------------------- scans
@pytest.mark.parametrize("length", [2, 3, 7, 16, 37])
def test_parallel_scan_equals_the_recurrence_and_so_do_its_gradients(length):
    decay = torch.rand(2, length, 3, dtype=torch.double, requires_grad=True)
    drive = torch.randn(2, length, 3, dtype=torch.double, requires_grad=True)
    state, states = torch.zeros(2, 3, dtype=torch.double), []
    for t in range(length):
        state = decay[:, t] * state + drive[:, t]
        states.append(state)
    slow, fast = torch.stack(states, dim=1), selective_scan(decay, drive)
    assert torch.allclose(fast, slow)
    for one, other in zip(
        torch.autograd.grad(fast.square().sum(), (decay, drive)),
        torch.autograd.grad(slow.square().sum(), (decay, drive)),
        strict=True,
    ):
        assert torch.allclose(one, other)


def scan_model(**changes):
    torch.manual_seed(0)
    return vision_scan(
        **{"width": 16, "depth": 3, "patch": 4, "resolution": 16, "classes": 5, "state": 4, **changes}
    ).double()


@given(
    rate=RATES,
    at=STAGES,
    alignment=st.sampled_from(["hold", "decay"]),
    resolution=st.sampled_from([8, 16, 20]),
    width=st.sampled_from([8, 16]),
    state=st.integers(1, 5),
)
@FEW
def test_topvim_agrees_with_the_reference(rate, at, alignment, resolution, width, state):
    model = scan_model(resolution=resolution, width=width, state=state)
    model = topvim(model, keep_rate=rate, at=at, alignment=alignment)
    check(model, lambda m, image: references.topvim(m, image, rate, at, alignment), resolution)


def test_the_two_alignments_differ_only_where_patches_are_missing():
    batch = images(side=16)
    with torch.no_grad():
        hold, decay = (topvim(scan_model(), keep_rate=0.5, at=[1], alignment=a)(batch) for a in ("hold", "decay"))
        whole = [topvim(scan_model(), keep_rate=1.0, at=[1], alignment=a)(batch) for a in ("hold", "decay")]
        plain = scan_model()(batch)
    assert not torch.allclose(hold, decay)
    assert torch.equal(whole[0], plain) and torch.equal(whole[1], plain)


# ---------------------------------------------------------------- nothing removed, wrong settings, training
@pytest.mark.parametrize(
    "method, chosen",
    [
        (token_transforming, {"keep_rate": 1.0, "at": [1, 2]}),
        (dynamicvit.dynamicvit, {"rho": 1.0, "at": [1, 2]}),
        (eet.eet, {"keep_rate": 1.0, "at": [1, 2]}),
        (spatten, {"keep_tokens": 1.0, "keep_heads": 1.0, "at": [1, 2]}),
    ],
)
def test_keeping_everything_gives_the_plain_model_bit_for_bit(method, chosen):
    model = spread(vit(width=16, heads=2, depth=4, patch=4, resolution=20, classes=5))
    batch = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        plain = model(batch)
        assert torch.equal(method(model, **chosen)(batch), plain)


@pytest.mark.parametrize(
    "method, chosen, message",
    [
        (token_transforming, {"at": [2], "temperature": 0.0}, r"temperature=0.0 must be > 0 \(depth 4\)"),
        (dynamicvit.dynamicvit, {"at": [2], "rho": 0.0}, "rho=0.0"),
        (dynamicvit.dynamicvit, {"at": [9]}, r"1\.\.4"),
        (dynamicvit.dynamicvit, {"at": [2], "training_steps": 5}, "take a digits model"),
        (stvit, {"tokens": 15}, r"square number in 1\.\.25"),
        (stvit, {"tokens": 4, "base": 3}, r"1\.\.2"),
        (lookupvit, {"tokens": 36}, r"square number in 1\.\.25"),
        (eet.eet, {"at": [2], "balance": 2.0}, "balance=2.0"),
        (eet.eet, {"at": [2], "training_steps": 5}, "take a digits model"),
        (spatten, {"at": [2], "keep_heads": 0.0}, "keep_heads=0.0"),
        (topvim, {}, "vim_tiny, not on ViT"),
        (diffrate, {"target_gmacs": 1.0}, "take a digits model"),
        (diffrate, {"target_gmacs": 1.0, "merge": [26] * 4}, "needs either"),
    ],
)
def test_wrong_settings_are_told(small, method, chosen, message):
    with pytest.raises(ValueError, match=message):
        method(small(), **chosen)


def batches(model, steps, size=16):
    """Two classes told apart by brightness."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        labels = torch.randint(0, 2, (size,), generator=generator)
        noise = torch.randn(size, 3, model.resolution, model.resolution, generator=generator)
        yield noise + 2.0 * labels[:, None, None, None], labels


def trainable():
    torch.manual_seed(0)
    return vit(width=16, heads=2, depth=4, patch=4, resolution=16, classes=2)


class TwoClasses:
    """A task to learn from that keeps nothing."""

    def training_batches(self, batch_size, steps, seed):
        return batches(trainable(), steps, batch_size)

    def remembered(self, what, key, make):
        self.what, self.key, self.source = what, key, f"{make.__module__}:{make.__name__}"
        return make()


TRAINED = [
    (dynamicvit.dynamicvit, {"rho": 0.5, "at": [2, 3]}),
    (eet.eet, {"keep_rate": 0.5, "at": [2, 3]}),
    (stvit, {"tokens": 4, "base": 1}),
    (lookupvit, {"tokens": 4}),
    (spatten, {"keep_tokens": 0.5, "keep_heads": 0.5, "keep_values": 0.7, "at": [2]}),
    (tome, {"r": 2}),
    (evit, {"keep_rate": 0.5, "at": [2]}),
    (diffrate, {"prune": [17, 15, 12, 9], "merge": [17, 13, 10, 7]}),
]


@pytest.mark.parametrize("method, chosen", TRAINED, ids=lambda value: getattr(value, "__name__", ""))
def test_every_method_trains_on_the_task_of_its_model(method, chosen):
    """All weights move, the loss falls, and the cache is asked by the method's own source."""
    model, task = trainable(), TwoClasses()
    model.task = task
    torch.manual_seed(0)
    before = copy.deepcopy(method(trainable(), **chosen).state_dict())
    torch.manual_seed(0)
    model = method(model, **chosen, training_steps=25)
    still = [name for name, value in model.state_dict().items() if torch.equal(value, before[name])]
    assert not still
    assert not model.training and model.task is task
    assert task.what == method.__name__ and task.source == f"{method.__module__}:{method.__name__}"
    assert task.key["steps"] == 25 and json.dumps(task.key)
    assert model.learned["steps"] == 25 and not hasattr(model, "untrained")
    images, labels = next(batches(trainable(), 1, 64))
    with torch.no_grad():
        assert (model(images).argmax(1) == labels).double().mean() > 0.9


def test_topvim_trains_on_the_task_of_its_model():
    def build():
        torch.manual_seed(0)
        return vision_scan(width=16, depth=3, patch=4, resolution=16, classes=2, state=4)

    model = build()
    model.task = TwoClasses()
    model = topvim(model, keep_rate=0.5, at=[1], training_steps=25)
    before = build().state_dict()
    assert not [name for name, value in model.state_dict().items() if torch.equal(value, before[name])]


@pytest.mark.parametrize("method, chosen", TRAINED[:4], ids=lambda value: getattr(value, "__name__", ""))
def test_gradients_reach_every_weight_that_a_method_brings(method, chosen):
    model = method(trainable(), **chosen).train()
    images, labels = next(batches(model, 1))
    if method is dynamicvit.dynamicvit:
        value = dynamicvit.loss(model, trainable(), 0.5)(images, labels)
    else:
        value = F.cross_entropy(model(images), labels)
    value.backward()
    lacking = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not lacking


@pytest.mark.parametrize("method, chosen", [TRAINED[0], TRAINED[2], TRAINED[3]])
def test_new_weights_without_training_are_marked(method, chosen):
    assert "training_steps" in method(trainable(), **chosen).untrained


def test_dynamicvit_learns_to_keep_the_share_it_is_asked_for():
    model, teacher = dynamicvit.dynamicvit(trainable(), rho=0.5, at=[2, 3]), trainable()
    predictor = list(model.blocks[1].enter.parameters()) + list(model.blocks[2].enter.parameters())
    losses = fit(model, batches(model, 40), dynamicvit.loss(model, teacher, 0.5), Pace(40, 1e-3, 1e-2), predictor)
    assert sum(losses[-5:]) < sum(losses[:5])
    ratios = dynamicvit.masked_forward(model, next(batches(model, 1, 64))[0]).ratios
    assert [float(r.detach().mean()) for r in ratios] == pytest.approx([0.5, 0.25], abs=0.15)


def test_dynamicvits_share_is_asked_of_every_image():
    """One image that keeps all patches and one that keeps none are each as wrong as can be, not right on average."""
    model, teacher = dynamicvit.dynamicvit(trainable(), rho=0.5, at=[2]), trainable()
    pictures, labels = next(batches(model, 1, 2))
    ratios = [torch.tensor([1.0, 0.0])]
    masked = dynamicvit.masked_forward(model, pictures)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamicvit, "masked_forward", lambda *_: masked._replace(ratios=ratios))
        apart = dynamicvit.loss(model, teacher, 0.5)(pictures, labels)
        patch.setattr(dynamicvit, "masked_forward", lambda *_: masked._replace(ratios=[torch.tensor([0.5, 0.5])]))
        alike = dynamicvit.loss(model, teacher, 0.5)(pictures, labels)
    assert float((apart - alike).detach()) == pytest.approx(dynamicvit.RATIO_WEIGHT * 0.25, abs=1e-5)


@pytest.mark.parametrize("method, chosen", [(dynamicvit.dynamicvit, {"rho": 0.5}), (eet.eet, {"keep_rate": 0.5})])
def test_training_with_masks_is_refused_where_a_mean_would_read_the_masked(method, chosen):
    model = vit(width=16, heads=2, depth=4, patch=4, resolution=16, classes=2, pool="mean")
    model.task = TwoClasses()
    with pytest.raises(ValueError, match="pool='mean'"):
        method(model, **chosen, training_steps=1)


def test_a_model_can_be_copied_in_the_middle_of_eets_training():
    model = eet.eet(trainable(), keep_rate=0.5, at=[2]).train()
    eet.loss(model, trainable())(*next(batches(model, 1))).backward()
    copy.deepcopy(model)


def test_lookupvit_learns_by_both_heads_alike():
    model = lookupvit(trainable(), tokens=4).train()
    pictures, labels = next(batches(model, 1))
    lookupvit_module.loss(model, trainable())(pictures, labels).backward()
    both = model.reader
    with torch.no_grad():
        compressed, lookup = both.logits(model.encode(pictures))
        assert torch.allclose(model(pictures), (compressed + lookup) / 2, atol=1e-6)
    assert both.head.weight.grad.abs().sum() > 0 and both.head_lookup.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("side, fused", [(16, True), (56, False)])  # ceil(0.99 x 16) = 16, ceil(0.99 x 196) = 195
def test_attention_stays_fused_where_a_rate_below_one_removes_nothing(side, fused):
    model = token_transforming(vit(width=16, heads=2, depth=4, patch=4, resolution=side, classes=2), keep_rate=0.99)
    assert any(block.attn.keep_probabilities for block in model.blocks) is not fused
    assert any(block.reduce is not None for block in model.blocks) is not fused


def test_eet_learns_from_its_teacher():
    model, teacher = eet.eet(trainable(), keep_rate=0.5, at=[2, 3]), trainable()
    losses = fit(model, batches(model, 30), eet.loss(model, teacher), Pace(30, 1e-3))
    assert sum(losses[-5:]) < sum(losses[:5]) and not model.training


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
def test_learned_rates_meet_their_target(share):
    model = trainable()
    weights = copy.deepcopy(model.state_dict())
    full = float(diffrate_learning.expected_macs(model, [torch.tensor(17.0)] * 4))
    prune, merge = diffrate_learning.learn(model, share * full, batches(model, 12), granularity=2)
    counts = diffrate_counts(prune, merge, 17)
    cost = float(diffrate_learning.expected_macs(model, [torch.tensor(float(n)) for n in counts]))
    assert counts[0] == 17 and 0.9 * share * full < cost <= share * full
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_target_out_of_reach_is_told_with_the_range():
    with pytest.raises(ValueError, match=r"target_gmacs=5 must lie in .*depth 4"):
        diffrate_learning.learn(trainable(), 5e9, iter([]))


def test_masked_learning_forward_with_all_kept_is_the_plain_forward():
    model = trainable()
    rates = diffrate_learning.Rates(model, 1, [17, 15, 13, 11])
    for kept in [*rates.prune, *rates.merge]:
        kept.logits.data = torch.full_like(kept.logits, -1e4)
        kept.logits.data[0] = 0.0
    batch, _ = next(batches(model, 1))
    with torch.no_grad():
        assert torch.allclose(diffrate_learning.masked_forward(model, batch, rates), model(batch), atol=1e-5)


@pytest.mark.parametrize("prune, merge", [(9, 9), (17, 9), (12, 7)])
def test_masked_learning_forward_is_the_reduced_forward_for_its_counts(prune, merge):
    model = spread(trainable())
    rates = diffrate_learning.Rates(model, 1, [17, 15, 13, 11])
    for part, count in ((rates.prune, prune), (rates.merge, merge)):
        for kept in part:
            kept.logits.data = torch.where(kept.counts == count, 0.0, -1e4)
    batch, _ = next(batches(model, 1))
    reduced = diffrate(copy.deepcopy(model), prune=[17] + [prune] * 3, merge=[17] + [merge] * 3)
    with torch.no_grad():
        assert torch.allclose(diffrate_learning.masked_forward(model, batch, rates), reduced(batch), atol=1e-5)
