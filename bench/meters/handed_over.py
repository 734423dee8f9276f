"""Modules as users hand them over: checked, switched to evaluation and back, initialised, sent to other processes."""

from __future__ import annotations

import copy
import io
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, is_lazy

from bench.errors import BenchError, UsageError, in_user_code
from bench.meters import own_rules
from bench.meters.count_flags import eager_module
from bench.meters.reach import every_module, is_training


def check_module(module: Any) -> None:
    """Raise UsageError, with what to give instead, unless the value is a module."""
    if isinstance(module, nn.Module):
        return
    name = getattr(module, "__name__", type(module).__name__)
    if isinstance(module, type) and issubclass(module, nn.Module):
        raise UsageError(f"{name} is a class: give a module made of it, {name}(...)")
    if type(module).__name__ == "ExportedProgram":
        raise UsageError("an exported program is no module: give what its .module() returns")
    if isinstance(module, dict):
        raise UsageError("a dict of weights is no module: build the module and load them with load_state_dict")
    if isinstance(module, str | Path):
        raise UsageError(
            f"{str(module)!r} is a name, no module: bench.build makes a module of a name, torch.load of a file"
        )
    if callable(module):
        raise UsageError(f"{name} is a function, no module: call it from the forward of a torch.nn.Module")
    raise UsageError(f"a {type(module).__name__} is no torch.nn.Module; give one, or build one with bench.build")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode, those in plain attributes included; each part put back as it was."""
    before = [(part, part.training) for part in every_module(module) if hasattr(part, "training")]
    try:
        evaluate(module)
        yield
    finally:
        for part, training in before:
            part.training = training


def evaluate(module: nn.Module) -> None:
    """Switch a module to evaluation mode, with what it holds in plain attributes; one that refuses stays as it is.

    Exported modules have the mode that they were exported in and refuse any other.
    """
    try:
        module.eval()
    except NotImplementedError:
        return
    for part in every_module(module):
        if is_training(part):
            part.training = False


def initialised(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
    """The module, or, if it has lazy parameters, a copy of it that one forward has given their shapes.

    Raises:
        UsageError: the forward of the copy fails.
    """
    parts = every_module(module)
    lazy = next(
        (
            n
            for part in parts
            for n, p in [*part._parameters.items(), *part._buffers.items()]
            if p is not None and is_lazy(p)
        ),
        None,
    )
    if lazy is None:
        return module
    twin = copy.deepcopy(module, _fresh_buffers(parts))
    try:
        with evaluating(twin), torch.no_grad():
            twin(*args, **kwargs)
    except Exception as error:
        raise UsageError(
            f"{lazy} has no shape before the first input, and a forward of these inputs gives it none "
            f"({type(error).__name__}: {error}); run the module once and measure it then"
        ) from error
    return twin


def _fresh_buffers(parts: list[nn.Module]) -> dict[int, Any]:
    """What `copy.deepcopy` takes in place of lazy buffers, of which torch has no copy: further lazy ones."""
    lazy = [b for part in parts for b in part._buffers.values() if isinstance(b, UninitializedBuffer)]
    made: Any = UninitializedBuffer  # torch's stubs give it the arguments of a parameter
    return {id(b): made(False, b.device, b.dtype) for b in lazy}


@contextmanager
def user_errors(name: str, inputs: Iterable[Any] = ()) -> Iterator[None]:
    """Turn an error of the user's module into a BenchError with its type, message and the user's own lines.

    A module of a library has none; an error of ours that a forward runs into stays what it is.

    Args:
        name: the module's.
        inputs: what its forward gets, for a hint where one is no tensor.
    """
    try:
        yield
    except (BenchError, MemoryError):
        raise
    except Exception as error:
        where = in_user_code(error)
        if where is None and not _is_of_a_forward(error):
            raise
        lines = [f"{name} failed in its forward: {type(error).__name__}: {error}", *_no_tensors(inputs)]
        raise BenchError("\n".join([*lines, *([where] if where else [])])) from error


def _is_of_a_forward(error: Exception) -> bool:
    """Whether an error came out of a library's module, and not out of what we do around it."""
    frames = [Path(entry.filename) for entry in traceback.extract_tb(error.__traceback__)]
    ours = Path(__file__).resolve().parents[1]
    called = any(path.parts[-4:] == ("torch", "nn", "modules", "module.py") for path in frames)
    return called and not frames[-1].is_relative_to(ours)


def _no_tensors(inputs: Iterable[Any]) -> list[str]:
    """What to give in place of inputs that torch's layers do not take."""
    hints = {"ndarray": "an input is a NumPy array: torch.from_numpy makes a tensor of it", "str": "an input is text"}
    return list(dict.fromkeys(hints[type(one).__name__] for one in inputs if type(one).__name__ in hints))


# ---------------------------------------------------------------- to another process
def _settings() -> dict[str, Any]:
    """What this process has set for everything in it, and a forward may rely on."""
    found: dict[str, Any] = {
        "default_dtype": torch.get_default_dtype(),
        "default_device": str(torch.get_default_device()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "recursion_limit": sys.getrecursionlimit(),
    }
    return found


def _set(settings: dict[str, Any]) -> None:
    sys.setrecursionlimit(max(sys.getrecursionlimit(), settings["recursion_limit"]))  # of networks that are that deep
    torch.set_default_dtype(settings["default_dtype"])
    device = settings["default_device"]
    torch.set_default_device(None if device == "cpu" else device)
    torch.use_deterministic_algorithms(settings["deterministic"])
    if settings["matmul_precision"] != torch.get_float32_matmul_precision():
        torch.set_float32_matmul_precision(settings["matmul_precision"])


def write(path: Path, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Write a module and its inputs, with the import path and torch's settings that they live under, to a file.

    Raises:
        Exception: of whatever kind, something cannot be pickled.
    """
    import cloudpickle

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, torch.jit.ScriptModule):
                return _script_from, (_script_bytes(value),)
            if isinstance(value, nn.Module) and eager_module(value) is not value:
                return torch.compile, (eager_module(value),)
            if isinstance(value, torch.fx.GraphModule) and "_guards_fn" in value._modules:
                return _unchanged, (_plain_graph(value),)
            return super().reducer_override(value)

    with path.open("wb") as file:
        paths = [str(Path(entry).resolve()) for entry in sys.path]
        cloudpickle.dump({"import_path": paths, "settings": _settings(), "rules": own_rules.registered()}, file)
        Pickler(file).dump((module, args, kwargs))


def _unchanged(value: Any) -> Any:
    return value


def _plain_graph(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """The graph of an exported module without its checks of the inputs and its notes, which cannot be pickled."""
    graph = copy.deepcopy(module.graph)
    for node in list(graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            graph.erase_node(node)
        else:
            node.meta = {}
    graph._tracer_cls = None
    return torch.fx.GraphModule(module, graph)


def _script_bytes(module: torch.jit.ScriptModule) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()


def _script_from(content: bytes) -> Any:
    return torch.jit.load(io.BytesIO(content))


def apply_settings(path: str) -> None:
    """Take over the import path and torch's settings of the process that wrote the file."""
    import cloudpickle

    with open(path, "rb") as file:  # our own file: the caller handed these objects over in this run
        header = cloudpickle.load(file)
    sys.path.extend(entry for entry in header["import_path"] if entry not in sys.path)
    _set(header["settings"])
    own_rules.take_over(header["rules"])


def read(path: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The module and the inputs that `write` put into the file; `apply_settings` comes first."""
    import cloudpickle

    with open(path, "rb") as file:  # our own file, as above
        cloudpickle.load(file)
        module, args, kwargs = cloudpickle.load(file)
    return module, args, kwargs
