"""R-Sparse: budgets, the identity, gathered against masked, and what it costs."""

import copy

import pytest
import torch

from suites.common.decoder import decoder
from suites.decode import r_sparse as file
from suites.decode import r_sparse_search as search_file
from suites.decode.r_sparse import RSparseLinear, gathering, r_sparse
from tests.suites.conftest import spread
from tests.suites.decode.walking import ids_of, small, walk


def test_budgets_are_those_of_the_brief():
    assert file.budget(4096, 4096, 0.5, 0.95) == (1945, 51)
    assert file.macs(4096, 4096, 0.5, 0.95) == 8_384_512
    assert file.budget(4096, 1024, 0.5, 1.0) == (2048, 0)
    assert file.budget(100, 60, 0.5, 0.0) == (0, 18)


@pytest.mark.parametrize("inputs, outputs", [(64, 64), (64, 16), (48, 200)])
@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95, 1.0])
def test_the_budget_is_not_overspent(inputs, outputs, sparsity, rho):
    assert file.macs(inputs, outputs, sparsity, rho) <= inputs * outputs * (1 - sparsity) + 1e-6


def test_sparsity_zero_is_the_plain_model_bit_for_bit():
    model, ids = small(), ids_of(2, 20)
    assert torch.equal(walk(r_sparse(copy.deepcopy(model), sparsity=0.0), ids, 10), walk(model, ids, 10))


def test_full_rank_without_columns_is_the_dense_map():
    linear = torch.nn.Linear(24, 16).double()
    sparse = RSparseLinear(linear, 0.5, 0.0, "gathered", None)
    sparse.residue, sparse.rank = file.Residue(linear.weight.detach(), 16), 16
    x = torch.randn(3, 1, 24, dtype=torch.double)
    with torch.no_grad():
        assert torch.allclose(sparse(x), linear(x), atol=1e-5)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("batch", [1, 3])
def test_gathered_and_masked_columns_agree_with_the_definition(rho, batch):
    torch.manual_seed(1)
    linear = torch.nn.Linear(40, 24).double()
    seen = torch.randn(500, 40, dtype=torch.double)
    x = torch.randn(batch, 1, 40, dtype=torch.double)
    u, s, v = torch.linalg.svd(linear.weight.detach())
    answers = []
    for form in ("gathered", "masked"):
        sparse = RSparseLinear(linear, 0.5, rho, form, seen)
        with torch.no_grad():
            answers.append(sparse(x))
    _, rank = file.budget(40, 24, 0.5, rho)
    for b in range(batch):
        expected = linear.bias.detach().clone()
        rest = torch.zeros(40, dtype=torch.double)
        for i in range(40):
            weight = linear.weight[:, i].detach()
            importance = x[b, 0, i].abs() * (1 if rho == 1 else weight.norm())
            if importance > sparse.threshold:
                expected += x[b, 0, i] * weight
            else:
                rest[i] = x[b, 0, i]
        expected += u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank] @ rest
        assert torch.allclose(answers[0][b, 0], expected, atol=1e-6)
    assert torch.allclose(answers[0], answers[1])


def test_the_threshold_passes_the_share_it_was_calibrated_for():
    linear, seen = torch.nn.Linear(64, 64), torch.randn(2000, 64)
    sparse = RSparseLinear(linear, 0.5, 0.9, "gathered", seen)
    share = (sparse.importance(seen) > sparse.threshold).float().mean()
    assert float(share) == pytest.approx(0.45, abs=0.01)


def test_a_prompt_runs_dense_and_steps_run_sparse():
    model, ids = small(), ids_of(1, 21)
    sparse = r_sparse(copy.deepcopy(model), sparsity=0.5)
    with torch.no_grad():
        dense_prompt, _ = model.prefill(ids[:, :20])
        prompt, cache = sparse.prefill(ids[:, :20])
        assert torch.allclose(prompt, dense_prompt, atol=1e-4)
        step, _ = sparse.decode(ids[:, 20:], cache)
        plain = walk(model, ids, 20)[:, -1]
    assert not torch.allclose(step, plain, atol=1e-3)
    dense = sum(m.columns.numel() for m in sparse.modules() if isinstance(m, RSparseLinear))
    assert 0.3 * dense < file.executed_macs(sparse) < 0.7 * dense


def test_a_batch_reads_the_union_of_its_columns():
    model = r_sparse(small(), sparsity=0.8)
    with torch.no_grad():
        counts = []
        for batch in (1, 8):
            _, cache = model.prefill(ids_of(batch, 8))
            model.decode(ids_of(batch, 1, seed=5), cache)
            counts.append(file.executed_macs(model))
    assert counts[1] > 1.5 * counts[0]


def test_factors_and_norms_are_the_methods_bytes():
    model = r_sparse(small(), sparsity=0.5, rho=0.5)
    expected = 0
    for module in model.modules():
        if isinstance(module, RSparseLinear):
            inputs, outputs = module.columns.shape
            expected += 4 * (module.rank * (inputs + outputs) + inputs)
    assert model.method_bytes() == expected > 0
    with pytest.raises(ValueError, match="one per layer"):
        r_sparse(small(), rho=[0.5])


def test_paper_sizes_build_on_the_meta_device():
    from suites.common.decoder import published_decoder

    with torch.device("meta"):
        model = r_sparse(published_decoder(name="llama2_7b", layers=2))
        _, cache = model.prefill(torch.zeros(1, 4, dtype=torch.long))
        model.decode(torch.zeros(1, 1, dtype=torch.long), cache)
    assert model.blocks[0].attention.q.expected == 1945 and model.blocks[0].attention.q.rank == 51


def test_the_search_is_never_worse_than_where_it_started_and_leaves_the_decoder_alone():
    torch.manual_seed(0)
    plain = decoder(width=32, layers=2, heads=2, hidden=24)
    spread(plain)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    ids = search_file.judging_ids(plain, 0)
    assert ids.shape == (16, 48)  # sixteen samples, not one cut into nothing
    found = search_file.searched(plain, gathering(0.5), [0.9, 0.9], generations=1)
    assert len(found) == 2 and all(0 <= share <= 1 for share in found)
    assert search_file.searched(plain, gathering(0.5), [0.9, 0.9], generations=1) == found
    losses = [search_file.loss_at(plain, gathering(0.5), shares, ids, 0) for shares in (found, [0.9, 0.9])]
    assert losses[0] <= losses[1]
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_children_have_their_parents_shares_moved_a_little(monkeypatch):
    monkeypatch.setattr(search_file, "NOISE", 0.0)
    random = torch.Generator().manual_seed(0)
    children = [search_file.child([[0.1, 0.2, 0.3], [0.7, 0.8, 0.9]], random) for _ in range(20)]
    assert {shares[0] for shares in children} == {0.1, 0.7}
    assert len({tuple(shares) for shares in children}) > 2
    monkeypatch.setattr(search_file, "NOISE", 5.0)
    assert all(0 <= share <= 1 for share in search_file.moved([0.5] * 50, random))


def test_a_mixture_of_experts_is_refused():
    from suites.common.decoder import published_decoder

    with pytest.raises(ValueError, match="a mixture of experts has others"):
        r_sparse(published_decoder(name="byte_moe"))
