"""Layers over relational graphs: forms that agree forward and backward, closed forms, and graphs as asked for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.meters import macs
from suites.distill import closed_forms
from suites.distill.relational import hgt, pigeon, rgat, rgcn
from suites.distill.relational_graph import from_edges, generated, read

SMALL = {"vertices": 14, "edges": 70, "relations": 6, "width": 6}
LAYERS = {"rgcn": rgcn, "rgat": rgat, "hgt": hgt}
FORMS = [
    {"form": form, "compact": compact, "reordered": reordered}
    for form in ("loop", "gathered", "segment") for compact in (False, True) for reordered in (False, True)
]  # fmt: skip


def apart(found, wanted):
    return max(float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("how", FORMS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_every_form_agrees_forward_and_backward(name, how):
    extra = {"heads": 2, "types": 2} if name == "hgt" else {"outer": 5}
    layer = LAYERS[name](**SMALL, **extra, **how, backward=True)
    args = layer.example_inputs(1)
    assert apart(layer(*args), layer.reference(*args)) < 1e-5


def test_rgcn_is_its_formula_edge_by_edge():
    layer = rgcn(**SMALL)
    (x,) = layer.example_inputs(1)
    graph, wanted = layer.graph, x @ layer.root
    for u, r, v in zip(graph.source, graph.relation, graph.target, strict=True):
        same = int(((graph.relation == r) & (graph.target == v)).sum())
        wanted[v] += x[u] @ layer.weight[r, 0] / same
    torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-5)


def test_rgat_is_its_formula_vertex_by_vertex():
    layer = rgat(**SMALL)
    (x,) = layer.example_inputs(1)
    graph, wanted = layer.graph, torch.zeros(14, 6)
    for v in range(14):
        edges = np.flatnonzero(graph.target == v)
        if not len(edges):
            continue
        scores, messages = [], []
        for e in edges:
            weight = layer.weight[graph.relation[e], 0]
            z, own = x[graph.source[e]] @ weight, x[v] @ weight
            score = z @ layer.at_source[graph.relation[e], 0, :, 0] + own @ layer.at_target[graph.relation[e], 0, :, 0]
            scores.append(torch.nn.functional.leaky_relu(score, 0.2))
            messages.append(z)
        wanted[v] = torch.stack(scores).softmax(0) @ torch.stack(messages)
    torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-5)


def test_hgt_is_its_formula_edge_by_edge():
    layer = hgt(**SMALL, types=2, heads=2)
    (x,) = layer.example_inputs(1)
    graph = layer.graph
    kind = np.repeat(np.arange(2), graph.types)
    keys, queries, values = (
        torch.stack([x[v] @ weight[kind[v]] for v in range(14)]).unflatten(1, (2, 3))
        for weight in (layer.key, layer.query, layer.value)
    )  # fmt: skip
    wanted = torch.zeros(14, 2, 3)
    for v in range(14):
        edges = np.flatnonzero(graph.target == v)
        for head in range(2):
            if not len(edges):
                continue
            scores = torch.stack([
                keys[graph.source[e], head] @ layer.attention[graph.relation[e], head] @ queries[v, head] / 3**0.5
                for e in edges
            ])  # fmt: skip
            told = torch.stack([values[graph.source[e], head] @ layer.message[graph.relation[e], head] for e in edges])
            wanted[v, head] = scores.softmax(0) @ told
    out = torch.nn.functional.gelu(wanted.flatten(1))
    out = torch.stack([out[v] @ layer.out[kind[v]] for v in range(14)])
    gate = torch.tensor(1.0).sigmoid()
    torch.testing.assert_close(layer(x), gate * out + (1 - gate) * x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", FORMS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_the_trace_is_the_closed_form(name, how):
    layer = LAYERS[name](**SMALL, **how)
    assert macs.count(layer, layer.example_inputs(1)).executed_macs == getattr(closed_forms, name)({**SMALL, **how}, {})


def test_the_check_case():
    """Brief, section 9: E = 10^6 edges, U = 2.5 x 10^5 pairs, d = 64."""
    assert closed_forms.message_macs(10**6, 64, 64) == 4_096_000_000
    assert closed_forms.message_macs(250_000, 64, 64) == 1_024_000_000


def test_scores_cost_what_the_transforms_say():
    """Plain 2 E d^2 + 2 E d, reordered E d^2 + 2 R d^2 + 2 E d: the message's own product stays."""
    graph = {"vertices": 50, "edges": 400, "relations": 5, "width": 8}
    assert closed_forms.rgat(graph, {}) == 2 * 400 * 64 + 2 * 400 * 8
    assert closed_forms.rgat({**graph, "reordered": True}, {}) == 400 * 64 + 2 * 5 * 64 + 2 * 400 * 8


@pytest.mark.parametrize("name", LAYERS)
def test_the_method_keeps_weights_and_answers(name):
    layer = LAYERS[name](**SMALL)
    (x,) = layer.example_inputs(1)
    before, names = layer(x), list(layer.state_dict())
    changed = pigeon(layer)
    assert changed.compact and "segment, compact" in changed.form and list(changed.state_dict()) == names
    torch.testing.assert_close(changed(x), before, rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 8), st.integers(1, 3), st.floats(0, 2), st.integers(0, 100), st.integers(0, 3)
)
def test_generated_graphs_are_as_large_as_asked_for(vertices, relations, types, exponent, more, seed):
    edges, types = relations + more, min(types, vertices)
    graph = generated(vertices, edges, relations, types, exponent, None, seed)
    assert graph.edges == edges and sum(graph.types) == vertices and bool((np.diff(graph.relation) >= 0).all())
    assert set(graph.relation) == set(range(relations)) and 0 < graph.unique_share <= 1
    for compact in (False, True):
        for side in ("source", "target"):
            rows = graph.rows(side, compact=compact)
            assert (
                sum(rows.sizes) == len(rows.vertex) and rows.vertex[rows.row].tolist() == getattr(graph, side).tolist()
            )
            assert rows.relation[rows.row].tolist() == graph.relation.tolist()


@pytest.mark.parametrize("unique", [9, 50, 300])
def test_pairs_can_be_asked_for_exactly(unique):
    graph = generated(200, 300, 9, unique=unique)
    assert round(graph.unique_share * graph.edges) == unique and graph.edges == 300


def test_shares_within_a_relation_sum_to_one():
    graph = generated(30, 200, 4)
    pair = graph.relation * 30 + graph.target
    sums = np.bincount(pair, weights=graph.within_relation)
    np.testing.assert_allclose(sums[sums > 0], 1, rtol=1e-5)


def test_a_graph_of_the_user_is_read(tmp_path):
    edges = np.array([[0, 1, 2], [2, 0, 1], [0, 1, 2]])
    np.save(tmp_path / "mine.npy", edges)
    graph = read(str(tmp_path / "mine.npy"))
    assert (graph.vertices, graph.relations, graph.edges) == (3, 2, 3) and graph.relation.tolist() == [0, 1, 1]
    layer = rgcn(file=str(tmp_path / "mine.npy"), width=4, compact=True, form="segment")
    assert layer(*layer.example_inputs(1)).shape == (3, 4)


def test_matrices_of_all_rows_are_what_gathering_needs():
    gathered, segment = (rgcn(**SMALL, form=form) for form in ("gathered", "segment"))
    assert gathered.required_bytes() == 70 * 6 * 6 * 4 and segment.required_bytes() == 70 * 12 * 4


@pytest.mark.parametrize("call, message", [
    (lambda: rgcn(relations=20, edges=10), "more than edges"), (lambda: rgcn(unique=2), "pairs can occur"),
    (lambda: generated(5, 9, 2, unique=11), "pairs can occur"), (lambda: hgt(heads=5), "do not divide"),
    (lambda: read("none.npy"), "no such file"), (lambda: pigeon(torch.nn.Linear(1, 1)), "rgcn, rgat or hgt"),
    (lambda: from_edges(3, 1, [[0, 0, 3]]), "0 to 2"), (lambda: from_edges(3, 1, [[0, 1, 2]]), "count from 0"),
    (lambda: from_edges(4, 1, [[0, 0, 1], [3, 0, 1]], types=2), "several types"),
    (lambda: from_edges(3, 1, [0, 1]), "rows of source"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()
