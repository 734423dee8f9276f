"""Each method's rule against a slow, obvious one, on small numbers worked out by hand where that is possible."""

import itertools
import math

import torch
import torch.nn.functional as F

from suites.common.rotary import rotated, rotation
from suites.vlm_tokens.adatoken import calibrate, tokens_that_hold
from suites.vlm_tokens.ahc import ahc
from suites.vlm_tokens.aim import Matching, aim
from suites.vlm_tokens.controls import drawn, even, fastv
from suites.vlm_tokens.corematching import bend, core_of_sentence, core_of_tokens, corematching
from suites.vlm_tokens.csp import by_quota, csp, every
from suites.vlm_tokens.pyramiddrop import pyramiddrop
from suites.vlm_tokens.reduced import best
from suites.vlm_tokens.scores import ImageScore, NextLayerScore, PageRank, RowScore
from suites.vlm_tokens.visiondrop import Merger, mean_by, targets_of, visiondrop


def eager_map(attention, normed, start=0):
    """Softmax attention map of one layer [batch, heads, tokens, tokens], written out head by head."""
    tokens = normed.shape[1]
    by = rotation(start, tokens, attention.head, normed)
    q, k = attention.q(normed), attention.k(normed)
    maps = []
    for head in range(attention.heads):
        part = slice(head * attention.head, (head + 1) * attention.head)
        logits = rotated(q[..., part], by) @ rotated(k[..., part], by).transpose(1, 2) / math.sqrt(attention.head)
        hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        maps.append(logits.masked_fill(hidden, -torch.inf).softmax(dim=-1))
    return torch.stack(maps, dim=1)


def test_ties_go_to_the_first_and_order_is_kept():
    assert best(torch.tensor([[1.0, 3.0, 1.0, 3.0, 1.0]]), 3).tolist() == [[0, 1, 3]]
    assert best(torch.zeros(1, 4), 2).tolist() == [[0, 1]]


def test_pyramiddrops_score_is_a_row_of_the_next_layers_eager_map(make, prompts):
    model = make()
    ids = prompts(model)
    stream = model.stream(ids, model.see(ids))
    block = model.decoder.blocks[0]
    wanted = eager_map(block.attention, block.norm1(stream.x))[:, :, -1].mean(dim=1)[:, 1:65]
    for form in ("reuse", "minimal", "released"):
        found, keys = NextLayerScore(form)(stream, model, 0, 20)
        torch.testing.assert_close(found, wanted)
        assert (keys is not None) == (form == "reuse")
    torch.testing.assert_close(keys if keys is not None else block.attention.k(block.norm1(stream.x)),
                               block.attention.k(block.norm1(stream.x)))  # fmt: skip


def slow_pyramiddrop(model, ids, cuts, keep):
    """Layer by layer with index lists, keys computed anew."""
    x = model.stream(ids, model.see(ids)).x
    visual = model.visual
    for layer, block in enumerate(model.decoder.blocks):
        if layer in cuts:
            wanted = int(model.visual * keep ** (1 + cuts.index(layer)))
            score = eager_map(block.attention, block.norm1(x))[0, :, -1].mean(dim=0)[1 : 1 + visual]
            order = sorted(range(visual), key=lambda i: (-float(score[i]), i))[:wanted]
            index = [0, *(1 + i for i in sorted(order)), *range(1 + visual, x.shape[1])]
            x, visual = x[:, index], wanted
        x = block(x, rotation(0, x.shape[1], model.decoder.rotary_size, x))
    return model.decoder.head(model.decoder.norm(x[:, -1]))


def test_pyramiddrop_is_the_slow_one_whatever_its_score_costs(make, prompts):
    ids = prompts(make(), batch=1)
    wanted = slow_pyramiddrop(make(), ids, [1, 2, 3], 0.5)
    for form in ("reuse", "minimal", "released"):
        torch.testing.assert_close(pyramiddrop(make(), score=form)(ids), wanted, rtol=1e-4, atol=1e-5)


def test_a_cut_behind_the_last_layer_but_one_changes_only_the_last(make, prompts):
    ids = prompts(make())
    _, plain = make().prefill(ids)
    _, cut = pyramiddrop(make(), cuts=[3]).prefill(ids)
    for before, after in zip(plain.kept[:3], cut.kept[:3], strict=True):
        assert torch.equal(before.k.filled, after.k.filled) and torch.equal(before.v.filled, after.v.filled)
    assert cut.kept[3].used == 5 + 32 and cut.places == (69, 69, 69, 37)


def test_fastv_keeps_what_the_last_token_looks_at_in_the_layer_before(make, prompts):
    model = make()
    ids = prompts(model, batch=1)
    x = model.stream(ids, model.see(ids)).x
    by = rotation(0, x.shape[1], model.decoder.rotary_size, x)
    x = model.decoder.blocks[0](x, by)
    score = eager_map(model.decoder.blocks[1].attention, model.decoder.blocks[1].norm1(x))[:, :, -1].mean(dim=1)
    reduced = fastv(make(), R=0.75)
    reduced.prefill(ids)
    assert torch.equal(reduced.kept_origin, best(score[:, 1:65], 16))
    assert reduced.tokens_per_layer == [64, 64, 16, 16]


def test_a_row_score_averages_heads_behind_the_softmax():
    q, k = torch.randn(1, 2, 1, 4), torch.randn(1, 2, 5, 4)
    rows = [F.softmax(q[0, h, 0] @ k[0, h].T / 2, dim=-1) for h in range(2)]
    torch.testing.assert_close(RowScore()(q, k, 1, 3)[0], ((rows[0] + rows[1]) / 2)[1:4])


def test_contextual_targets_gain_the_mean_of_their_own():
    torch.manual_seed(0)
    x, keys, score = torch.randn(2, 20, 6), torch.randn(2, 20, 4), torch.rand(2, 20)
    found, origin = Merger()(x, keys, score, 5, 3)
    for row in range(2):
        top = sorted(sorted(range(20), key=lambda i: -float(score[row, i]))[:5])
        rest = [i for i in range(20) if i not in top]
        targets = rest[:: len(rest) // 3][:3]
        owned = {t: [] for t in targets}
        for token in rest:
            if token not in targets:
                sims = [float(F.cosine_similarity(keys[row, token], keys[row, t], dim=0)) for t in targets]
                owned[targets[sims.index(max(sims))]].append(token)
        wanted = [x[row, i] for i in top]
        wanted += [x[row, t] + (x[row, owned[t]].mean(dim=0) if owned[t] else 0) for t in targets]
        torch.testing.assert_close(found[row], torch.stack(wanted))
        assert origin[row].tolist() == [*top, *targets]


def test_every_nth_of_the_rest_is_a_target():
    targets, others = targets_of(torch.arange(10)[None] * 2, 3)
    assert targets.tolist() == [[0, 6, 12]] and others.tolist() == [[2, 4, 8, 10, 14, 16, 18]]
    assert mean_by(torch.tensor([[[2.0], [4.0], [9.0]]]), torch.tensor([[0, 0, 1]]), 3).flatten().tolist() == [3, 9, 0]


def test_image_attention_prefers_early_tokens_by_its_mask():
    """Uniform causal attention: key j of n gets mean over queries of 1 / (i + 1) for i >= j, which falls with j."""
    score = ImageScore()(torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2))[0]
    wanted = [sum(1 / (i + 1) for i in range(j, 4)) / 4 for j in range(4)]
    torch.testing.assert_close(score, torch.tensor(wanted))
    words = ImageScore()(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3, 2))[0]  # a word stands before two tokens
    torch.testing.assert_close(words, torch.tensor([(1 / 2 + 1 / 3) / 2, 1 / 6]))


def test_visiondrop_places_dominant_tokens_in_order_then_contextual_ones(make, prompts):
    reduced = visiondrop(make(), splits=[[10, 2], [5, 1]])
    ids = prompts(reduced.model)
    _, cache = reduced.prefill(ids)
    assert reduced.tokens_per_layer == [12, 6, 6, 6] and cache.places == (5 + 12, 11, 11, 11)
    once = visiondrop(make(), splits=[[10, 2]])
    once.prefill(ids)
    assert (once.kept_origin[:, :10].diff(dim=1) > 0).all() and (once.kept_origin[:, 10:].diff(dim=1) > 0).all()


def test_matching_merges_the_most_similar_even_tokens():
    x = torch.tensor([[[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 0.5]]])
    origin = torch.arange(6)[None]
    # sources 0, 2, 4 with closest destinations 1, 3, 1 at cosines 0.995, 1, and 0.774 of 4 with 1
    left, from_ = Matching()(x, origin, 2)
    assert from_.tolist() == [[4, 1, 3, 5]]
    torch.testing.assert_close(left[0], torch.tensor([[1.0, 1.0], [1.0, 0.05], [0.0, 1.5], [-1.0, 0.5]]))
    everything, from_ = Matching()(x, origin, 3)
    assert from_.tolist() == [[1, 3, 5]]
    torch.testing.assert_close(everything[0, 0], torch.tensor([1.0, 1.1 / 3]))


def test_halving_merges_leave_the_stated_share(make, prompts):
    reduced = aim(make(), merge=0.25, l1=4)
    reduced.prefill(prompts(reduced.model))
    assert reduced.tokens_per_layer == [16] * 4


def test_pagerank_of_an_even_map_is_even_and_equals_its_slow_form():
    even_map = torch.full((1, 3, 5, 5), 0.2)
    torch.testing.assert_close(PageRank().rank(even_map), torch.full((1, 5), 0.2))
    moves = torch.rand(1, 2, 4, 4).softmax(dim=-1)
    dist = [[0.25] * 4 for _ in range(2)]
    for _ in range(5):
        dist = [[sum(d[i] * float(moves[0, h, i, j]) for i in range(4)) for j in range(4)] for h, d in enumerate(dist)]
    wanted = [math.sqrt((dist[0][j] ** 2 + dist[1][j] ** 2) / 2) for j in range(4)]
    torch.testing.assert_close(PageRank().rank(moves)[0], torch.tensor(wanted))


def test_the_bend_of_matching_counts():
    assert bend(torch.tensor([10.0, 9.0, 2.0, 1.0, 0.0])) == 3  # chord from 10 to 0: farthest is 2, 3 below it
    assert bend(torch.tensor([4.0, 3.0, 2.0, 1.0])) == 1  # a straight line: the first point, and what equals it
    assert bend(torch.tensor([5.0, 5.0, 5.0])) == 3


def test_core_neurons_by_hand():
    active = torch.tensor([[[3.0, 2.0, 1.0, -1.0], [-1.0, 2.0, 1.0, 4.0], [0.5, -2.0, -1.0, -3.0]]])
    # positives 3, 3, 1: half of them rounded up are 2, 2, 1
    found = core_of_tokens(active, 0.5)
    assert found[0].int().tolist() == [[1, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0]]
    assert core_of_sentence(active, 0.5, 2).tolist() == [[0, 1]]


def test_decoding_with_gathered_neurons_is_decoding_with_the_others_at_zero(make, prompts):
    model, reduced = make(), corematching(make(), tokens=False, beta=0.5)
    ids = prompts(model)
    logits, cache = reduced.prefill(ids)
    new = logits.argmax(dim=-1, keepdim=True)
    found, _ = reduced.decode(new, cache)
    x = model.decoder.embed(new)
    for block, kept in zip(model.decoder.blocks, cache.kept, strict=True):
        attended, _ = block.attention.step(block.norm1(x), model.decoder.rotation(69, 1), kept.kept)
        x = x + attended
        seen = block.norm2(x)
        active = F.silu(block.network.gate(seen)) * block.network.up(seen)
        rows = [[(block.network.gate.weight == row).all(dim=1).nonzero().item() for row in part] for part in kept.gate]
        mask = torch.zeros(2, 32)
        for place, chosen in enumerate(rows):
            mask[place, chosen] = 1
        x = x + block.network.down(active * mask[:, None])
    torch.testing.assert_close(found, model.decoder.head(model.decoder.norm(x[:, -1])), rtol=1e-4, atol=1e-5)


def test_core_tokens_leave_the_caches_of_earlier_layers_too(make, prompts):
    reduced = corematching(make(), keep=0.25, neurons=False, layer=2)
    ids = prompts(reduced.model)
    _, cache = reduced.prefill(ids)
    assert reduced.tokens_per_layer == [64, 64, 64, 16] and [part.used for part in cache.kept] == [21] * 4
    _, plain = reduced.model.prefill(ids)
    row = torch.cat([torch.tensor([0]), 1 + reduced.kept_origin[0], torch.arange(65, 69)])
    assert torch.equal(cache.kept[1].k.filled[0], plain.kept[1].k.filled[0][:, row])


def test_representatives_as_printed():
    assert every(10, 4).tolist() == [0, 2, 4, 6] and even(10, 4).tolist() == [0, 2, 5, 7]
    assert drawn(8, 3, 0).tolist() == sorted(drawn(8, 3, 0).tolist()) and len(set(drawn(8, 3, 1).tolist())) == 3
    # instance 0 has 6 of 12 tokens, 1 has 5, 2 has 1: quotas of four are 2, 1 and 1
    instance = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2]])
    assert by_quota(instance, 4).tolist() == [[2, 5, 10, 11]]


def test_absent_tokens_come_back_as_the_projector_gave_them(make, prompts):
    model = make()
    ids = prompts(model, batch=1)
    reduced = csp(make(), a=1, b=4)
    reduced.prefill(ids)
    whole = model.stream(ids, model.see(ids))
    index = [0, *(1 + i for i in every(64, 16).tolist()), *range(65, 69)]
    x, by = whole.x[:, index], rotation(0, 69, model.decoder.rotary_size, whole.x)
    x = model.decoder.blocks[0](x, tuple(part[index] for part in by))
    back = whole.x.clone()
    back[:, index] = x
    for block in model.decoder.blocks[1:]:
        back = block(back, by)
    torch.testing.assert_close(reduced(ids), model.decoder.head(model.decoder.norm(back[:, -1])), rtol=1e-4, atol=1e-5)


def test_without_the_first_two_stages_it_prunes_alone_at_the_first_layer(make, prompts):
    reduced = csp(make(), a=0, b=0)
    _, cache = reduced.prefill(prompts(reduced.model))
    assert reduced.tokens_per_layer == [8] * 4 and cache.places == (69,) * 4


def test_tau_of_the_contribution_by_hand():
    shares = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]])
    assert tokens_that_hold(shares, 0.75).tolist() == [2, 3]
    assert tokens_that_hold(shares, 1.0).tolist() == [4, 4]


def test_calibration_does_not_depend_on_the_order_of_prompts(make, prompts):
    model = make("views")
    batches = [prompts(model, batch=1, seed=seed) for seed in range(4)]
    ratios = calibrate(model, batches, 0.8)
    assert ratios == calibrate(model, batches[::-1], 0.8)
    assert ratios[0] == 1 and all(b <= a for a, b in itertools.pairwise(ratios)) and ratios[-1] < 1


def test_without_history_nothing_is_removed(make, prompts):
    model, reduced = make("screens", history=0), ahc(make("screens", history=0), k=2)
    ids = prompts(model)
    assert torch.equal(reduced(ids), model(ids))


def test_actions_only_is_a_prompt_without_past_screens_at_the_same_places(make, prompts):
    model, reduced = make("screens"), ahc(make("screens"), k=0)
    ids = prompts(model)
    kept = [0, 1, 66, 131, *range(132, 200)]
    seen = model.see(ids)
    x = model.stream(ids, seen).x[:, kept]
    by = tuple(part[kept] for part in rotation(0, 200, model.decoder.rotary_size, x))
    for block in model.decoder.blocks:
        x = block(x, by)
    _, cache = reduced.prefill(ids)
    torch.testing.assert_close(reduced(ids), model.decoder.head(model.decoder.norm(x[:, -1])), rtol=1e-4, atol=1e-5)
    assert reduced.tokens_per_layer == [64] * 4 and cache.places == (200,) * 4


def test_behind_layer_k_past_screens_are_gone_and_actions_stay(make, prompts):
    model, reduced = make("screens"), ahc(make("screens"), k=2)
    ids = prompts(model)
    x, by = model.stream(ids, model.see(ids)).x, rotation(0, 200, model.decoder.rotary_size, model.decoder.embed.weight)
    kept = [0, 1, 66, 131, *range(132, 200)]
    for layer, block in enumerate(model.decoder.blocks):
        if layer == 2:
            x, by = x[:, kept], tuple(part[kept] for part in by)
        x = block(x, by)
    torch.testing.assert_close(reduced(ids), model.decoder.head(model.decoder.norm(x[:, -1])), rtol=1e-4, atol=1e-5)
