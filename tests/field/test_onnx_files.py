"""ONNX files as subjects: counted as torch counts the network they came from, run by ONNX Runtime, refused in words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import bench
from bench.config import catalogue
from bench.errors import UsageError
from bench.meters import macs, params
from bench.plan import plan
from bench.store.records import Store
from suites.common.onnx_bridge import onnx_model
from tests.faults.driver import command, environment
from tests.sweeping import configuration

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - of a package that may be missing

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


class Net(nn.Module):
    """A convolution, attention written out, and a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, stride=2), nn.LayerNorm(8)
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 10)

    def forward(self, images):
        tokens = self.norm(self.stem(images).flatten(2).transpose(1, 2))
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        mixed = torch.softmax(query @ key.transpose(1, 2), dim=-1) @ value
        return self.head(mixed.mean(1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The network, a file of it with an open batch, and inputs."""
    torch.manual_seed(0)
    net, images = Net().eval(), torch.rand(4, 3, 16, 16)
    file = tmp_path_factory.mktemp("ein Ördner") / "net.onnx"
    torch.onnx.export(
        net, (images,), str(file), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False
    )
    return net, file, images


def made(folder, nodes, inputs, outputs, values=(), name="made.onnx", **model):
    """A file of these nodes."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(v.numpy(), k) for k, v in values])
    path = folder / name
    onnx.save(helper.make_model(graph, **{"opset_imports": [helper.make_opsetid("", 21)], **model}), str(path))
    return path


def tensor(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def test_the_same_network_counts_the_same_from_its_file_and_from_torch(exported):
    net, file, images = exported
    held = onnx_model(name=str(file))
    found, right = macs.count(held, (images,)), macs.count(net, (images,))
    assert found.macs == right.macs == 4 * (49 * 27 * 8 + 49 * 8 * 24 + 2 * 49 * 49 * 8 + 8 * 10)
    assert found.conventions["fvcore"] == right.conventions["fvcore"]
    assert found.bit_operations == right.bit_operations
    assert not found.at_least and found.second["agrees"] is None
    assert params.measure(held).total == params.measure(net).total
    torch.testing.assert_close(held(images), net(images))


def test_open_sizes_follow_the_inputs(exported):
    _, file, _ = exported
    held = onnx_model(name=str(file))
    one, three = (macs.count(held, held.example_inputs(batch)).macs for batch in (1, 3))
    assert three == 3 * one


#: Node, sizes of inputs, sizes of weights, and the MACs of one call, by hand.
CASES = {
    "grouped convolution": (("Conv", {"group": 2}), [(1, 4, 6, 6)], [(6, 2, 3, 3)], 6 * 4 * 4 * 2 * 9),
    "transposed convolution": (("ConvTranspose", {}), [(1, 4, 5, 5)], [(4, 3, 2, 2)], 4 * 25 * 3 * 4),
    "gemm of a transposed matrix": (("Gemm", {"transA": 1, "transB": 1}), [(5, 3)], [(7, 5)], 3 * 5 * 7),
    "broadcast product": (("MatMul", {}), [(2, 1, 3, 4)], [(5, 4, 6)], 2 * 5 * 3 * 4 * 6),
    "vector by matrix": (("MatMul", {}), [(4,)], [(4, 6)], 24),
    "einsum": (("Einsum", {"equation": "bhqd,bhkd->bhqk"}), [(2, 3, 4, 5), (2, 3, 6, 5)], [], 2 * 3 * 4 * 6 * 5),
    "LSTM both ways": (
        ("LSTM", {"hidden_size": 3, "direction": "bidirectional"}),
        [(7, 2, 4)],
        [(2, 12, 4), (2, 12, 3)],
        7 * 2 * 2 * 12 * (4 + 3),
    ),
    "GRU": (("GRU", {"hidden_size": 3}), [(7, 2, 4)], [(1, 9, 4), (1, 9, 3)], 7 * 2 * 9 * 7),
}


@pytest.mark.parametrize("name", CASES)
def test_products_of_the_operators_by_hand(tmp_path, name):
    (op, attributes), shapes, weights, right = CASES[name]
    inputs = [tensor(f"x{i}", shape) for i, shape in enumerate(shapes)]
    values = [(f"w{i}", torch.ones(shape)) for i, shape in enumerate(weights)]
    node = helper.make_node(op, [*(i.name for i in inputs), *(k for k, _ in values)], ["y"], **attributes)
    file = made(tmp_path, [node], inputs, [tensor("y", None)], values)
    held = onnx_model(name=str(file))
    given = tuple(torch.ones(shape) for shape in shapes)
    assert macs.count(held, given).macs == right
    assert params.measure(held).total == sum(value.numel() for _, value in values)
    assert held(*given) is not None


def test_attention_of_the_standard_counts_scores_and_sums(tmp_path):
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=4, kv_num_heads=2)
    inputs = [tensor("q", (2, 5, 32)), tensor("k", (2, 7, 16)), tensor("v", (2, 7, 16))]
    opset = [helper.make_opsetid("", 23)]
    file = made(tmp_path, [node], inputs, [tensor("y", None)], opset_imports=opset)
    given = (torch.ones(2, 5, 32), torch.ones(2, 7, 16), torch.ones(2, 7, 16))
    assert macs.count(onnx_model(name=str(file)), given).macs == 2 * 4 * 5 * 7 * (8 + 8)


def test_an_operator_without_a_rule_makes_the_count_a_lower_bound_and_is_named(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Det", ["h"], ["y"])]
    file = made(tmp_path, nodes, [tensor("x", (2, 4, 4))], [tensor("y", None)], [("w", torch.eye(4))])
    found = macs.count(onnx_model(name=str(file)), (torch.ones(2, 4, 4),))
    assert (found.macs, found.at_least) == (2 * 64, True)
    assert "onnx::Det has no rule" in next(f["text"] for f in found.flags if f["code"] == "uncounted_operator")


def test_sizes_that_stop_at_an_unknown_operator_are_said_with_the_node(tmp_path):
    nodes = [
        helper.make_node("Secret", ["x"], ["h"], domain="com.me"),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="last"),
    ]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.me", 1)]
    file = made(
        tmp_path, nodes, [tensor("x", (2, 4))], [tensor("y", None)], [("w", torch.eye(4))], opset_imports=opsets
    )
    with pytest.raises(NotImplementedError, match=r"'h' at the node last \(MatMul\) do not follow from the graph"):
        macs.count(onnx_model(name=str(file)), (torch.ones(2, 4),))


def test_a_product_written_out_is_flagged_as_in_torch(tmp_path):
    nodes = [helper.make_node("Mul", ["x", "w"], ["h"]), helper.make_node("ReduceSum", ["h"], ["y"], keepdims=0)]
    file = made(tmp_path, nodes, [tensor("x", (2, 8))], [tensor("y", None)], [("w", torch.ones(8))])
    found = macs.count(onnx_model(name=str(file)), (torch.ones(2, 8),))
    assert found.macs == 0 and "products_as_elementwise" in {f["code"] for f in found.flags}


def test_running_statistics_and_whole_numbers_are_no_parameters(tmp_path):
    names = ("scale", "shift", "mean", "var")
    nodes = [
        helper.make_node("BatchNormalization", ["x", *names], ["h"]),
        helper.make_node("Reshape", ["h", "shape"], ["y"]),
    ]
    values = [*((name, torch.ones(3)) for name in names), ("shape", torch.tensor([-1]))]
    file = made(tmp_path, nodes, [tensor("x", (1, 3, 2, 2))], [tensor("y", None)], values)
    size = params.measure(onnx_model(name=str(file)))
    assert (size.total, size.buffer_elements) == (6, 7)


def test_examples_take_ids_from_the_table_and_sizes_from_the_command_line(tmp_path):
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    ids = tensor("ids", ("batch", "tokens"), INT64)
    file = made(tmp_path, nodes, [ids], [tensor("y", None)], [("table", torch.ones(5, 3))])
    with pytest.raises(UsageError, match=r'size 1 of the input "ids" is open: say it, made.onnx\(tokens=128\)'):
        onnx_model(name=str(file)).example_inputs(2)
    (found,) = onnx_model(name=str(file), tokens=300).example_inputs(2)
    assert found.shape == (2, 300) and int(found.max()) == 4
    with pytest.raises(UsageError, match="tokens='many' is not valid"):
        onnx_model(name=str(file), tokens="many")


def test_a_fixed_batch_that_is_not_the_rows_is_refused(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    file = made(tmp_path, nodes, [tensor("x", (2, 3))], [tensor("y", (2, 3))])
    with pytest.raises(UsageError, match=r"exported for 2 samples .* take suite.batches=\[2\]"):
        onnx_model(name=str(file)).example_inputs(1)


@pytest.mark.parametrize("content", [b"", b"no protobuf", b"\x08\x07" * 50])
def test_what_is_no_onnx_file_is_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read as an ONNX file"):
        onnx_model(name=str(tmp_path / "x.onnx"))


def test_a_pipe_in_place_of_a_file_does_not_keep_us_waiting(tmp_path):
    os.mkfifo(tmp_path / "x.onnx")
    with pytest.raises(UsageError, match="cannot be read"):
        onnx_model(name=str(tmp_path / "x.onnx"))


def test_values_in_a_file_of_another_name_are_refused_because_no_key_would_cover_them(tmp_path, exported):
    model = onnx.load(str(exported[1]))
    onnx.save(model, str(tmp_path / "net.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(UsageError, match=r'location="net.onnx.data"'):
        onnx_model(name=str(tmp_path / "net.onnx"))


def test_an_edited_file_or_its_values_is_another_case(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"1")
    digest = lambda: catalogue.load().model(str(tmp_path / "a.onnx")).digest  # noqa: E731 - one line is enough
    first = digest()
    assert digest() == first
    (tmp_path / "a.onnx.data").write_bytes(b"2")
    second = digest()
    (tmp_path / "a.onnx").write_bytes(b"3")
    assert len({first, second, digest()}) == 3


@pytest.mark.slow
def test_measure_takes_the_module_of_a_file_and_runs_it_in_its_runtime(exported):
    _, file, images = exported
    module, _ = bench.build(str(file), batch=4)
    frame = bench.measure(module, images, ["params", "macs", "artefact_bytes"])
    values = dict(zip(frame["metric"], frame["value"], strict=True))
    assert values["macs"] == 49 * 27 * 8 + 49 * 8 * 24 + 2 * 49 * 49 * 8 + 8 * 10
    assert values["artefact_bytes"] == sum(path.stat().st_size for path in file.parent.iterdir())
    assert set(frame.long["backend"]) == {"onnxruntime"}


def run(folder, file, *overrides):
    argv = [*command(folder, [str(file)])[:3], *command(folder, [str(file)])[5:], f"model='{file}'", *overrides]
    return subprocess.run(
        argv, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.slow
def test_a_sweep_of_a_file_by_name_measures_it_through_the_runtime(tmp_path, exported):
    _, file, _ = exported
    done = run(tmp_path, file)
    assert done.returncode == 0, done.stderr
    (record,) = Store(tmp_path / "results").iterate()
    assert (record["status"], record["case"]["backend"]) == ("ok", "onnxruntime")
    values = {row["metric"]: row for row in record["readings"]}
    assert values["params"]["value"] == 546
    assert values["latency_ms"]["value"] > 0
    assert values["conversion_ms"]["method_note"] == "nothing is converted: the file is run as it is"
    assert record["conversion"]["agreement"]["relative_error"] < 1e-5
    assert {row["op"] for row in record["layers"]} >= {"Conv", "MatMul", "Softmax"}


def plan_of(folder, file, **axes):
    return plan.make(
        configuration(
            folder,
            [str(file)],
            suite={"name": "tiny", "grids": {"default": [{"models": [str(file)], "methods": ["none"], **axes}]}},
        ),
        catalogue.load(),
    )


def test_another_backend_and_a_file_that_is_not_there_are_refused_by_the_plan(tmp_path, exported):
    assert [case.backend for case in plan_of(tmp_path, exported[1]).cases] == ["onnxruntime"]
    with pytest.raises(UsageError, match="which onnxruntime runs as it is"):
        plan_of(tmp_path, exported[1], backends=["openvino"])
    with pytest.raises(UsageError, match="there is no file or folder"):
        plan_of(tmp_path, tmp_path / "gone.onnx")


@pytest.mark.slow
def test_another_type_than_the_files_is_refused_in_its_row(tmp_path, exported):
    _, file, _ = exported
    done = run(tmp_path, file, "suite.dtypes=[fp64]")
    (record,) = Store(tmp_path / "results").iterate()
    assert record["status"] == "unsupported", done.stderr
    assert "computes in fp32" in record["error"]["message"]


@pytest.mark.slow
def test_planning_and_counting_need_no_runtime_session(tmp_path, exported):
    _, file, _ = exported
    done = run(tmp_path, file, "protocol=counts", "job=run")
    (record,) = Store(tmp_path / "results").iterate()
    assert record["status"] == "ok", done.stderr
    values = {row["metric"]: row["value"] for row in record["readings"]}
    assert values["macs"] == 49 * 27 * 8 + 49 * 8 * 24 + 2 * 49 * 49 * 8 + 8 * 10


def test_without_the_library_the_message_names_the_extra(tmp_path, exported):
    code = f"""
import sys
sys.modules["onnx"] = None
from bench.errors import UsageError
from suites.common.onnx_bridge import onnx_model
try:
    onnx_model(name={str(exported[1])!r})
except UsageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert "waterline-bench[onnx]" in done.stdout
