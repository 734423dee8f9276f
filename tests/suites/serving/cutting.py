"""Helpers of the tests of cut networks: counts of parts, and small networks."""

from types import SimpleNamespace

import torch

from bench.meters import macs
from bench.workloads import module_of
from bench.workloads.counting import count_part
from suites.serving.backbones import split_backbone, split_digits

SPLIT = module_of("split")


def built(module, given=None, task=None, device="cpu"):
    """What the worker hands to the workload."""
    inputs = module.example_inputs(2) if given is None else (given,)
    return SimpleNamespace(
        module=module, args=inputs, kwargs={}, task=task, device=device, dtype=torch.float32, seed=0,
        synchronise=lambda: None,
    )  # fmt: skip


def on_meta(make, batch=1):
    """A subject without storage."""
    with torch.device("meta"):
        module = make()
        return built(module.eval(), module.example_inputs(batch)[0], device="meta")


def parts_of(subject, **shape):
    whole = SPLIT.WORKLOAD.shape(shape)
    return {part.name: part for part in SPLIT.make_parts(subject, whole)}


def counts(make):
    """Products of the parts of a subject without storage, by part."""
    subject = on_meta(make)
    return {
        name: count_part(subject.module, part, macs.count).executed_macs for name, part in parts_of(subject).items()
    }


def facts(subject, **shape):
    whole = {**SPLIT.WORKLOAD.shape(shape), "batch": len(subject.args[0])}
    found = SPLIT.facts(subject, whole, [])
    return {(item.metric, item.part): item for item in found.readings}


def network(name, resolution=224):
    return lambda: split_backbone(name=name, resolution=resolution)


def small(seed=0, **settings):
    torch.manual_seed(seed)
    return split_digits(**{"width": 4, **settings})
