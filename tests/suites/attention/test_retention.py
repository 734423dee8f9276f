"""Retention as an operator: every form is the sum of its definition; the package says what it lacks."""

import pytest
import torch

from suites.attention.retention import retention
from suites.attention.vir import retention_macs


@pytest.mark.parametrize("form, chunk", [("parallel", 64), ("recurrent", 64), ("chunk", 7), ("chunk", 64)])
def test_every_form_is_the_definition(form, chunk):
    torch.manual_seed(0)
    row = retention(length=23, heads=3, width=8, chunk=chunk, form=form)
    args = row.example_inputs(2)
    assert torch.allclose(row(*args), row.reference(*args), atol=1e-5)


def test_required_products_follow_the_form():
    forms = {
        form: retention(length=100, heads=2, width=8, form=form).required_macs for form in ("parallel", "recurrent")
    }
    assert forms == {"parallel": 2 * 100**2 * 16, "recurrent": 2 * 100 * 16 * 8}
    assert retention(length=100, heads=2, width=8, chunk=10).required_macs == retention_macs(100, 16, 2, 10)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_package_is_unsupported_with_the_reason():
    with pytest.raises(NotImplementedError, match=r"GPU|not installed"):
        retention(form="fla")


@pytest.mark.gpu
def test_the_package_is_the_definition_on_a_gpu():
    pytest.importorskip("fla")
    torch.manual_seed(0)
    row = retention(length=96, heads=4, width=64, form="fla").cuda()
    args = [x.cuda() for x in row.example_inputs(2)]
    assert torch.allclose(row(*args), row.reference(*args), atol=2e-2)
