"""Tensors behind a value: found wherever they are, their bytes once, copies that are true ones."""

from collections import deque
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from bench.tensors import copy_of, held_bytes, ordinary_tensors, tensors_in


@dataclass
class Layer:
    keys: torch.Tensor
    length: int = 0


class Slotted:
    __slots__ = ("values",)

    def __init__(self, values):
        self.values = values


def test_tensors_are_found_at_any_depth_and_in_order():
    found = [torch.zeros(n) for n in range(1, 7)]
    value = {"a": [found[0], (found[1],)], "b": Layer(found[2]), "c": Slotted({"d": deque([found[3]])}), "e": found[4:]}
    assert [tensor.numel() for tensor in tensors_in(value)] == [1, 2, 3, 4, 5, 6]


def test_a_cycle_ends_and_a_tensor_is_found_once():
    tensor = torch.zeros(3)
    value = [tensor, tensor]
    value.append(value)
    assert len(list(tensors_in(value))) == 1


def test_modules_are_not_entered():
    assert list(tensors_in({"owner": nn.Linear(2, 2)})) == []


def test_a_view_keeps_its_whole_storage_and_shared_storages_count_once():
    whole = torch.zeros(100)
    assert held_bytes([whole[:1], whole[50:]]) == 400
    assert held_bytes([whole, torch.zeros(2)], without=[whole[3:]]) == 8


def test_bytes_of_sparse_tensors_are_those_of_what_they_store():
    sparse = torch.sparse_csr_tensor(torch.arange(11), torch.arange(10), torch.ones(10), (10, 10))
    assert held_bytes(sparse) == 11 * 8 + 10 * 8 + 10 * 4


def test_a_copy_shares_nothing_but_aliases_itself_as_the_value_does():
    whole = torch.arange(4.0)
    copied = copy_of({"whole": whole, "view": whole[1:]})
    copied["view"].add_(10)
    assert copied["whole"].tolist() == [0, 11, 12, 13] and whole.tolist() == [0, 1, 2, 3]


def test_a_copy_keeps_the_module_that_a_cache_belongs_to():
    module = nn.Linear(2, 2)
    copied = copy_of({"owner": module, "weight": module.weight, "kept": torch.zeros(1)}, module)
    assert copied["owner"] is module and copied["weight"] is module.weight


def test_a_copy_made_of_inference_tensors_can_be_changed_afterwards():
    with torch.inference_mode():
        made = {"kept": torch.zeros(2)}
        copied = copy_of(made)
    copied["kept"].add_(1)
    with pytest.raises(RuntimeError):
        made["kept"].add_(1)


def test_ordinary_tensors_are_made_inside_inference_mode():
    with torch.inference_mode(), ordinary_tensors():
        assert not torch.zeros(1).is_inference()
