"""ONNX operators that hold graphs, and those that ONNX Runtime adds: counted by hand, their sizes as the runtime's."""

import pytest
import torch

from bench.meters import macs, params
from bench.meters.products import LAYER_NORM_OPS, SOFTMAX_OPS
from suites.common.onnx_bridge import onnx_model
from tests.field.test_onnx_files import FLOAT, INT64, made, tensor

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - of a package that may be missing

BOOL = TensorProto.BOOL
OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]


def counted(file, *given):
    return macs.count(onnx_model(name=str(file)), given)


def codes(found):
    return {row["code"] for row in found.flags}


def held(name, value):
    return numpy_helper.from_array(value.numpy(), name)


# -- graphs inside -----------------------------------------------------------------------------------------------------


def branch(name, width):
    """A product with a weight that the branch holds itself."""
    return helper.make_graph(
        [helper.make_node("MatMul", ["x", f"w_{name}"], [f"h_{name}"]),
         helper.make_node("ReduceSum", [f"h_{name}"], [f"y_{name}"], keepdims=0)],
        name, [], [tensor(f"y_{name}", [])], [held(f"w_{name}", torch.ones(4, width))],
    )  # fmt: skip


def choice(folder, condition, widths=(8, 3), values=()):
    nodes = [
        helper.make_node("If", [condition], ["y"], name="pick", then_branch=branch("a", widths[0]),
                         else_branch=branch("b", widths[1]))
    ]  # fmt: skip
    inputs = [tensor("x", (2, 4))] + ([] if values else [tensor(condition, [], BOOL)])
    return made(folder, nodes, inputs, [tensor("y", [])], values)


def test_a_branch_that_data_chooses_counts_the_lesser_and_says_how_much_more_it_may_be(tmp_path):
    file = choice(tmp_path, "c")
    found = counted(file, torch.ones(2, 4), torch.tensor(True))
    assert (found.macs, found.at_least) == (2 * 4 * 3, True)
    (text,) = [row["text"] for row in found.flags if row["code"] == "data_dependent"]
    assert "then 64, else 24" in text and "up to 40 MACs" in text
    module = onnx_model(name=str(file))
    assert params.measure(module).total == 4 * 8 + 4 * 3  # weights inside branches are weights
    assert module(torch.ones(2, 4), torch.tensor(True)) == 64


@pytest.mark.parametrize(("chosen", "right"), [(True, 64), (False, 24)])
def test_a_branch_that_the_file_chooses_is_counted_alone(tmp_path, chosen, right):
    file = choice(tmp_path, "c", values=[("c", torch.tensor(chosen))])
    found = counted(file, torch.ones(2, 4))
    assert (found.macs, found.at_least) == (right, False) and "data_dependent" not in codes(found)


def loop(folder, rounds=5, *, go_on="keep", condition=True, width=4, as_input=False):
    """`x = x @ w` so many times; each round also gives its row sums."""
    last = {
        "keep": helper.make_node("Identity", ["c_in"], ["c_out"]),
        "data": helper.make_node("Greater", ["first", "i_float"], ["c_out"]),
    }[go_on]
    nodes = [
        helper.make_node("MatMul", ["x_in", "w"], ["x_out"]),
        helper.make_node("ReduceSum", ["x_out", "axis"], ["sums"], keepdims=0),
        helper.make_node("Cast", ["i"], ["i_float"], to=FLOAT),
        helper.make_node("ReduceMax", ["x_out"], ["first"], keepdims=0),
        last,
    ]
    body = helper.make_graph(
        nodes, "body",
        [tensor("i", [], INT64), tensor("c_in", [], BOOL), tensor("x_in", None)],
        [tensor("c_out", [], BOOL), tensor("x_out", None), tensor("sums", None)],
    )  # fmt: skip
    outer = [helper.make_node("Loop", ["m", "c", "x"], ["last", "all"], name="rounds", body=body),
             helper.make_node("MatMul", ["last", "w2"], ["y"])]  # fmt: skip
    values = [("c", torch.tensor(condition)), ("w", torch.ones(4, width)), ("w2", torch.ones(4, 7)),
              ("axis", torch.tensor([1]))]  # fmt: skip
    inputs = [tensor("x", (2, 4))]
    if as_input:
        inputs.append(tensor("m", [], INT64))
    else:
        values.append(("m", torch.tensor(rounds)))
    return made(folder, outer, inputs, [tensor("y", None), tensor("all", None)], values)


def test_rounds_that_the_file_fixes_are_all_counted(tmp_path):
    file = loop(tmp_path, 5)
    found = counted(file, torch.ones(2, 4))
    assert (found.macs, found.at_least) == (5 * 2 * 4 * 4 + 2 * 4 * 7, False)
    (product,) = [row for row in found.operators if row["operator"] == "onnx::MatMul"]
    assert product["macs"] == found.macs
    (row,) = [record for record in found.records if record.path.endswith("body.MatMul_0")]
    assert row.weight_read == 5 * 4 * 4 * 4 and row.bit_operations == row.macs * 32 * 32
    last, every = onnx_model(name=str(file))(torch.ones(2, 4))
    assert (tuple(last.shape), tuple(every.shape)) == ((2, 7), (5, 2))


def test_rounds_that_data_may_end_are_counted_as_the_least_with_what_may_come_on_top(tmp_path):
    found = counted(loop(tmp_path, 5, go_on="data"), torch.ones(2, 4))
    assert (found.macs, found.at_least) == (2 * 4 * 4 + 2 * 4 * 7, True)  # the first round surely runs
    (text,) = [row["text"] for row in found.flags if row["code"] == "data_dependent"]
    assert "1 to 5 rounds" in text and "up to 128 MACs" in text


def test_rounds_that_nothing_bounds_are_unavailable_with_the_reason(tmp_path):
    with pytest.raises(NotImplementedError, match=r"how many rounds rounds \(Loop\) makes .* each has 32 MACs"):
        counted(loop(tmp_path, as_input=True), torch.ones(2, 4), torch.tensor(3))


def test_a_loop_that_never_begins_costs_nothing(tmp_path):
    found = counted(loop(tmp_path, 5, condition=False), torch.ones(2, 4))
    assert (found.macs, found.at_least) == (2 * 4 * 7, False)


def test_sizes_that_change_from_round_to_round_are_refused_with_both(tmp_path):
    nodes = [helper.make_node("Concat", ["x_in", "x_in"], ["x_out"], axis=1),
             helper.make_node("Identity", ["c_in"], ["c_out"])]  # fmt: skip
    body = helper.make_graph(
        nodes, "body", [tensor("i", [], INT64), tensor("c_in", [], BOOL), tensor("x_in", None)],
        [tensor("c_out", [], BOOL), tensor("x_out", None)],
    )  # fmt: skip
    outer = [helper.make_node("Loop", ["m", "", "x"], ["y"], body=body)]
    file = made(tmp_path, outer, [tensor("x", (2, 4))], [tensor("y", None)], [("m", torch.tensor(3))])
    with pytest.raises(NotImplementedError, match=r"\(x_out\) change from \(2, 4\) to \(2, 8\)"):
        counted(file, torch.ones(2, 4))


@pytest.mark.parametrize(("axis", "right"), [(0, 6), (1, 3)])
def test_a_scan_makes_as_many_rounds_as_there_are_slices(tmp_path, axis, right):
    width = (6, 3)[1 - axis]
    nodes = [helper.make_node("Unsqueeze", ["x"], ["row"]), helper.make_node("MatMul", ["row", "w"], ["h"])]
    nodes[0].input.append("zero")
    body = helper.make_graph(
        [*nodes, helper.make_node("Add", ["state", "h"], ["next"]), helper.make_node("Identity", ["h"], ["out"])],
        "body", [tensor("state", None), tensor("x", None)], [tensor("next", None), tensor("out", None)],
    )  # fmt: skip
    scan = helper.make_node(
        "Scan", ["start", "xs"], ["last", "all"], body=body, num_scan_inputs=1, scan_input_axes=[axis]
    )
    values = [("w", torch.ones(width, 5)), ("zero", torch.tensor([0])), ("start", torch.zeros(1, 5))]
    file = made(tmp_path, [scan], [tensor("xs", (6, 3))], [tensor("last", None), tensor("all", None)], values)
    found = counted(file, torch.ones(6, 3))
    assert (found.macs, found.at_least) == (right * width * 5, False)
    assert tuple(onnx_model(name=str(file))(torch.ones(6, 3))[1].shape) == (right, 1, 5)


def test_a_branch_inside_a_loop_is_bounded_by_both(tmp_path):
    inner = helper.make_node("If", ["bigger"], ["x_out"], name="pick",
        then_branch=helper.make_graph([helper.make_node("MatMul", ["x_in", "w"], ["t"])], "t", [], [tensor("t", None)]),
        else_branch=helper.make_graph([helper.make_node("Identity", ["x_in"], ["e"])], "e", [], [tensor("e", None)]),
    )  # fmt: skip
    nodes = [helper.make_node("ReduceMax", ["x_in"], ["top"], keepdims=0),
             helper.make_node("Greater", ["top", "one"], ["bigger"]), inner,
             helper.make_node("Identity", ["c_in"], ["c_out"])]  # fmt: skip
    body = helper.make_graph(
        nodes, "body", [tensor("i", [], INT64), tensor("c_in", [], BOOL), tensor("x_in", None)],
        [tensor("c_out", [], BOOL), tensor("x_out", None)],
    )  # fmt: skip
    outer = [helper.make_node("Loop", ["m", "", "x"], ["y"], body=body, name="rounds")]
    values = [("m", torch.tensor(3)), ("w", torch.eye(4)), ("one", torch.tensor(1.0))]
    found = counted(made(tmp_path, outer, [tensor("x", (2, 4))], [tensor("y", None)], values), torch.ones(2, 4))
    assert (found.macs, found.at_least) == (0, True)
    assert any("up to 32 MACs" in row["text"] for row in found.flags)


# -- operators that the runtime adds -----------------------------------------------------------------------------------

X = (2, 5, 8)
E8 = torch.ones
INT8, ONE, ZERO = torch.ones, torch.tensor(1.0), torch.tensor(0, dtype=torch.uint8)


def u8(*shape):
    return torch.ones(shape, dtype=torch.uint8)


def i8(*shape):
    return torch.ones(shape, dtype=torch.int8)


#: Operator and attributes, inputs (the given ones have none of a value), products by hand, vector operations by hand.
CASES = {
    "FusedMatMul": ({"transB": 1, "alpha": 0.5}, [X, E8(6, 8)], 2 * 5 * 8 * 6, 0),
    "FusedMatMul of a transposed left": ({"transA": 1}, [X, E8(2, 5, 3)], 2 * 8 * 5 * 3, 0),
    "FusedGemm": ({"activation": "Relu", "transB": 1}, [(3, 8), E8(6, 8), E8(6)], 3 * 8 * 6, 18),
    "Gelu": ({}, [X], 0, 80),
    "QuickGelu": ({}, [X], 0, 80),
    "FastGelu": ({}, [X, E8(8)], 0, 160),
    "BiasGelu": ({}, [X, E8(8)], 0, 160),
    "SkipLayerNormalization": ({}, [X, X, E8(8), E8(8), E8(8)], 0, (LAYER_NORM_OPS + 2) * 80),
    "SkipSimplifiedLayerNormalization": ({}, [X, X, E8(8)], 0, 6 * 80),
    "Attention": ({"num_heads": 2}, [X, E8(8, 24), E8(24)], 2 * 5 * 8 * 24 + 2 * 5 * 5 * (8 + 8),
                  2 * 2 * 5 * 5 * (SOFTMAX_OPS + 1) + 24),
    "MultiHeadAttention": ({"num_heads": 2}, [X, (2, 7, 8), (2, 7, 12)], 2 * 5 * 7 * (8 + 12),
                           2 * 2 * 5 * 7 * (SOFTMAX_OPS + 1)),
    "DynamicQuantizeMatMul": ({}, [X, u8(8, 6), ONE, ZERO], 2 * 5 * 8 * 6, 80),
    "QAttention": ({"num_heads": 2}, [("u8", X), u8(8, 24), E8(24), ONE, ONE, None, ZERO, ZERO],
                   2 * 5 * 8 * 24 + 2 * 5 * 5 * 16, 2 * 2 * 5 * 5 * (SOFTMAX_OPS + 1) + 24),
    "MatMulIntegerToFloat": ({}, [("u8", X), u8(8, 6), ONE, ONE], 2 * 5 * 8 * 6, 0),
    "QGemm": ({"transB": 1}, [("u8", (3, 8)), ONE, ZERO, u8(6, 8), ONE, ZERO], 3 * 8 * 6, 0),
    "QLinearAdd": ({}, [("u8", X), ONE, ZERO, u8(8), ONE, ZERO, ONE, ZERO], 0, 80),
    "QLinearSigmoid": ({}, [("u8", X), ONE, ZERO, ONE, ZERO], 0, 80),
    "EmbedLayerNormalization": ({}, [("i32", (2, 5)), None, E8(9, 8), E8(7, 8), None, E8(8), E8(8)], 0,
                                (1 + LAYER_NORM_OPS) * 80),
}  # fmt: skip


def graph_of(folder, name, *, after=True):
    """A file of one operator and of what comes after it, and what to give."""
    attributes, inputs, *_ = CASES[name]
    names, given, values, formal = [], [], [], []
    for place, item in enumerate(inputs):
        own = f"i{place}"
        names.append("" if item is None else own)
        if isinstance(item, torch.Tensor):
            values.append((own, item))
        elif item is not None:
            kind, shape = item if isinstance(item[0], str) else ("float", item)
            number = {"float": FLOAT, "u8": TensorProto.UINT8, "i32": TensorProto.INT32}[kind]
            formal.append(tensor(own, shape, number))
            dtype = {"float": torch.float32, "u8": torch.uint8, "i32": torch.int32}[kind]
            given.append(torch.ones(shape).to(dtype))
    outputs = ["h", "mask"] if name == "EmbedLayerNormalization" else ["h"]
    nodes = [helper.make_node(name.split()[0], names, outputs, domain="com.microsoft", name="it", **attributes)]
    if after:
        nodes.append(helper.make_node("Cast", ["h"], ["f"], to=FLOAT))
        nodes.append(helper.make_node("Exp", ["f"], ["y"]))
    ends = [tensor("y" if after else "h", None)]
    return made(folder, nodes, formal, ends, values, opset_imports=OPSETS), tuple(given)


@pytest.mark.parametrize("name", CASES)
def test_what_the_runtime_adds_is_counted_and_its_sizes_are_what_the_runtime_gives(tmp_path, name):
    _, _, products, vectors = CASES[name]
    file, given = graph_of(tmp_path, name)
    found = counted(file, *given)
    (record,) = [one for one in found.records if one.path == "it"]
    assert (record.macs, record.vector_ops, found.at_least) == (products, vectors, False)
    (made_of,) = [visit.output_shapes for path, visit in found.visits.items() if path == "Exp_2"]
    ran = onnx_model(name=str(file))(*given)
    assert [list(ran.shape)] == made_of


def test_bits_of_quantised_attention_are_those_of_its_weights_and_its_scores_apart(tmp_path):
    file, given = graph_of(tmp_path, "QAttention")
    (record,) = [one for one in counted(file, *given).records if one.path == "it"]
    assert record.bit_operations == 2 * 5 * 8 * 24 * 64 + 2 * 5 * 5 * 16 * 1024
    file, given = graph_of(tmp_path, "DynamicQuantizeMatMul")
    (record,) = [one for one in counted(file, *given).records if one.path == "it"]
    assert record.bit_operations == record.macs * 64


def test_attention_packed_into_one_tensor_is_named_and_not_guessed(tmp_path):
    node = helper.make_node("MultiHeadAttention", ["x"], ["y"], domain="com.microsoft", num_heads=2, name="packed")
    file = made(tmp_path, [node], [tensor("x", (2, 5, 2, 3, 4))], [tensor("y", (2, 5, 8))], opset_imports=OPSETS)
    found = counted(file, torch.ones(2, 5, 2, 3, 4))
    assert found.at_least and [row["operator"] for row in found.uncounted] == ["com.microsoft::MultiHeadAttention"]
