"""Small readers of scenes with random weights, and their prompts."""

import pytest
import torch

from suites.common.scene_reader import scene_reader
from suites.common.tasks.digit_scenes import example_prompts


def reader(kind="scene", layers=4, seed=0, **more):
    torch.manual_seed(seed)
    return scene_reader(**{"width": 24, "heads": 2, "hidden": 32, "depth": 2, "layers": layers, "kind": kind, **more})


@pytest.fixture
def make():
    return reader


@pytest.fixture
def prompts():
    def made(model, batch=2, seed=3):
        return example_prompts(model, batch, seed)

    return made


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield
