"""TensorRT with stand-ins for its two libraries: what it is asked for, and what is done with what it says."""

import enum
import sys
from types import SimpleNamespace

import pytest
import torch

from bench.backends import tensorrt
from bench.backends.backend import Conditions, ConversionFailed, telling
from bench.backends.graph import Graph

Mode = enum.Enum("Mode", ["INPUT", "OUTPUT"])


class Context:
    """Adds one to what lies at the input's address, as an engine would."""

    def __init__(self, held):
        self.held, self.addresses = held, {}

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        self.held["stream"] = stream
        import ctypes

        source = (ctypes.c_float * 2).from_address(self.addresses["x"])
        into = (ctypes.c_float * 2).from_address(self.addresses["y"])
        for place, value in enumerate(source):
            into[place] = value + 1
        return self.held.get("starts", True)


class Engine:
    num_io_tensors, num_layers, device_memory_size_v2 = 2, 3, 4096

    def __init__(self, held):
        self.held = held

    def get_tensor_name(self, index):
        return "xy"[index]

    def get_tensor_mode(self, name):
        return Mode.INPUT if name == "x" else Mode.OUTPUT

    def get_tensor_shape(self, name):
        return [1, 2]

    def get_tensor_dtype(self, name):
        return SimpleNamespace(name=self.held.get("kind", "FLOAT"))

    def create_execution_context(self):
        return Context(self.held)


@pytest.fixture
def libraries(monkeypatch):
    held = {}

    def build(program, **asked):
        if program == "odd":
            raise RuntimeError("Conversion of function torch.ops.waterline.odd.default not currently supported!")
        held["asked"] = asked
        return b"engine"

    logger = type("Logger", (), {"WARNING": 1, "__init__": lambda self, level: None})
    runtime = lambda _: SimpleNamespace(deserialize_cuda_engine=lambda data: held.get("engine", Engine(held)))  # noqa: E731
    dynamo = SimpleNamespace(convert_exported_program_to_serialized_trt_engine=build)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", SimpleNamespace(dynamo=dynamo))
    fake = SimpleNamespace(Runtime=runtime, Logger=logger, TensorIOMode=Mode)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=77))
    return held


@pytest.mark.parametrize("dtype", ["fp32", "tf32"])
def test_tf32_is_taken_where_the_case_asks_for_it_and_nowhere_else(libraries, tmp_path, dtype):
    x = torch.ones(1, 2)
    tensorrt.write(Graph("program", [x], None, [0]), tmp_path, Conditions(device="cuda", dtype=dtype))
    assert libraries["asked"]["disable_tf32"] is (dtype == "fp32") and libraries["asked"]["use_explicit_typing"] is True
    assert (tmp_path / tensorrt.FILE).read_bytes() == b"engine"
    assert tensorrt.load(tmp_path, [x], Conditions(device="cpu", dtype=dtype)).precision == dtype


def test_the_engine_runs_on_torchs_stream_and_gives_tensors_of_the_callers_own(libraries, tmp_path):
    (tmp_path / tensorrt.FILE).write_bytes(b"engine")
    program = tensorrt.load(tmp_path, [], Conditions(device="cpu"))
    first, second = (program.call([torch.full((1, 2), value)])[0] for value in (1.0, 5.0))
    assert (first.tolist(), second.tolist(), libraries["stream"]) == ([[2, 2]], [[6, 6]], 77)
    assert program.threads is None and program.details["layers"] == 3


def test_an_engine_in_another_type_says_so(libraries, tmp_path):
    libraries["kind"] = "HALF"
    (tmp_path / tensorrt.FILE).write_bytes(b"engine")
    assert tensorrt.load(tmp_path, [], Conditions(device="cpu")).precision == "fp16"


def test_an_operator_that_tensorrt_lacks_is_named(libraries, tmp_path):
    with pytest.raises(ConversionFailed, match=r"operator waterline\.odd"), telling("tensorrt", "conversion"):
        tensorrt.write(Graph("odd", [], None, []), tmp_path, Conditions(device="cuda"))


def test_an_engine_of_another_machine_is_refused(libraries, tmp_path):
    libraries["engine"] = None
    (tmp_path / tensorrt.FILE).write_bytes(b"engine")
    with pytest.raises(RuntimeError, match="another version or for another GPU"):
        tensorrt.load(tmp_path, [], Conditions(device="cpu"))


def test_an_engine_that_does_not_start_is_an_error(libraries, tmp_path):
    libraries["starts"] = False
    (tmp_path / tensorrt.FILE).write_bytes(b"engine")
    with pytest.raises(RuntimeError, match="could not start"):
        tensorrt.load(tmp_path, [], Conditions(device="cpu")).call([torch.ones(1, 2)])
