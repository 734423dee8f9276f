"""Codes in buffers count as the weights that they stand for, where their module says so."""

import torch
from torch import nn

from bench.meters import macs, nominal, params


class Coded(nn.Module):
    """Ten weights of 4 bits in five bytes, with a scale."""

    def __init__(self, said=True):
        super().__init__()
        self.register_buffer("codes", torch.zeros(5, dtype=torch.uint8))
        self.register_buffer("scale", torch.ones(1))
        self.nominal_bits = 4.0
        if said:
            self.packed_weights = {"codes": 10, "scale": 0}


def test_packed_codes_are_weights():
    found = params.measure(nn.Sequential(Coded(), nn.Linear(2, 2, bias=False)))
    assert (found.total, found.weight_bytes, found.buffer_bytes) == (14, 5 + 4 + 16, 0)
    assert found.effective_bits == 8 * 25 / 14 and found.nonzero is None and "codes" in found.notes["params_nonzero"]


def test_what_nobody_declares_stays_a_buffer():
    found = params.measure(Coded(said=False))
    assert (found.total, found.weight_bytes, found.buffer_bytes, found.size_bytes) == (0, 0, 9, 9)


def test_nominal_bits_weigh_packed_codes_beside_parameters():
    (reading,) = nominal.bits(nn.Sequential(Coded(), nn.Linear(2, 2, bias=False)))
    assert reading.value == (10 * 4 + 4 * 32) / 14


def test_products_of_unpacked_codes_have_the_declared_bits():
    class Product(Coded):
        def forward(self, x):
            return x @ torch.zeros(x.shape[1], 2)

    module, x = Product(), torch.randn(3, 5)
    count = macs.count(module, (x,))
    (reading,) = nominal.operations(count, module, "forward", 1)
    assert reading.value == 3 * 5 * 2 * 32 * 4
