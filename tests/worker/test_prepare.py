"""What a method learns is learned before anything is measured, and what nobody trained has no accuracy."""

import torch

from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.worker import prepare
from bench.worker.probe import Probe
from bench.worker.ready import make_ready
from bench.worker.subject import build

MODEL = {"width": 16, "heads": 2, "depth": 3, "patch": 8, "resolution": 16, "classes": 2}


class Toy:
    """Two classes told apart by brightness; keeps what was learned in its folder."""

    def __init__(self, cache, seed):
        self.cache = cache

    def prepare(self, name, make):
        return {"sha256": "0"}

    def load(self, module, name):
        module.task = self
        return {}

    def batches(self, size):
        yield next(self.training_batches(size, 1, 1))

    def training_batches(self, size, steps, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            labels = torch.randint(0, 2, (size,), generator=generator)
            yield torch.randn(size, 3, 16, 16, generator=generator) + labels[:, None, None, None], labels

    def remembered(self, what, key, make):
        file = self.cache / f"{what}.pt"
        if not file.exists():
            torch.save(make(), file)
        return torch.load(file, weights_only=True)

    def describe(self):
        return {"name": "toy"}


class Phases:
    """Notes the phases that a worker enters."""

    def __init__(self):
        self.entered = []

    def enter(self, name, case=None):
        self.entered.append((name, case))


def recipe(folder, method="none", **settings):
    case = Case(suite="s", model="m", method=method, setting=repr(settings), task="toy", batch=2, resolution=16)
    path = None if method == "none" else f"suites.vit_tokens.{method}:{method}"
    return Recipe(case, "suites.common.vit:vit", MODEL, path, settings, f"{__name__}:Toy", {}, cache=str(folder))


def test_methods_learn_before_they_are_measured_and_a_failure_is_left_to_the_probe(tmp_path, capsys):
    learner = recipe(tmp_path, "stvit", tokens=1, training_steps=2)
    broken = recipe(tmp_path, "stvit", tokens=3, training_steps=2)
    phases = Phases()
    spec = {"recipe": recipe(tmp_path).as_dict(), "learners": [broken.as_dict(), learner.as_dict()]}
    assert prepare.run(spec, phases)["task"] == {"name": "toy"}
    assert (tmp_path / "stvit.pt").exists() and "square number" in capsys.readouterr().err
    assert phases.entered[1:] == [("measure", broken.case.key), ("measure", learner.case.key)]
    before = (tmp_path / "stvit.pt").stat().st_mtime_ns
    weights = build(learner).weights
    assert weights["method"] == {"method": "stvit", "steps": 2, "tokens": 1, "base": 1}
    assert (tmp_path / "stvit.pt").stat().st_mtime_ns == before


def test_new_weights_that_nobody_trained_have_no_accuracy(tmp_path):
    for steps, status in ((0, "unavailable"), (2, "measured")):
        member = recipe(tmp_path, "stvit", tokens=1, training_steps=steps)
        subject = build(member)
        probe = Probe({"recipe": member.as_dict(), "meters": ["quality"], "protocol": {}}, Phases())
        ready = make_ready(subject)
        readings, _ = probe.quality(subject, ready, ready.whole)
        found = {r.metric: r for r in readings}["accuracy"]
        assert (found.value is None) == (status == "unavailable")
        assert steps or "set training_steps" in str(found)
