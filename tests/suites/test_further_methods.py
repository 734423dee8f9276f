"""DynamicViT, Token Transforming, STViT, LookupViT, EET, SpAtten, scans, learned rates: references, counts, training."""

import copy
import itertools
import json
import math

import pytest
import torch
import torch.nn.functional as F

from suites.common.scan import selective_scan, vision_scan
from suites.common.training import Pace, fit
from suites.common.vit import vit
from suites.vit_tokens import diffrate_learning, dynamicvit, eet
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
from tests.suites import references
from tests.suites.conftest import spread
from tests.suites.test_counts import S, executed
from tests.suites.test_methods import agree

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
    assert executed(model) == 2 * block + n * c * 768 + 1000 * c


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
def transforming_reference(rate, temperature, at, protected):
    def reduce(number, x, size, bias, probabilities, k):
        n = len(x)
        if number not in at:
            return x, size, bias
        keep = math.ceil(rate * (n - protected))
        received = {i: float(probabilities[:, :, i].sum()) for i in range(protected, n)}
        chosen = sorted(sorted(received, key=received.get, reverse=True)[:keep])
        keys = k.reshape(n, -1)
        out = [x[i] for i in range(protected)]
        for i in chosen:
            cosine = torch.stack([F.cosine_similarity(keys[i], keys[j], dim=0) for j in range(n)])
            weight = (cosine / temperature).softmax(0)
            out.append(sum(weight[j] * x[j] for j in range(n)))
        x = torch.stack(out)
        return x, torch.ones(len(x)), torch.zeros(len(x), dtype=x.dtype)

    return reduce


@pytest.mark.parametrize("distilled", [False, True])
def test_token_transforming_agrees_with_the_reference(small, distilled):
    model = small(distilled=distilled)
    reduced = token_transforming(copy.deepcopy(model), keep_rate=0.6, temperature=0.2, at=[1, 3])
    agree(model, reduced, transforming_reference(0.6, 0.2, (1, 3), 1 + distilled))


def test_eet_agrees_with_the_reference(small):
    def reduce(number, x, size, bias, probabilities, k):
        n = len(x)
        if number not in (1, 3):
            return x, size, bias
        attention = torch.stack([probabilities[:, 0, i].mean() for i in range(1, n)])
        response = torch.stack([x[i].square().sum().sqrt() for i in range(1, n)])
        score = 0.3 * response / response.sum() + 0.7 * attention / attention.sum()
        kept = sorted(score.argsort(descending=True)[: math.ceil(0.6 * (n - 1))].tolist())
        x = x[[0, *(i + 1 for i in kept)]]
        return x, torch.ones(len(x)), torch.zeros(len(x), dtype=x.dtype)

    model = small()
    agree(model, eet.eet(copy.deepcopy(model), keep_rate=0.6, balance=0.3, at=[1, 3]), reduce)


def test_dynamicvit_agrees_with_the_reference(small):
    model = dynamicvit.dynamicvit(small(), rho=0.6, at=[2, 3])
    spread(model)

    def reference(image):
        x = model.embed(image[None]).x[0]
        for number, block in enumerate(model.blocks, start=1):
            if number in (2, 3):
                predictor, patches = block.enter.predictor, x[1:]
                hidden = predictor.enter(patches)
                half = hidden.shape[1] // 2
                mean = hidden[:, half:].mean(0)
                score = torch.stack([predictor.leave(torch.cat([h[:half], mean])).log_softmax(0)[0] for h in hidden])
                keep = int(25 * 0.6 ** (number - 1))
                x = x[[0, *(i + 1 for i in sorted(score.argsort(descending=True)[:keep].tolist()))]]
            attended, _, _ = references.attention(block, x, torch.zeros(len(x), dtype=x.dtype))
            x = x + attended
            x = x + block.mlp(block.norm2(x))
        return model.head(model.norm(x)[0])

    batch = images()
    with torch.no_grad():
        assert torch.allclose(model(batch), one_by_one(reference, batch), atol=1e-9)
    assert model.token_counts == [26, 16, 10, 10]


def test_masked_training_of_dynamicvit_with_nothing_dropped_is_the_plain_forward(small, monkeypatch):
    plain = small()
    model = dynamicvit.dynamicvit(copy.deepcopy(plain), rho=0.6, at=[2, 3])
    keep_all = torch.tensor([1.0, 0.0], dtype=torch.double)
    monkeypatch.setattr(F, "gumbel_softmax", lambda logits, hard: keep_all.expand_as(logits))
    batch = images()
    with torch.no_grad():
        masked = dynamicvit.masked_forward(model.double(), batch)
        assert torch.allclose(masked.logits, plain(batch), atol=1e-9)
    assert [float(r) for r in masked.ratios] == [1.0, 1.0] and torch.equal(masked.mask, torch.ones(2, 25).double())


def spatten_reference(model, at, tokens, heads, values):
    """Pruned heads are silenced instead of removed; importances add up over blocks."""

    def reference(image):
        x = model.embed(image[None]).x[0]
        count = model.blocks[0].attn.heads
        alive, seen, loud = list(range(count)), torch.zeros(len(x), dtype=x.dtype), torch.zeros(count, dtype=x.dtype)
        for number, block in enumerate(model.blocks, start=1):
            n, d = len(x), x.shape[1] // count
            _, probabilities, (_, _, v) = references.attention(block, x, torch.zeros(n, dtype=x.dtype))
            joined = torch.zeros(n, count, d, dtype=x.dtype)
            for h in alive:
                rows = probabilities[h].sum(0).argsort(descending=True)[: math.ceil(values * n)]
                joined[:, h] = sum(probabilities[h][:, j, None] * v[j, h] for j in rows.tolist())
                seen = seen + probabilities[h].sum(0)
                loud[h] += joined[:, h].abs().sum()
            x = x + block.attn.proj(joined.flatten(1))
            if number in at:
                keep = math.ceil(tokens * (n - 1))
                index = [0, *(i + 1 for i in sorted(seen[1:].argsort(descending=True)[:keep].tolist()))]
                x, seen = x[index], seen[index]
                alive = sorted(alive, key=lambda h: float(loud[h]), reverse=True)[: math.ceil(heads * len(alive))]
            x = x + block.mlp(block.norm2(x))
        return model.head(model.norm(x)[0])

    return reference


@pytest.mark.parametrize("tokens, heads, values", [(0.6, 1.0, 1.0), (1.0, 0.5, 1.0), (0.6, 0.7, 0.5), (1.0, 1.0, 0.4)])
def test_spatten_agrees_with_the_reference(small, tokens, heads, values):
    model = small(width=24, heads=4)
    reduced = spatten(copy.deepcopy(model), keep_tokens=tokens, keep_heads=heads, keep_values=values, at=[1, 3])
    batch = images()
    with torch.no_grad():
        expected = one_by_one(spatten_reference(model, (1, 3), tokens, heads, values), batch)
        assert torch.allclose(reduced(batch), expected, atol=1e-9)


def cross(block, query, context, heads):
    """Explicit cross-attention with a plain block's weights, per head."""
    c = query.shape[1]
    w, b = block.attn.qkv.weight, block.attn.qkv.bias
    q = F.linear(block.norm1(query), w[:c], b[:c])
    k, v = (F.linear(block.norm1(context), w[i * c : (i + 1) * c], b[i * c : (i + 1) * c]) for i in (1, 2))
    d = c // heads
    parts = [slice(h * d, (h + 1) * d) for h in range(heads)]
    return block.attn.proj(torch.cat([(q[:, p] @ k[:, p].T / math.sqrt(d)).softmax(1) @ v[:, p] for p in parts], dim=1))


def test_stvit_agrees_with_the_reference(small):
    plain = small(resolution=16)
    model = stvit(copy.deepcopy(plain), tokens=4, base=1).double()
    torch.nn.init.normal_(model.blocks[2].semantic)

    def reference(image):
        x = model.embed(image[None]).x[0]
        assert torch.allclose(x, plain.embed(image[None]).x[0, 1:])
        zero = torch.zeros(len(x), dtype=x.dtype)
        x = x + references.attention(model.blocks[0], x, zero)[0]
        x = x + model.blocks[0].mlp(model.blocks[0].norm2(x))
        grid = x.reshape(4, 4, -1)
        s = torch.stack([grid[i : i + 2, j : j + 2].mean((0, 1)) for i in (0, 2) for j in (0, 2)])
        s = s + cross(model.blocks[1], s, x, 2)
        s = s + model.blocks[1].mlp(model.blocks[1].norm2(s))
        s = s + cross(model.blocks[2], s + model.blocks[2].semantic[0], torch.cat([s, x]), 2)
        s = s + model.blocks[2].mlp(model.blocks[2].norm2(s))
        s = s + references.attention(model.blocks[3], s, zero[:4])[0]
        s = s + model.blocks[3].mlp(model.blocks[3].norm2(s))
        return plain.head(plain.norm(s.mean(0)))

    batch = images(side=16)
    with torch.no_grad():
        assert torch.allclose(model(batch), one_by_one(reference, batch), atol=1e-9)
    assert model.token_counts == [16, 4, 4, 4]


def test_lookupvit_agrees_with_the_reference(small):
    model = spread(lookupvit(small(resolution=16, depth=2), tokens=4, ratio=0.5).double())

    def reference(image):
        lookup = model.embed(image[None]).x[0]
        square = lookup.T.reshape(1, -1, 4, 4)
        small_square = F.interpolate(square, size=(2, 2), mode="bilinear", antialias=True, align_corners=False)
        compressed = small_square[0].flatten(1).T
        for block in model.blocks:
            q, kv = block.q(block.norm_compressed(compressed)), block.kv(block.norm_lookup(lookup))
            parts = [slice(0, 8), slice(8, 16)]
            maps = [(q[:, p] @ kv[:, :16][:, p].T / math.sqrt(8)).softmax(1) for p in parts]
            compressed = compressed + block.out(
                torch.cat([a @ kv[:, 16:][:, p] for a, p in zip(maps, parts, strict=True)], 1)
            )
            zero = torch.zeros(len(compressed), dtype=torch.double)
            compressed = compressed + references.attention(block.block, compressed, zero)[0]
            compressed = compressed + block.block.mlp(block.block.norm2(compressed))
            v = block.v_back(block.norm_back(compressed))
            back = [a.T / a.T.sum(1, keepdim=True) @ v[:, p] for a, p in zip(maps, parts, strict=True)]
            lookup = lookup + block.out_back(torch.cat(back, 1))
            lookup = lookup + block.mlp(block.norm_mlp(lookup))
        return model.head(model.fc_norm(compressed.mean(0)))

    batch = images(side=16)
    with torch.no_grad():
        assert torch.allclose(model(batch), one_by_one(reference, batch), atol=1e-9)


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


def direction_reference(direction, x, gaps):
    """One direction over x [N, inner], token by token; before a token the state decays once per step of its gap."""
    n, inner = x.shape
    padded = torch.cat([torch.zeros(3, inner, dtype=x.dtype), x])
    weight = direction.conv.weight[:, 0]
    x = F.silu(torch.stack([(padded[t : t + 4] * weight.T).sum(0) + direction.conv.bias for t in range(n)]))
    state, out = torch.zeros(inner, direction.state, dtype=x.dtype), []
    for t in range(n):
        low, b, c = direction.select(x[t]).split([direction.rank, direction.state, direction.state])
        step = F.softplus(direction.step(low))
        for _ in range(int(gaps[t])):
            state = torch.exp(-step[:, None] * direction.log_a.exp()) * state
        state = state + (step * x[t])[:, None] * b
        out.append(state @ c + direction.skip * x[t])
    return torch.stack(out)


@pytest.mark.parametrize("alignment", ["hold", "decay"])
def test_topvim_agrees_with_the_reference(alignment):
    model = topvim(scan_model(), keep_rate=0.5, at=[1, 2], alignment=alignment)

    def reference(image):
        x = (model.patch_embed(image[None]) + model.pos_embed)[0]
        place = list(range(16))
        for number, block in enumerate(model.blocks, start=1):
            inner, gate = block.enter(block.norm(x)).chunk(2, dim=-1)
            ones = [1] * len(x)
            forth = [1, *(b - a for a, b in itertools.pairwise(place))] if alignment == "decay" else ones
            back = [1, *(b - a for a, b in itertools.pairwise(place))][:0:-1] if alignment == "decay" else ones[1:]
            y = direction_reference(block.forth, inner, forth)
            y = y + direction_reference(block.back, inner.flip(0), [1, *back]).flip(0)
            x = x + block.leave(y * F.silu(gate))
            if number in (1, 2):
                score = torch.stack([sum(max(0.0, float(v)) for v in token) * torch.ones(()) for token in y])
                kept = sorted(score.argsort(descending=True)[: math.ceil(0.5 * len(x))].tolist())
                x, place = x[kept], [place[i] for i in kept]
        return model.head(model.norm(x).mean(0))

    batch = images(side=16)
    with torch.no_grad():
        fast, slow = model(batch), one_by_one(reference, batch)
    assert torch.allclose(fast, slow, atol=1e-9)
    assert model.token_counts == [8, 4, 4]


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
    # nobody reads the lookup tokens after LookupViT's last block: what makes them learns nothing there
    assert all(method is lookupvit and name.startswith("blocks.3.") for name in still)
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
    # the last block's lookup tokens are read by nobody any more: the paper's network ends there as well
    assert all(name.startswith("blocks.3.") and method is lookupvit for name in lacking)


@pytest.mark.parametrize("method, chosen", [TRAINED[0], TRAINED[2], TRAINED[3]])
def test_new_weights_without_training_are_marked(method, chosen):
    assert "training_steps" in method(trainable(), **chosen).untrained


def test_dynamicvit_learns_to_keep_the_share_it_is_asked_for():
    model, teacher = dynamicvit.dynamicvit(trainable(), rho=0.5, at=[2, 3]), trainable()
    predictor = list(model.blocks[1].enter.parameters()) + list(model.blocks[2].enter.parameters())
    losses = fit(model, batches(model, 40), dynamicvit.loss(model, teacher, 0.5), Pace(40, 1e-3, 1e-2), predictor)
    assert sum(losses[-5:]) < sum(losses[:5])
    ratios = dynamicvit.masked_forward(model, next(batches(model, 1, 64))[0]).ratios
    assert [float(r.detach()) for r in ratios] == pytest.approx([0.5, 0.25], abs=0.15)


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
