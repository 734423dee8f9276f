"""What is looked at in an output asks no more than the question: any layout, any type, finite or not."""

import pytest
import torch

from bench.worker.outputs import check_output


def codes(value):
    return [flag["code"] for flag in check_output(lambda: value)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor([0.0, float("-inf")]), ["not_finite"]),
        ({"scores": [torch.tensor([1.0, float("nan")])]}, ["not_finite"]),
        (torch.eye(3).to_sparse_csr(), []),
        (torch.eye(3).to_sparse(), []),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), []),
        (torch.ones(3).to(torch.float8_e4m3fn), []),
        (torch.ones(3, dtype=torch.complex64), []),
        (torch.empty(3, device="meta"), []),
        (torch.tensor([True, False]), []),
        (None, ["no_tensor_output"]),
        ("text", ["no_tensor_output"]),
    ],
)
def test_outputs_of_any_kind_are_looked_at(value, expected):
    assert codes(value) == expected


def test_a_quantised_output_is_looked_at():
    assert codes(torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)) == []


def test_minus_infinity_of_a_mask_is_told_apart_from_nan():
    flags = {value: check_output(lambda value=value: torch.tensor([1.0, value]))[0] for value in (float("-inf"),)}
    assert flags[float("-inf")]["severity"] == "info"
    assert check_output(lambda: torch.tensor([float("nan")]))[0]["severity"] == "warn"
