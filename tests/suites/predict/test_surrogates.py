"""The learned surrogates: published sizes, attention against a slow reference and a library, padding, budgets."""

import pytest
import torch

from suites.predict import closed_forms
from suites.predict.graph import DenseGATv2, GraphNorm, SumProduct, chain
from suites.predict.measured import Cost, Measured
from suites.predict.networks import named
from suites.predict.predictor import Knowledge
from suites.predict.predictors import wa_gnn, wa_mlp, wa_transformer


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_regression_network_has_the_published_parameters_and_its_form_at_any_width():
    with torch.device("meta"):
        found = wa_mlp()
    assert parameters(found) == 8_920_321 == closed_forms.wa_mlp_parameters({})
    for settings in ({"width": 64}, {"width": 128, "inputs": 11}, {"decides": True, "width": 256}):
        assert parameters(wa_mlp(**settings)) == closed_forms.wa_mlp_parameters(settings)
    linear = [layer for layer in wa_mlp(width=32).body if isinstance(layer, torch.nn.Linear)]
    assert all((layer.bias == 0).all() for layer in linear)
    bound = (6 / (linear[1].in_features + linear[1].out_features)) ** 0.5
    assert linear[1].weight.abs().max() <= bound


def slow_gat(layer, x, linked, edges=None):
    """GATv2 node by node, edge by edge, head by head."""
    out = torch.zeros(*x.shape[:2], layer.outputs)
    for graph in range(x.shape[0]):
        source = layer.source(x[graph]).view(-1, layer.heads, layer.outputs)
        target = layer.target(x[graph]).view(-1, layer.heads, layer.outputs)
        for node in range(x.shape[1]):
            heard = [other for other in range(x.shape[1]) if linked[graph, node, other]]
            for head in range(layer.heads):
                logits = []
                for other in heard:
                    total = source[other, head] + target[node, head]
                    if edges is not None:
                        total = total + layer.edge(edges[graph, node, other]).view(layer.heads, -1)[head]
                    logits.append((torch.nn.functional.leaky_relu(total, 0.2) * layer.attention[head]).sum())
                for weight, other in zip(torch.stack(logits).softmax(0), heard, strict=True):
                    out[graph, node] += weight * source[other, head] / layer.heads
    return out + layer.bias


@pytest.mark.parametrize("edges", [0, 3])
def test_dense_attention_is_the_sum_over_edges(edges):
    torch.manual_seed(0)
    layer = DenseGATv2(5, 4, 2, edges=edges)
    x, linked = torch.randn(2, 4, 5), chain(torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 0]]))
    known = torch.randn(2, 4, 4, 3) if edges else None
    with torch.no_grad():
        found, weights = layer(x, linked, known)
        there = linked.any(-1)
        expected = slow_gat(layer, torch.where(there.unsqueeze(-1), x, 0 * x), linked | torch.eye(4).bool(), known)
    assert torch.allclose(found[there], expected[there], atol=1e-5)
    assert torch.allclose(weights.sum(2)[there], torch.ones(()), atol=1e-6) and not weights[1, 3].any()


def test_dense_attention_and_norm_are_those_of_pytorch_geometric():
    nn = pytest.importorskip("torch_geometric.nn")
    torch.manual_seed(0)
    ours, theirs = DenseGATv2(6, 5, 3), nn.GATv2Conv(6, 5, heads=3, concat=False, add_self_loops=False)
    with torch.no_grad():
        theirs.lin_l.weight.copy_(ours.source.weight), theirs.lin_l.bias.copy_(ours.source.bias)
        theirs.lin_r.weight.copy_(ours.target.weight), theirs.lin_r.bias.copy_(ours.target.bias)
        theirs.att.copy_(ours.attention.unsqueeze(0)), theirs.bias.copy_(ours.bias)
        x, linked = torch.randn(1, 7, 6), chain(torch.ones(1, 7))
        targets, sources = linked[0].nonzero().T
        expected = theirs(x[0], torch.stack([sources, targets]))
        assert torch.allclose(ours(x, linked)[0][0], expected, atol=1e-5)
        norm, other = GraphNorm(5), nn.GraphNorm(5)
        for parameter, wanted in ((norm.share, other.mean_scale), (norm.weight, other.weight)):
            parameter.uniform_(0.5, 1.5)
            wanted.copy_(parameter)
        y = torch.randn(1, 7, 5)
        assert torch.allclose(norm(y, torch.ones(1, 7))[0], other(y[0]), atol=1e-5)


def test_sum_and_product_are_over_a_node_and_its_neighbours():
    layer, x = SumProduct(1), torch.tensor([[[2.0], [3.0], [5.0]]])
    with torch.no_grad():
        layer.project.weight.copy_(torch.tensor([[1.0, 10.0]])), layer.project.bias.zero_()
        found = layer(x, chain(torch.ones(1, 3)))
    assert found.flatten().tolist() == [5 + 60, 10 + 300, 8 + 150]


@pytest.mark.parametrize("build", [lambda: wa_gnn(width=8), lambda: wa_transformer(width=16, layers=2, heads=2)])
def test_a_network_is_predicted_alike_alone_and_beside_longer_ones(build):
    torch.manual_seed(0)
    module = build()
    several = [named(name) for name in ("top_quarks", "jet_tagging", "dense_3", "dense_8")]
    together = module.predict(several)
    assert together == pytest.approx([module.predict([each])[0] for each in several], rel=1e-4)


def test_the_classifier_puts_networks_on_the_right_side_of_the_budget():
    items = [named(f"dense_{number}") for number in range(40)]
    known = [Measured(each, Cost((each.macs / 1e5 + 0.01,) * 2)) for each in items]
    module = wa_mlp(decides=True, width=64, steps=150)
    module.fit(Knowledge(known))
    budget, predicted = float(module.budget), module.predict(items)
    right = sum((p <= budget) == (m.cost.value <= budget) for p, m in zip(predicted, known, strict=True))
    assert right >= 36 and module.ranks_only


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiple"):
        wa_transformer(width=20, heads=8)
    from bench.errors import UsageError

    with pytest.raises(UsageError, match="inputs=7"):
        wa_mlp(inputs=5, width=8).predict([named("jet_tagging")])
    with pytest.raises(UsageError, match="16 measured"):
        wa_mlp(width=8).fit(Knowledge(()))


def test_multipliers_of_a_dense_layer_follow_the_reuse_factor():
    assert closed_forms.dense_multipliers(64, 32, 4) == 512 and closed_forms.dense_multipliers(16, 64) == 1024
    with pytest.raises(ValueError, match="reuse"):
        closed_forms.dense_multipliers(2, 2, 0)
