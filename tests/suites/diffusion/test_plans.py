"""Plans tell what the trace of each step counts; runs leave nothing behind; settings that change nothing are plain."""

import functools
from pathlib import Path

import pytest
import torch
import yaml

from bench.canonical import settings_text
from bench.config import catalogue as catalogues
from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.worker.subject import build_model, find
from suites.diffusion.bottleneck import bottleneck
from suites.diffusion.cachequant import cachequant
from suites.diffusion.code import code
from suites.diffusion.ecar import ecar
from suites.diffusion.fewer_steps import fewer_steps, plan_macs, steps_at_equal_macs
from suites.diffusion.flexdit import flexdit
from suites.diffusion.lambda_eclipse import prior
from suites.diffusion.rettention import rettention
from suites.diffusion.scale_dit import scale_dit
from suites.diffusion.sparse_vdit import sparse_vdit
from suites.diffusion.sun import sun
from suites.diffusion.var import var
from suites.diffusion.vin import vin
from tests.suites.diffusion.sampling import images, small_dit, small_unet, small_video, spread, traced

SUITE = Path(__file__).parents[3] / "suites" / "diffusion" / "suite.yaml"


def small_var(**changes):
    torch.manual_seed(0)
    return spread(var(**{"width": 16, "heads": 2, "depth": 3, "scales": [1, 2, 4], "codes": 16, **changes}))


def small_prior():
    torch.manual_seed(0)
    return spread(prior(embedding=12, width=16, heads=2, depth=2, words=5, chain=4))


class Unguided(torch.nn.Module):
    """A sampler whose case's guidance is not heard: what stands for the conditional branch alone."""

    def __init__(self, plain):
        super().__init__()
        self.plain = plain

    def plan(self, shape):
        return self.plain.plan({**shape, "guidance": None})

    def __getattr__(self, name):
        return super().__getattr__(name) if name == "plain" else getattr(self.plain, name)


def deep():
    return small_dit(depth=8, patch=2, resolution=16)


ROWS = {
    "plain": small_dit,
    "plain u-net": small_unet,
    "plain video": small_video,
    "fewer_steps": lambda: fewer_steps(small_dit(), steps=3),
    "heun": lambda: fewer_steps(small_dit(), steps=2, solver="heun"),
    "fewer_steps of a video": lambda: fewer_steps(small_video(), steps=2),
    "bottleneck of a video": lambda: bottleneck(small_video(), scales=[1.0, 0.5, 1.0], steps=[1, 2, 1]),
    "rettention of a video": lambda: rettention(small_video(), s=0.25, warmup=1, refresh=2),
    "bottleneck": lambda: bottleneck(small_dit(), scales=[1.0, 0.5, 1.0], steps=[2, 3, 2]),
    "bottleneck from below": lambda: bottleneck(
        small_dit(), scales=[0.5, 1.0], steps=[2, 3], strengths=[0.0, 0.3], shifts=[1.0, 2.0]
    ),
    "rettention": lambda: rettention(small_dit(), s=0.25, warmup=1, refresh=3),
    "rettention of all": lambda: rettention(small_dit(), s=2.0, warmup=1, refresh=2),
    "rettention without residual": lambda: rettention(small_dit(), s=0.25, warmup=0, use_residual=False),
    "flexdit": lambda: flexdit(deep(), pooling=1, modules=2, top=1),
    "flexdit of a narrow MLP": lambda: flexdit(small_dit(depth=8, patch=2, resolution=16, mlp_ratio=2.0)),
    "flexdit fixed": lambda: flexdit(deep(), pooling=2, modules=1, top=2, sparse_blocks=2, fixed=16),
    "cachequant": lambda: cachequant(small_unet(), interval=2, images=2),
    "cachequant uniform": lambda: cachequant(small_unet(), interval=4, images=2, schedule="uniform", correction=False),
    "cachequant in few bits": lambda: cachequant(small_unet(), interval=3, images=2, bits="w4a8"),
    "sparse_vdit": lambda: sparse_vdit(small_video(), band=5, columns=4, lam=1.0),
    "sparse_vdit diagonal": lambda: sparse_vdit(small_video(), pattern="diagonal", band=5),
    "sparse_vdit multi": lambda: sparse_vdit(small_video(), pattern="multi_diagonal"),
    "vin": lambda: vin(small_video(), chunk=3, context=1, global_tokens=4),
    "vin alone": lambda: vin(small_video(), chunk=4, context=2, global_tokens=0),
    "sun": lambda: sun(small_unet(), steps=2),
    "sun with both": lambda: sun(small_unet(), steps=3, positive=True),
    "scale_dit": lambda: scale_dit(small_dit(), window=4, anchor=4, low_steps=2),
    "scale_dit in few large steps": lambda: scale_dit(small_dit(), window=4, anchor=4, low_steps=3, high_steps=2),
    "scale_dit in a raster": lambda: scale_dit(small_dit(), window=2, anchor=4, low_steps=1, order="raster"),
    "scale_dit by hilbert": lambda: scale_dit(small_dit(), window=4, anchor=2, low_steps=1, rank=0, order="hilbert"),
    "var": small_var,
    "var from 2 x 2": lambda: small_var(scales=[2, 4]),
    "var of one map": lambda: small_var(scales=[4]),
    "var of shared modulation": lambda: small_var(scales=[1, 3], shared=True),
    "code from 2 x 2": lambda: code(small_var(scales=[2, 3, 5]), N=1),
    "code": lambda: code(small_var(), N=1),
    "code with last logits": lambda: code(small_var(), N=2, logits="last"),
    "ecar": lambda: spread(ecar(width=16, heads=2, depth=1, flow_depth=1, S=3, K=2)),
    "lambda_eclipse": lambda: prior(embedding=12, width=16, heads=2, depth=2, words=5),
    "diffusion prior": lambda: prior(embedding=12, width=16, heads=2, depth=2, words=5, chain=4),
}


@pytest.mark.parametrize("guidance", [None, 2.0])
@pytest.mark.parametrize("name", ROWS)
def test_the_trace_of_every_step_counts_what_the_plan_says(name, guidance):
    planned, found = traced(ROWS[name](), guidance=guidance)
    assert planned == found and len(planned) > 0


@pytest.mark.parametrize("name", ROWS)
def test_a_run_leaves_nothing_to_the_next(name):
    model = ROWS[name]()
    first, other = (images(model, seed=seed, guidance=1.5) for seed in (0, 1))
    images(model, steps=3)  # a plan of another length, without guidance
    assert torch.equal(first, images(model, guidance=1.5))
    assert torch.isfinite(first).all()
    if name != "lambda_eclipse":  # whose image slot is empty
        assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ROWS)
def test_an_image_depends_on_its_own_noise_and_on_no_neighbour(name):
    model = ROWS[name]()
    alone, beside = images(model, batch=1, guidance=1.5), images(model, batch=3, guidance=1.5)
    assert torch.allclose(alone, beside[:1], atol=1e-4)


IDENTITIES = {
    "fewer_steps": (small_dit, lambda model: fewer_steps(model, steps=6)),
    "bottleneck of one stage": (
        small_dit,
        lambda model: bottleneck(model, scales=[1.0], steps=[6], strengths=[0.0], shifts=[1.0]),
    ),
    "bottleneck that switches to itself": (
        small_dit,
        lambda model: bottleneck(model, scales=[1.0, 1.0], steps=[2, 4], strengths=[0.0, 0.0], shifts=[1.0, 1.0]),
    ),
    "rettention": (small_dit, lambda model: rettention(model, warmup=6)),
    "rettention of a video": (small_video, lambda model: rettention(model, warmup=6)),
    "bottleneck of a video": (
        small_video,
        lambda model: bottleneck(model, scales=[1.0], steps=[6], strengths=[0.0], shifts=[1.0]),
    ),
    "fewer_steps of a prior": (small_prior, lambda model: fewer_steps(model, steps=6)),
    "sun without adapters": (lambda: Unguided(small_unet()), lambda model: sun(model.plain, steps=6, offset=False)),
    "cachequant": (small_unet, lambda model: cachequant(model, interval=1)),
    "sparse_vdit": (small_video, lambda model: sparse_vdit(model, pattern="full")),
    "vin": (small_video, lambda model: vin(model, chunk=6, context=0, global_tokens=0)),
    "code": (small_var, lambda model: code(model, N=3)),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_a_setting_that_changes_nothing_gives_the_plain_images_bit_for_bit(name):
    plain, method = IDENTITIES[name]
    assert torch.equal(images(plain(), guidance=2.0), images(method(plain()), guidance=2.0))


def test_companions_are_given_at_least_what_the_method_paid():
    model = bottleneck(small_dit(), scales=[1.0, 0.5, 1.0], steps=[2, 6, 2])
    plan, plain = model.plan({"steps": 10}), small_dit().evaluation_macs(8)
    steps = steps_at_equal_macs(plan, plain)
    assert (steps - 1) * plain < plan_macs(plan) <= steps * plain
    assert steps_at_equal_macs(small_dit().euler(7), plain) == 7


def test_methods_refuse_what_they_do_not_work_on_and_each_other():
    with pytest.raises(ValueError, match="works on Dit networks, not on Unet"):
        rettention(small_unet())
    with pytest.raises(ValueError, match="flexdit works on pictures"):
        flexdit(small_video())
    with pytest.raises(ValueError, match="scale_dit works on pictures"):
        scale_dit(small_video())
    with pytest.raises(ValueError, match="FewerSteps already says how"):
        bottleneck(fewer_steps(small_dit(), steps=2))


known = functools.cache(catalogues.load)


@pytest.mark.parametrize("name, forwards", [("small_eclipse", 1), ("small_prior", 25)])
def test_one_forward_stays_one_in_a_case_that_gives_its_other_side_a_number_of_steps(name, forwards):
    """A builder is given the numbers of its case by their names: one called `steps` had made a chain of the forward."""
    shape = {"guidance": 2.0, "steps": 25}
    case = Case(suite="diffusion", model=name, workload="sample", shape=settings_text(shape))
    entry = known().model(name)
    model, _ = build_model(Recipe(case, entry.path, entry.settings))
    assert len(model.plan(shape)) == forwards


def cost(model, method, shape):
    """MACs per image of a row of a grid, without training and without values."""
    catalogue = known()
    with torch.device("meta"):
        name, settings = catalogues.parse_spec(model)
        entry = catalogue.model(name)
        made = find(entry.path)(**{**entry.settings, **settings})
        name, settings = catalogues.parse_spec(method)
        for learning in ("training_steps", "other_base"):
            settings.pop(learning, None)
        if name != "none":
            made = find(catalogue.method(name).path)(made, **settings)
        return plan_macs(made.plan(shape))


@pytest.mark.parametrize(
    "grid, least", [("default", 7), ("finding", 5), ("mosaics", 5), ("ablations", 15), ("full", 10)]
)
def test_methods_stand_beside_plain_steps_of_as_many_products(grid, least):
    compared = 0
    for block in yaml.safe_load(SUITE.read_text())["grids"][grid]:
        model, methods = block["models"][0], block.get("methods", [])
        others = [method for method in methods if not method.startswith("fewer_steps")]
        if not others or "against" in block or model.startswith(("digit_var", "var_")):  # which have no number of steps
            continue
        shape = {name: values[0] for name, values in block["shapes"].items()}
        whole = cost(model, "none", shape)
        step = whole / shape["steps"]
        plain = [whole, *(cost(model, method, shape) for method in methods if method.startswith("fewer_steps"))]
        for method in others:
            paid = cost(model, method, shape)
            assert any(0 <= other - paid < step for other in plain), (model, method, paid / step)
            if grid in ("default", "finding"):  # whose tables read the plain sampler's score at as many products
                assert any(other <= paid for other in plain), (model, method, paid / step)
            compared += 1
    assert compared >= least


@pytest.mark.parametrize("companion, drafted", [("digit_var_small", 3), ("digit_var(depth=3, width=52)", 2)])
def test_autoregressive_methods_stand_beside_a_smaller_network_of_as_many_products(companion, drafted):
    """N = 3: 15,533,184 of the drafter and 6,396,864 of the refiner; 22,893,152 of four blocks of width 68."""
    paid, control = cost("digit_var", f"code(N={drafted})", {}), cost(companion, "none", {})
    assert paid <= control <= 1.1 * paid
    if drafted == 3:
        assert (paid, control) == (15_533_184 + 6_396_864, 22_893_152)


def test_masks_tell_what_they_keep_and_what_all_pairs_would_be_beside_what_runs():
    # 64 tokens, 2 blocks of width 16: 665,344 a forward; w = 16, |i - j| <= 8: 64 x 17 - 8 x 9 = 1016 pairs kept.
    # Modes full, refresh (which projects twice: 2 x 64 x 256), sparse, sparse.
    model = rettention(small_dit(), s=0.25, warmup=1, refresh=3)
    model.plan({"steps": 4})
    dense = 4 * 665_344 + 32_768
    assert model.macs_dense["image"] == dense
    assert model.macs_nonzero["image"] == dense - 2 * 2 * 2 * (4096 - 1016) * 16
    # 96 tokens, 2 blocks of 4 heads of 4: a band of 5 keeps 96 x 11 - 5 x 6 = 1026, and runs 96 x (4 + 10) = 1344.
    video = sparse_vdit(small_video(), pattern="diagonal", band=5)
    plan = video.plan({"steps": 3, "guidance": 2.0})
    assert plan_macs(plan) - video.macs_nonzero["image"] == 2 * 3 * (2 * 4 * 2 * (1344 - 1026) * 4)
    assert video.macs_dense["image"] == 2 * 3 * small_video().evaluation_macs(8)
    # 64 tokens in windows of 16, 16 anchors: 64 x 32 + 256 = 2304 pairs of 80^2; a raster runs 64 x 80 + 256.
    for order, run in (("window", 2304), ("raster", 64 * 80 + 256)):
        large = scale_dit(small_dit(), window=4, anchor=4, low_steps=2, order=order)
        plan = large.plan({"steps": 3})
        assert plan_macs(plan) - large.macs_nonzero["image"] == 3 * 2 * 2 * (run - 2304) * 16
        assert large.macs_dense["image"] - large.macs_nonzero["image"] == 3 * 2 * 2 * (6400 - 2304) * 16
