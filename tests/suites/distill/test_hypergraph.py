"""Hypergraph networks and their students: check cases, forms that agree, and who depends on whom."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.meters import macs
from suites.common.tasks.digit_vertices import DigitVertices, vertex_split
from suites.distill import vertices
from suites.distill.hgnn import hgnn, hgnn_plus, two_hops
from suites.distill.hypergraph import Smoothing, digits_hypergraph, factors, made, random_hypergraph
from suites.distill.lighthgnn import Topology, entropy, lighthgnn, lighthgnn_plus, reliability, vertex_mlp
from suites.distill.vertices import soft_divergence


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def dense(graph, norm):
    gather, scatter = factors(graph, norm)
    return torch.tensor((scatter @ gather).toarray())


def test_the_check_cases():
    """Brief, section 9: parameters of teacher and student, and the smoothing of both layers by the incidence."""
    assert parameters(hgnn()) == 2410 and parameters(lighthgnn()) == 9866
    graph = digits_hypergraph()
    assert (graph.vertices, graph.hyperedges, graph.members) == (1797, 1797, 17_970)
    assert hgnn().smoothing.stored * (32 + 10) == 1_509_480


def test_the_trace_of_both_is_the_closed_form():
    net, student = hgnn(), lighthgnn()
    everyone = net.example_inputs(1797)
    assert macs.count(net, everyone).executed_macs == 1797 * 32 * 74 + 1_509_480
    assert macs.count(student, everyone).executed_macs == 1797 * 128 * 74


def test_a_sparse_product_says_what_it_would_be_dense():
    found = macs.count(hgnn(vertices=50, degree=2, members=4, features=6), (torch.arange(1),))
    assert found.dense_equivalent_macs > found.executed_macs


@pytest.mark.parametrize("make", [hgnn, hgnn_plus])
def test_with_singletons_alone_the_teacher_is_a_perceptron(make):
    net = make(vertices=12, degree=1, members=1, features=6, hidden=5)
    net.smoothing = Smoothing(made(12, [], []), net.norm, "incidence")
    with torch.no_grad():
        wanted = net.theta2(net.theta1(net.data.features).relu())
        torch.testing.assert_close(net(torch.arange(12)), wanted)


@pytest.mark.parametrize("make", [hgnn, hgnn_plus])
def test_incidence_and_materialised_smoothing_agree(make):
    incidence, whole = (make(form=form) for form in ("incidence", "materialised"))
    whole.load_state_dict(incidence.state_dict())
    with torch.no_grad():
        index = torch.arange(1797)
        torch.testing.assert_close(whole(index), incidence(index), rtol=1e-5, atol=1e-5)


def test_hyperedges_of_two_are_a_graph_by_hand():
    """A path of three: L = Dv^-1/2 (A + Dv) Dv^-1/2 / 2, since H H^T = A + Dv and De = 2."""
    graph = made(3, [0, 1, 1, 2], [0, 0, 1, 1])
    adjacency = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.float64)
    degree = torch.diag(adjacency.sum(1))
    root = torch.diag(adjacency.sum(1) ** -0.5)
    torch.testing.assert_close(dense(graph, "symmetric"), root @ (adjacency + degree) @ root / 2)
    torch.testing.assert_close(
        dense(graph, "mean"), torch.tensor([[0.5, 0.5, 0], [0.25, 0.5, 0.25], [0, 0.5, 0.5]]).double()
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 6), st.integers(0, 3))
def test_means_of_hyperedges_keep_a_constant_and_lone_vertices_their_features(vertices, degree, members, seed):
    graph = random_hypergraph(vertices, degree, members, seed)
    assert set(graph.vertex) == set(range(vertices))
    torch.testing.assert_close(dense(graph, "mean").sum(1), torch.ones(vertices, dtype=torch.float64))
    symmetric = dense(graph, "symmetric")
    torch.testing.assert_close(symmetric, symmetric.T)


@pytest.mark.parametrize("make", [hgnn, hgnn_plus])
@pytest.mark.parametrize("form", ["incidence", "materialised"])
def test_two_hops_give_the_same_from_fewer_products(make, form):
    net = make(vertices=200, degree=2, members=3, features=6, hidden=5, form=form)
    index = torch.tensor([3, 150, 7])
    with torch.no_grad():
        torch.testing.assert_close(two_hops(net)(index), net(index))
    near = macs.count(two_hops(net), (index[:1],)).executed_macs
    assert 0 < near < macs.count(net, (index[:1],)).executed_macs / 3


def test_a_student_answers_a_vertex_from_its_own_features_alone():
    net, index = lighthgnn(), torch.tensor([5])
    before = net(index)
    net.data.features[6:] = 0
    torch.testing.assert_close(net(index), before, rtol=0, atol=0)


def test_reliability_is_one_where_noise_changes_nothing():
    plain, shaken = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.0, 0.0, 1.5])
    torch.testing.assert_close(reliability(plain, shaken), torch.tensor([1.0, 0.0, 0.5]))
    torch.testing.assert_close(
        entropy(torch.tensor([[0.25] * 4, [1.0, 0, 0, 0]])), torch.tensor([np.log(4), 0.0]).float()
    )


def test_the_divergence_is_zero_from_itself_and_cross_entropy_less_entropy_from_others():
    logits, wanted = torch.randn(6, 10), torch.randn(6, 10).softmax(1)
    assert soft_divergence(wanted.log(), wanted).abs() < 1e-6
    cross = -(wanted * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(soft_divergence(logits, wanted), cross - entropy(wanted).mean())


def test_the_split_labels_twenty_of_each_class_and_hides_a_fifth_of_the_rest_in_production():
    plain, unseen = vertex_split(False), vertex_split(True)
    assert plain.wanted(plain.labelled).bincount().tolist() == [20] * 10
    assert plain.wanted(plain.validated).bincount().tolist() == [30] * 10
    every = torch.cat([plain.labelled, plain.validated, plain.unlabelled])
    assert every.sort().values.equal(torch.arange(1797)) and not len(plain.hidden)
    assert len(unseen.hidden) == round(0.2 * 1297) and set(unseen.hidden.tolist()) <= set(plain.unlabelled.tolist())


def test_hidden_vertices_are_in_no_hyperedge_while_a_network_learns():
    net, split = hgnn(), vertex_split(True)
    smoothing = net.smoothing_of(split)
    x = torch.zeros(1797, 1)
    x[split.hidden] = 1.0
    seen = torch.ones(1797, dtype=torch.bool)
    seen[split.hidden] = False
    assert not smoothing(x)[seen].any() and net.smoothing(x)[seen].any()


@pytest.mark.parametrize("make", [lighthgnn, lighthgnn_plus, vertex_mlp])
def test_hidden_vertices_leave_no_trace_in_what_a_student_learns(make, monkeypatch):
    """Whatever their features are: not in the norm's mean, nor among soft labels, nor as hyperedges of their own."""
    monkeypatch.setattr(vertices, "EPOCHS", 2)
    split, learned = vertex_split(True), []
    for shift in (0.0, 7.0):
        net = make()
        net.data.features[split.hidden] += shift
        net.learn_vertices(split, 0)
        learned.append(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(learned[0].values(), learned[1].values(), strict=True))


def test_no_hyperedge_of_the_term_has_a_hidden_vertex():
    """1797 hyperedges of the digits, of which those stay that have a member left; hidden vertices get none."""
    split = vertex_split(True)
    term = Topology(hgnn(), split, 0)
    x = torch.zeros(1797, 1)
    x[split.hidden] = 1.0
    assert not term.mean(x).any() and len(term.reliability) == len(term.wanted) <= 1797
    torch.testing.assert_close(term.wanted.sum(1), torch.ones(len(term.wanted)))


def accuracies(task, makes):
    """Accuracy of scored digits by network, all learned from one seed."""
    found = {}
    for name, make in makes.items():
        torch.manual_seed(0)
        found[name] = task.prepare(name, make)["test_accuracy"]
    return found


def test_a_student_is_better_than_the_same_network_without_a_teacher(tmp_path, monkeypatch):
    monkeypatch.setattr(vertices, "EPOCHS", 60)
    accuracy = accuracies(DigitVertices(tmp_path, 0), {"plus": lighthgnn_plus, "mlp": vertex_mlp})
    assert accuracy["plus"] > accuracy["mlp"] + 1, accuracy


@pytest.mark.slow
def test_in_as_many_epochs_as_the_paper_takes_both_students_gain(tmp_path):
    makes = {"hgnn": hgnn, "light": lighthgnn, "plus": lighthgnn_plus, "mlp": vertex_mlp}
    accuracy = accuracies(DigitVertices(tmp_path, 0), makes)
    assert min(accuracy["light"], accuracy["plus"]) > accuracy["mlp"] + 3, accuracy
    assert accuracy["hgnn"] > accuracy["mlp"] + 3, accuracy


@pytest.mark.slow
def test_unseen_vertices_are_answered_without_the_hypergraph(tmp_path):
    task = DigitVertices(tmp_path, 0, production=True)
    accuracy = accuracies(task, {"hgnn": hgnn, "lighthgnn": lighthgnn, "mlp": vertex_mlp})
    assert accuracy["lighthgnn"] > accuracy["mlp"], accuracy


@pytest.mark.parametrize("call, message", [
    (lambda: made(3, [3], [0]), "0 to 2"), (lambda: made(3, [0, 1], [0]), "one of each"),
    (lambda: hgnn(members=1798), "members=1798: there are 1797 digits"),
    (lambda: lighthgnn(features=5), "64 pixels"), (lambda: two_hops(lighthgnn()), "hgnn or hgnn+"),
    (lambda: hgnn(vertices=5).example_inputs(6), "there are 5 vertices"),
    (lambda: DigitVertices("none", 0).fits(hgnn(vertices=5), "x"), "random vertices"),
    (lambda: DigitVertices("none", 0).fits(torch.nn.Linear(1, 1), "x"), "takes no vertices"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_words(call, message):
    with pytest.raises(Exception, match=message):
        call()
