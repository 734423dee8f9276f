"""Methods that learn: each runs from data to a network, and what was remembered gives the same network again."""

import pytest
import torch

from suites.common.digits_resnet import digits_resnet
from suites.common.digits_vit import digits_vit
from suites.common.mlp import digits_mlp
from suites.pruning.beta_rank import beta_rank
from suites.pruning.ecoflap import ecoflap
from suites.pruning.global_magnitude import global_magnitude
from suites.pruning.lapp import lapp
from suites.pruning.layers import prunable, sparsity_of
from suites.pruning.lottery import lottery
from suites.pruning.lpvit import lpvit
from suites.pruning.masksparsity import masksparsity
from suites.pruning.nets.gpt import gpt
from suites.pruning.nm_flow import nm_flow
from suites.pruning.nvit import nvit
from suites.pruning.optin import optin
from suites.pruning.polarization import polarization
from suites.pruning.rethinking import slim
from suites.pruning.rigl import rigl
from suites.pruning.spa import spa
from suites.pruning.spdf import spdf
from suites.pruning.ssvi import ssvi
from suites.pruning.vtrans import vtrans
from suites.pruning.wgsef import wgsef


class Lesson:
    """A task of random data that keeps what methods learned."""

    def __init__(self, inputs, labels):
        self.inputs, self.labels, self.kept, self.made = inputs, labels, {}, 0

    def training_batches(self, size, steps, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            pick = torch.randint(len(self.inputs), (size,), generator=generator)
            yield self.inputs[pick], self.labels[pick]

    def remembered(self, what, key, make):
        name = (what, repr(sorted(key.items())))
        if name not in self.kept:
            self.made += 1
            self.kept[name] = {k: v.detach().clone() for k, v in make().items()}
        return {k: v.clone() for k, v in self.kept[name].items()}


def resnet():
    return digits_resnet(width=8, blocks=2, resolution=8)


def network():
    return digits_mlp(widths=[16, 8], resolution=8)


def transformer():
    return digits_vit(width=16, heads=2, depth=2, resolution=8, mlp_ratio=2.0)


def decoder():
    return gpt(width=16, layers=2, heads=2, vocabulary=11, length=12)


METHODS = {
    "global_magnitude": (resnet, lambda m: global_magnitude(m, sparsity=0.5, steps=4)),
    "gradual": (resnet, lambda m: global_magnitude(m, sparsity=0.5, steps=10, gradual=True)),
    "lottery": (network, lambda m: lottery(m, rounds=2, steps=3)),
    "reinit": (network, lambda m: lottery(m, rounds=2, steps=3, restart="reinit")),
    "global_lottery": (resnet, lambda m: lottery(m, rounds=2, steps=3, conv_rate=0.2, scope="global")),
    "rigl": (network, lambda m: rigl(m, density=0.3, steps=5, every=2)),
    "slim": (resnet, lambda m: slim(m, rate=0.5, steps=3)),
    "scratch_e": (resnet, lambda m: slim(m, rate=0.5, start="scratch_e", steps=3)),
    "scratch_b": (resnet, lambda m: slim(m, rate=0.5, start="scratch_b", steps=3)),
    "beta_rank": (resnet, lambda m: beta_rank(m, rate=0.5, steps=3)),
    "masksparsity": (resnet, lambda m: masksparsity(m, threshold=1.0, sparse_steps=2, masked_steps=2, steps=2)),
    "lapp": (resnet, lambda m: lapp(m, target=0.7, steps=6)),
    "lapp_kept": (resnet, lambda m: lapp(m, target=0.5, steps=6, bypass_width="kept")),
    "lapp_bare": (resnet, lambda m: lapp(m, target=0.5, steps=6, bypass=False)),
    "polarization": (resnet, lambda m: polarization(m, steps=4, tuning=2)),
    "polarized_channels": (resnet, lambda m: polarization(m, per="channel", target=0.2, steps=8, tuning=2)),
    "wgsef": (network, lambda m: wgsef(m, keep=0.5, steps=5, tuning=2)),
    "ssvi": (network, lambda m: ssvi(m, density=0.3, steps=4, samples=2)),
    "optin": (transformer, lambda m: optin(m, budget=0.5, samples=8)),
    "ecoflap": (transformer, lambda m: ecoflap(m, samples=8)),
    "lpvit": (transformer, lambda m: lpvit(m, block=[8, 8], samples=8)),
    "lpvit_tuned": (transformer, lambda m: lpvit(m, block=[8, 8], samples=8, steps=3)),
    "vtrans": (transformer, lambda m: vtrans(m, keep=0.5, steps=5, tuning=2)),
    "vtrans_text": (decoder, lambda m: vtrans(m, keep=0.5, variant="full", steps=5, tuning=2)),
    "nvit": (transformer, lambda m: nvit(m, keep=0.5, steps=3, tuning=2)),
    "spa": (resnet, lambda m: spa(m, keep=0.5, steps=3)),
    "spdf": (decoder, lambda m: spdf(m, steps=3)),
    "spdf_dense": (decoder, lambda m: spdf(m, steps=3, finetune=2, phase="finetuned")),
    "nm_flow": (decoder, lambda m: nm_flow(m, n=1, m=4, steps=4)),
    "nm_steps": (decoder, lambda m: nm_flow(m, n=1, m=4, steps=4, schedule="stepwise")),
    "srste": (decoder, lambda m: nm_flow(m, n=1, m=4, steps=4, schedule="srste")),
    "nm_dense": (decoder, lambda m: nm_flow(m, n=1, m=4, steps=4, schedule="dense")),
}


def lesson(model):
    torch.manual_seed(1)
    if hasattr(model, "vocabulary"):
        text = torch.randint(11, (64, 13))
        return Lesson(text[:, :-1], text[:, 1:])
    return Lesson(torch.randn(64, model.channels, 8, 8), torch.randint(10, (64,)))


@pytest.mark.parametrize("name", METHODS)
def test_what_was_learned_once_is_the_same_again(name):
    build, method = METHODS[name]
    task, answers = None, []
    for _ in range(2):
        torch.manual_seed(0)
        model = build()
        task = task or lesson(model)
        model.task = task
        x = task.inputs[:4]
        model = method(model).eval()
        with torch.no_grad():
            answers.append(model(x))
    assert task.made == (2 if name == "lpvit_tuned" else 1)  # its gradients apart from its weights
    assert torch.allclose(*answers, atol=1e-5)
    assert not bool(answers[0].isnan().any())
    cost = getattr(model, "method_cost", None) or model.network.method_cost
    assert cost["samples"] > 0
    assert cost["seconds"] > 0


def test_a_ticket_and_its_control_have_equal_masks():
    found = []
    for restart in ("rewind", "reinit"):
        model = network()
        model.task = lesson(model)
        lottery(model, rounds=2, steps=3, restart=restart)
        found.append([layer.weight != 0 for layer in model.layers])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_reached_sparsity_is_the_one_asked_for():
    model = resnet()
    model.task = lesson(model)
    global_magnitude(model, sparsity=0.7, steps=4)
    assert sparsity_of(model, prunable(model, "test")) == pytest.approx(0.7, abs=1e-3)


def test_learning_without_a_task_is_refused():
    for build, method in (METHODS["slim"], METHODS["lottery"], METHODS["spdf"], METHODS["vtrans"]):
        with pytest.raises(ValueError, match="learns from data"):
            method(build())
