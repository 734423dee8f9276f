"""What a forward changes is put back between timed runs and said; what cannot be put back is said as well."""

from types import SimpleNamespace

import torch
from torch import nn

from bench.worker.settle import settle
from bench.workloads.workload import Part


def settled(module, *args):
    subject = SimpleNamespace(
        case=SimpleNamespace(workload="forward", cuda_graphs=False), counted=module, args=args, kwargs={},
        default_inputs=False,
    )  # fmt: skip

    def once(run):
        run()
        return 1.0

    with torch.no_grad():
        return settle(subject, Part("forward", lambda: module(*args)), once)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen += 1
        return x + self.seen


class Learning(nn.Module):
    """Its weight follows the mean of what it sees, as a running average that was made a parameter does."""

    def __init__(self, counts=False):
        super().__init__()
        self.level = nn.Parameter(torch.zeros(1))
        self.counts = counts
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.level.mul_(0.9).add_(0.1 * x.mean())
        if self.counts:
            self.seen += 1
        return x - self.level


def test_a_counter_is_put_back_and_its_flag_says_so():
    module = Counting()
    found = settled(module, torch.ones(2))
    (flag,) = found.flags
    assert (
        flag["code"] == "changes_state" and "seen; it is put back" in flag["text"] and "parameters" not in flag["text"]
    )
    before = module.seen.clone()
    with torch.no_grad():
        found.part.run()
    assert torch.equal(module.seen, before)


def test_weights_that_learn_are_named_and_not_said_to_be_put_back():
    module = Learning()
    found = settled(module, torch.ones(2))
    (flag,) = found.flags
    assert "parameters (level) are not put back" in flag["text"] and "training_step" in flag["text"]
    assert "it is put back" not in flag["text"]
    before = module.level.clone()
    with torch.no_grad():
        found.part.run()
    assert not torch.equal(module.level, before)  # as the flag says


def test_beside_learning_weights_the_rest_is_put_back():
    module = Learning(counts=True)
    found = settled(module, torch.ones(2))
    (flag,) = found.flags
    assert "it is put back" in flag["text"] and "parameters (level) are not put back" in flag["text"]
    before = module.seen.clone()
    with torch.no_grad():
        found.part.run()
    assert torch.equal(module.seen, before)
