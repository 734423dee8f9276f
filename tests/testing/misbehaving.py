"""Networks and methods that break one promise each, and one that keeps them all."""

import itertools
import os
import sys

import torch
from torch import nn

from bench.config.settings import KeepRate, PositiveInt

COUNTER = itertools.count()


class Net(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = nn.Linear(3 * 16, width), nn.Linear(width, 5)
        self.resolution = 4

    def hidden(self, images):
        return self.first(images.flatten(1)).relu()

    def forward(self, images):
        return self.second(self.hidden(images))


def net(*, width: PositiveInt = 8):
    return Net(width).eval()


def good(model, *, keep: KeepRate = 0.5):
    """Keeps the first share of the hidden features."""
    count = max(1, int(keep * model.first.out_features))
    with torch.no_grad():
        model.first.weight = nn.Parameter(model.first.weight[:count].clone())
        model.first.bias = nn.Parameter(model.first.bias[:count].clone())
        model.second.weight = nn.Parameter(model.second.weight[:, :count].clone())
    return model


def good_macs(model, method):
    """Closed form of `good` on `net`."""
    count = max(1, int(method.get("keep", 0.5) * model.get("width", 8)))
    return 48 * count + count * 5


def wrong_macs(model, method):
    return good_macs(model, method) + 1


def good_step(model, method, batch):
    """Closed form of a step of `good`: weights' gradients of both maps, the input's of the second; what is saved."""
    count = max(1, int(method.get("keep", 0.5) * model.get("width", 8)))
    products = 48 * count + 2 * count * 5
    # of the hidden features their ReLU, of the five logits the logarithms of a softmax and one number for the mean
    return {"macs_backward": products, "saved_activation_bytes": 4 * batch * (count + 5) + 4}


def wrong_step(model, method, batch):
    return {"macs_backward": good_step(model, method, batch)["macs_backward"] + 1}


class WithDropout(Net):
    def forward(self, images):
        return torch.nn.functional.dropout(super().forward(images), training=True)


def _as(kind, model):
    model.__class__ = kind
    return model


def random_answers(model):
    return _as(WithDropout, model)


def unseeded(model):
    with torch.no_grad():
        model.first.bias.fill_(float(next(COUNTER)))
    return model


def kernel_of_its_own(model):
    """A size under the name of a label of the row."""
    model.kernel = 3
    return model


def execution_of_its_own(model):
    model.execution = "realint"
    return model


class Writes(Net):
    def forward(self, images):
        images.mul_(0.5)
        return super().forward(images)


def writes_inputs(model):
    return _as(Writes, model)


class Hidden(Net):
    def forward(self, images):
        return super().forward(images) * self.scale


def state_outside(model):
    """Keeps what it learned where a state_dict does not look."""
    model.scale = 1.0 + float(torch.rand(()))
    return _as(Hidden, model)


def sets_threads(model):
    torch.set_num_threads(3)
    torch.set_default_dtype(torch.float64)
    return model


class Neighbours(Net):
    def forward(self, images):
        return super().forward(images - images.mean(dim=0, keepdim=True))


def looks_at_neighbours(model):
    return _as(Neighbours, model)


class SinglePrecision(Net):
    def forward(self, images):
        return super().forward(images).float()


def single_precision(model):
    return _as(SinglePrecision, model)


class OnMeta(Net):
    def forward(self, images):
        return super().forward(images if images.is_meta else images[:, :, :4]) + (
            0 if images.is_meta else self.first(images.flatten(1)).sum()
        )


def other_on_meta(model):
    return _as(OnMeta, model)


def not_understood(model, *, keep: "KeepRate" = 0.5, other=3):
    return model


def refuses_nothing(model, *, keep: float = 0.5):
    return model


class Guard(Net):
    def __reduce__(self):
        raise TypeError("it holds a lock")


def no_pickle(model):
    return _as(Guard, model)


class NotANumber(Net):
    def forward(self, images):
        return super().forward(images) * float("nan")


def not_a_number(model):
    return _as(NotANumber, model)


class Ends(Net):
    def forward(self, images):
        if "pytest" not in sys.modules:
            os._exit(7)
        return super().forward(images)


def ends_another_process(model):
    return _as(Ends, model)
