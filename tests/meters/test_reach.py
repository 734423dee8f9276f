"""What is reached through attributes, and how the way there is called."""

import torch
from torch import nn

from bench.meters.reach import hidden_tensors


class _Unprintable(nn.Parameter):
    def __repr__(self):
        raise AssertionError("a key was printed to name a path")


class _Step(nn.Module):
    """A module that keeps an optimizer, whose state has parameters as keys."""

    def __init__(self):
        super().__init__()
        self.weight = _Unprintable(torch.ones(3))
        self.bias = _Unprintable(torch.ones(2))
        self.optimizer = torch.optim.AdamW([self.weight, self.bias])


def test_parameters_as_keys_are_told_by_place_and_never_printed():
    module = _Step()
    (module.weight.sum() + module.bias.sum()).backward()
    module.optimizer.step()
    paths = [item.path for item in hidden_tensors(module)]
    moments = [path for path in paths if path.endswith("['exp_avg']")]
    assert len(moments) == 2 == len(set(moments)) and all("_Unprintable" in path for path in moments)


def test_simple_keys_are_told_as_they_are_written():
    module = nn.Module()
    module.cache = {"k": torch.ones(1), 3: [torch.ones(2)], (1, 2): torch.ones(3)}
    assert [item.path for item in hidden_tensors(module)] == ["cache['k']", "cache[3][0]", "cache[tuple 2]"]
