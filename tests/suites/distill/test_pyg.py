"""PyTorch Geometric's layer is the same function of the same weights."""

import pytest
import torch

from suites.distill.pyg import rgcn_pyg
from suites.distill.relational import rgcn

pytest.importorskip("torch_geometric")


@pytest.mark.parametrize("form", ["loop", "gathered"])
def test_the_library_and_ours_agree(form):
    torch.manual_seed(0)
    own = rgcn(vertices=14, edges=70, relations=6, width=6)
    torch.manual_seed(0)
    theirs = rgcn_pyg(vertices=14, edges=70, relations=6, width=6, form=form)
    (x,) = own.example_inputs(1)
    torch.testing.assert_close(theirs(x), own(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs.definition(x), own(x), rtol=1e-5, atol=1e-5)
