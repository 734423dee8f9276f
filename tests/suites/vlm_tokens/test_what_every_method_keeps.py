"""What holds for every method: identities, tokens that are really gone, plans that agree, places, caches."""

import pytest
import torch

from bench.meters import macs
from suites.vlm_tokens import card_counts, closed_forms
from suites.vlm_tokens.adatoken import adatoken
from suites.vlm_tokens.ahc import ahc
from suites.vlm_tokens.aim import aim
from suites.vlm_tokens.controls import fastv, random, sparsevlm, uniform
from suites.vlm_tokens.corematching import corematching
from suites.vlm_tokens.csp import csp
from suites.vlm_tokens.published import published_visual
from suites.vlm_tokens.pyramiddrop import pyramiddrop
from suites.vlm_tokens.visiondrop import visiondrop, visionzip
from tests.workloads.subjects import FakeBuilt, parts_of

IDENTITIES = [
    ("scene", pyramiddrop, {"lam": 1.0}),
    ("scene", pyramiddrop, {"stages": 1}),
    ("scene", visiondrop, {"splits": [[64, 0], [64, 0]]}),
    ("scene", visionzip, {"dominant": 64, "contextual": 0}),
    ("scene", aim, {"merge": 1.0, "l1": 4}),
    ("scene", corematching, {"keep": 1.0, "beta": 1.0}),
    ("scene", corematching, {"tokens": False, "neurons": False}),
    ("scene", csp, {"n_c": 64, "n_p": 64}),
    ("scene", fastv, {"R": 0.0}),
    ("scene", sparsevlm, {"kept": [64, 64, 64]}),
    ("scene", uniform, {"keep": 1.0}),
    ("scene", random, {"keep": 1.0}),
    ("views", adatoken, {"tau": 1.0}),
    ("screens", ahc, {"k": 4}),
]
REDUCTIONS = [
    ("scene", pyramiddrop, {}),
    ("scene", pyramiddrop, {"score": "minimal"}),
    ("scene", visiondrop, {"mean": 0.25}),
    ("scene", visionzip, {}),
    ("scene", aim, {}),
    ("scene", aim, {"lag": 0, "merge": 0.5}),
    ("scene", corematching, {"keep": 0.3}),
    ("scene", csp, {}),
    ("scene", csp, {"choose": "seg_first", "fill": "nearest"}),
    ("scene", fastv, {}),
    ("scene", sparsevlm, {}),
    ("scene", uniform, {"keep": 0.3, "layer": 1}),
    ("scene", random, {}),
    ("views", adatoken, {"tau": 0.7}),
    ("views", visiondrop, {"splits": [[16, 4], [8, 2]]}),
    ("views", visiondrop, {"mean": 0.25}),
    ("views", adatoken, {"K": 2, "R": 0.7}),
    ("screens", ahc, {"k": 2}),
    ("screens", ahc, {"k": 0}),
]


@pytest.mark.parametrize(("kind", "method", "settings"), IDENTITIES)
def test_the_identity_setting_is_the_plain_model_bit_for_bit(make, prompts, kind, method, settings):
    plain, reduced = make(kind), method(make(kind), **settings)
    ids = prompts(plain)
    (logits, cache), (found, kept) = plain.prefill(ids), reduced.prefill(ids)
    assert torch.equal(found, logits)
    new = logits.argmax(dim=-1, keepdim=True)
    assert torch.equal(reduced.decode(new, kept)[0], plain.decode(new, cache)[0])
    assert torch.equal(reduced(ids), plain(ids))
    assert kept.bytes == cache.bytes


@pytest.mark.parametrize(("kind", "method", "settings"), REDUCTIONS)
def test_plan_run_and_cache_have_the_same_tokens_in_every_layer(make, prompts, kind, method, settings):
    reduced = method(make(kind), **settings)
    ids = prompts(reduced.model)
    _, cache = reduced.prefill(ids)
    plan, text = reduced.plan(ids.shape[1]), ids.shape[1] - reduced.model.visual
    assert reduced.tokens_per_layer == plan and min(plan) < reduced.model.visual
    kept = [getattr(part, "kept", part) for part in cache.kept]
    if method is not corematching:  # which decodes with core tokens in every layer
        assert [part.used for part in kept] == [text + count for count in plan]
        assert cache.bytes == closed_forms.cache_bytes(reduced.shape, text, plan, width=4) * len(ids)


@pytest.mark.parametrize(("kind", "method", "settings"), REDUCTIONS)
def test_products_are_those_of_the_plan_and_the_methods_own_stand_apart(make, prompts, kind, method, settings):
    reduced = method(make(kind), **settings)
    ids = prompts(reduced.model, batch=1)
    found = macs.count(reduced, (ids,))
    text, plan = ids.shape[1] - reduced.model.visual, reduced.plan(ids.shape[1])
    seen = 1 if (method, settings.get("k")) == (ahc, 0) else reduced.model.images
    projected = plan[0] if method in (visiondrop, visionzip) else seen * reduced.model.tokens
    tower = closed_forms.vit_macs(reduced.model.tokens + 1, 24, 2, 96, 16) * seen + projected * 24 * 24
    assert found.macs == tower + closed_forms.prefill_macs(reduced.shape, text, plan)
    assert (found.method_macs > 0) == (method not in (uniform, random, ahc))


@pytest.mark.parametrize(("kind", "method", "settings"), REDUCTIONS)
def test_a_row_of_a_batch_is_what_it_is_alone(make, prompts, kind, method, settings):
    if method is adatoken:
        settings = {"ratios": [1.0, 0.8, 0.5, 0.3]}
    reduced = method(make(kind).double(), **settings)
    ids = prompts(reduced.model)
    together, cache = reduced.prefill(ids)
    after, _ = reduced.decode(together.argmax(dim=-1, keepdim=True), cache)
    for row in range(2):
        alone, own = reduced.prefill(ids[row : row + 1])
        torch.testing.assert_close(alone, together[row : row + 1], rtol=0, atol=1e-9)
        again, _ = reduced.decode(alone.argmax(dim=-1, keepdim=True), own)
        torch.testing.assert_close(again, after[row : row + 1], rtol=0, atol=1e-9)


class Encoder(torch.nn.Module):
    """What a prompt's pictures cost before the decoder."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model.encode_pictures(ids)


def test_the_encoder_is_tower_and_projector_with_what_a_method_chooses_there(make, prompts):
    """Tower of 65 tokens of width 24; the class token's row, and similarities of 40 tokens with 4 by heads of 12."""
    tower, ids = closed_forms.vit_macs(65, 24, 2, 96, 16), prompts(make(), batch=1)
    few = visiondrop(make(), splits=[[20, 4], [10, 2]])
    for model, kept, chosen in ((make(), 64, 0), (pyramiddrop(make()), 64, 0), (few, 24, 65 * 24 + 40 * 4 * 12)):
        found = macs.count(Encoder(model), (ids,))
        assert (found.macs, found.method_macs) == (tower + kept * 24 * 24, chosen)
        assert model.encode_pictures(ids).shape == (1, kept, 24)
        parts, _ = parts_of("generate", FakeBuilt(model, (ids,)), context=69, new_tokens=2)
        assert tuple(parts) == ("request", "prefill", "decode", "encoder")


def test_pictures_that_come_as_features_have_no_encoder():
    for method in (lambda model: model, pyramiddrop):
        model = method(published_visual(name="small_llava", tower=False, prefix=2))
        parts, _ = parts_of("generate", FakeBuilt(model), context=24, new_tokens=2)
        assert tuple(parts) == ("request", "prefill", "decode")


def test_a_step_costs_what_its_layers_have_kept(make, prompts):
    reduced = pyramiddrop(make())
    ids = prompts(reduced.model, batch=1)
    _, cache = reduced.prefill(ids)
    plan = reduced.plan(ids.shape[1])

    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.reduced = reduced

        def forward(self, new):
            return self.reduced.decode(new, cache)[0]

    found = macs.count(Step(), (torch.zeros(1, 1, dtype=torch.long),))
    assert found.macs == closed_forms.decode_macs(reduced.shape, 5, plan, 1) and found.method_macs == 0


def test_the_plain_request_is_the_cards_closed_form():
    sizes = {"width": 16, "layers": 4, "heads": 2, "hidden": 24, "depth": 1}
    tower = 64 * 16 * 16 + 65 * 12 * 16**2 + 2 * 65**2 * 16
    layer = 4 * 16**2 + 3 * 16 * 24
    prompt = 4 * (69 * layer + 2 * 69**2 * 16) + 16 * 40
    steps = sum(4 * (layer + 2 * (69 + t) * 16) + 16 * 40 for t in (1, 2))
    assert card_counts.plain(sizes, {}) == tower + 64 * 16 * 16 + prompt + steps


def test_methods_that_need_tokens_together_refuse_screens_between_actions(make):
    with pytest.raises(ValueError, match="words between"):
        pyramiddrop(make("screens"))
    with pytest.raises(ValueError, match="no words between"):
        ahc(make("views"), k=2)


def test_a_cut_of_spatial_tokens_beyond_the_decoder_is_refused(make):
    with pytest.raises(ValueError, match="the decoder has 4 layers"):
        adatoken(make("views"), K=5)
    with pytest.raises(ValueError, match="a share below 1"):
        adatoken(make("views"), K=2, R=1.0)


def test_only_what_is_measured_alone_depends_on_its_input(make, prompts):
    free = corematching(make())
    assert free.input_dependent and not corematching(make(), keep=0.5).input_dependent
    with pytest.raises(ValueError, match="batch of 1"):
        free.prefill(prompts(free.model))
