from dataclasses import dataclass

import pytest
import torch

from bench.backends.backend import ConversionFailed
from bench.backends.structure import Slot, put_together, take_apart
from tests.backends.networks import Answer, Pair


def test_nested_values_come_back_in_their_own_types_with_other_tensors_in_place():
    one, two, three = torch.zeros(1), torch.ones(2), torch.ones(3, dtype=torch.int64)
    value = {"a": [one, 3], "b": Answer(two, "x", {"pair": Pair(three, None)}), "c": (2.5, "text", torch.float32)}
    tensors, form = take_apart(value, "output")
    assert [tensor is other for tensor, other in zip(tensors, (one, two, three), strict=True)] == [True] * 3
    assert form["a"][0] == Slot(0) and form["b"].rest["pair"].logits == Slot(2)
    again = put_together(form, [tensor + 1 for tensor in tensors])
    assert type(again["b"]) is Answer and type(again["b"].rest["pair"]) is Pair and type(again["c"]) is tuple
    assert again["a"][0].tolist() == [1] and again["b"].logits.tolist() == [2, 2] and again["c"] == value["c"]


def test_torchs_own_named_tuples_come_back():
    found = torch.topk(torch.tensor([1.0, 3.0, 2.0]), 2)
    tensors, form = take_apart(found, "output")
    again = put_together(form, tensors)
    assert type(again) is type(found) and again.indices.tolist() == [1, 2]


def test_what_cannot_cross_to_a_runtime_is_refused_rather_than_kept_from_the_first_run():
    @dataclass
    class Cache:
        held: object

    with pytest.raises(ConversionFailed, match="output holds a Thread"):
        import threading

        take_apart(Cache(threading.Thread()), "output")
