"""What can be reached from a value through its attributes: tensors in a user's own objects, modules in plain lists.

torch sees what is registered: parameters, buffers, submodules. What lies in a list, a dict, an object or a closure is
neither saved, moved nor switched to evaluation, but it runs all the same.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: Values looked at before giving up: what a module refers to can be a whole data set.
MOST_VALUES = 20_000
_DEEPEST = 6
_PLAIN = (
    str, bytes, bytearray, int, float, complex, bool, type(None), type, types.ModuleType, types.CodeType,
    types.BuiltinFunctionType, torch.dtype, torch.device, torch.layout, torch.Size,
)  # fmt: skip
_MODULE_INTERNALS = frozenset(vars(nn.Module()))


@dataclass(frozen=True)
class Found:
    """A tensor or a module, and how it is reached, such as `blocks[2]` or `state.cache['k']`."""

    path: str
    value: Any


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in inputs or outputs: in containers, mappings and the attributes of objects; each once."""
    found = _walk("", value, set(), [MOST_VALUES], 0)
    return [item.value for item in found if isinstance(item.value, Tensor)]


def hidden_modules(module: nn.Module) -> list[Found]:
    """Modules that a module reaches but has not registered, outermost only, in the order of its attributes."""
    return look(module).hidden


def hidden_tensors(module: nn.Module) -> list[Found]:
    """Tensors that a module reaches outside registered parameters and buffers and outside hidden modules."""
    return look(module).tensors


def every_module(module: nn.Module) -> list[nn.Module]:
    """The registered modules, root first, and those of hidden ones."""
    return look(module).modules


@dataclass(frozen=True)
class Reached:
    """What a module reaches at this moment, looked at once for all who ask.

    Attributes:
        modules: as of `every_module`.
        hidden: as of `hidden_modules`.
        tensors: as of `hidden_tensors`.
    """

    modules: list[nn.Module]
    hidden: list[Found]
    tensors: list[Found]


def look(module: nn.Module) -> Reached:
    """What a module reaches, by one walk through its attributes."""
    modules = list(module.modules())
    registered = {id(part) for part in modules}
    hidden: list[Found] = []
    tensors: list[Found] = []
    seen, left = set(registered), [MOST_VALUES]
    for prefix, part in _named(module):
        for item in _attributes(prefix, part, seen, left):
            if isinstance(item.value, Tensor):
                tensors.append(item)
            elif id(item.value) not in registered:
                hidden.append(item)
                inner = list(item.value.modules())
                registered.update(map(id, inner))
                modules += inner
    return Reached(list(dict.fromkeys(modules)), hidden, tensors)


def _named(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((f"{path}." if path else "", part) for path, part in module.named_modules())


def is_training(part: nn.Module) -> bool:
    """Whether a module is in training mode; a frozen script has none."""
    return bool(getattr(part, "training", False))


def _attributes(prefix: str, part: nn.Module, seen: set[int], left: list[int]) -> Iterator[Found]:
    if isinstance(part, torch.jit.ScriptModule):
        return  # compiled code reads what is registered; what Python keeps beside it is torch's own
    names = [name for name, _ in part._parameters.items()]  # a scripted module's table has no other way
    derived = {name.removesuffix(end) for end in ("_orig", "_g") for name in names if name.endswith(end)}
    for name, value in vars(part).items():
        if name not in _MODULE_INTERNALS and name not in derived and not isinstance(value, _PLAIN):
            yield from _walk(prefix + name, value, seen, left, 0)


def _walk(path: str, value: Any, seen: set[int], left: list[int], depth: int) -> Iterator[Found]:
    """The tensors and modules in a value, depth first; modules are not entered."""
    if isinstance(value, _PLAIN) or id(value) in seen or left[0] <= 0 or depth > _DEEPEST:
        return
    left[0] -= 1
    seen.add(id(value))
    if isinstance(value, Tensor | nn.Module):
        yield Found(path, value)
        return
    for name, inner in _members(value):
        if not isinstance(inner, _PLAIN):
            yield from _walk(path + name, inner, seen, left, depth + 1)


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"[{_key(key, place)}]", inner) for place, (key, inner) in enumerate(list(value.items())))
    elif isinstance(value, list | tuple | Set) or type(value).__name__ == "deque":
        yield from ((f"[{index}]", inner) for index, inner in enumerate(list(value)))
    elif isinstance(value, functools.partial):
        yield from (("", inner) for inner in (value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, types.MethodType):
        yield "", value.__self__
        yield "", value.__func__
    elif isinstance(value, types.FunctionType):
        yield from _closure(value)
    else:
        yield from _fields(value)


def _key(key: Any, place: int) -> str:
    """How a key stands in a path: simple ones as written, others by type and place.

    An optimizer's state has parameters as keys, and to print all their numbers costs far more than to count the step.
    """
    return repr(key) if isinstance(key, _PLAIN) else f"{type(key).__name__} {place}"


def _closure(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:  # a variable that is not set yet
            continue
    yield from (("", value) for value in function.__defaults__ or ())


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Attributes of an object, in its dictionary and its slots; read without running its `__getattr__`."""
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        own = {}
    if isinstance(own, dict):
        yield from ((f".{name}", inner) for name, inner in list(own.items()) if isinstance(name, str))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            try:
                yield f".{name}", object.__getattribute__(value, name)
            except AttributeError:
                continue
