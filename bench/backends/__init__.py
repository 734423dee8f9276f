"""How a subject is made to run: eagerly, compiled, or converted; one file a backend and one line here.

Names, types and what has to be installed are read without torch; torch and the libraries are imported inside functions.
"""

from __future__ import annotations

from types import ModuleType

from bench import lookup
from bench.backends.backend import Backend, BackendMissing, Conditions
from bench.errors import UsageError

EAGER = "eager"
COMPILE = "compile"

#: Backend -> the module that holds it; a dotted path to a module of one's own is taken as well.
BACKENDS: dict[str, str] = {
    "eager": "bench.backends.eager",
    "compile": "bench.backends.compile",
    "onnxruntime": "bench.backends.onnxruntime",
    "openvino": "bench.backends.openvino",
    "executorch": "bench.backends.executorch",
    "tensorrt": "bench.backends.tensorrt",
}


def module_of(name: str) -> ModuleType:
    """The module of a backend: `BACKEND`, `convert`, and where it has it `why_not`.

    Raises:
        UsageError: there is no such backend, or its module holds none.
    """
    module = lookup.module_of("backend", name, BACKENDS)
    if not isinstance(getattr(module, "BACKEND", None), Backend) or not callable(getattr(module, "convert", None)):
        raise UsageError(f'backend "{name}": the module {module.__name__} has no BACKEND or no convert')
    return module


def find(name: str) -> Backend:
    """What a backend is called and what it needs.

    Raises:
        UsageError: there is no such backend.
    """
    found: Backend = module_of(name).BACKEND
    return found


def why_not(name: str, device: str, dtype: str) -> str:
    """Why a backend cannot run here, with the remedy; "" if it can. Asks its library only if that is installed."""
    module = module_of(name)
    reason: str = module.BACKEND.why_not(device, dtype)
    ask = getattr(module, "why_not", None)
    return reason or (ask(device, dtype) if ask is not None else "")


def require(name: str, conditions: Conditions) -> ModuleType:
    """The module of a backend that can run here.

    Raises:
        UsageError: there is no such backend.
        BackendMissing: it cannot run here, with the reason and the remedy.
    """
    module = module_of(name)
    reason = why_not(name, conditions.device, conditions.dtype)
    if reason:
        raise BackendMissing(reason)
    return module
