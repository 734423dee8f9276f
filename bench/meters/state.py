"""What a forward changes of its module and inputs, found and restored: caches, counters, buffers, inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence, MutableSet
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.reach import Reached, look, tensors_in

_TABLES = ("_parameters", "_buffers", "_modules")
_DEEPEST = 4
_INPUT = "an input"


@dataclass
class Attributes:
    """The attributes of a module and of all below it, and the members of the containers in them, as they were."""

    own: list[tuple[nn.Module, dict[str, Any], dict[str, dict[str, Any]]]]
    containers: list[tuple[str, Any, Any]]

    @classmethod
    def of(cls, reached: Reached) -> Attributes:
        """A shallow copy: what attributes refer to, not the values of tensors."""
        own, containers = [], []
        for part in reached.modules:
            if isinstance(part, torch.jit.ScriptModule):
                continue  # its attributes live outside Python, where only its own code reaches them
            plain = {name: value for name, value in vars(part).items() if name not in _TABLES}
            own.append((part, plain, {name: dict(getattr(part, name)) for name in _TABLES if name in vars(part)}))
            for name, value in plain.items():
                containers += _containers(name, value, 0)
        return cls(own, containers)

    def changes(self) -> list[str]:
        """Names of attributes that hold another value now, or whose container has other members.

        An attribute that was set again to an equal value (what a forward notes down of itself) is not changed.
        """
        found = []
        for part, plain, tables in self.own:
            found += [name for name, value in plain.items() if not _alike(vars(part).get(name, _GONE), value, 0)]
            found += [name for name in vars(part) if name not in plain and name not in _TABLES]
            for table, before in tables.items():
                found += _replaced(before, getattr(part, table))
        for name, container, members in self.containers:
            now = container if isinstance(members, dict | set) else list(container)
            if not _alike(dict(now) if isinstance(members, dict) else now, members, 0):
                found.append(name)
        return list(dict.fromkeys(found))

    def restore(self) -> None:
        """Make all attributes and containers what they were."""
        for part, plain, tables in self.own:
            inside = vars(part)
            for name in [name for name in inside if name not in plain and name not in _TABLES]:
                del inside[name]
            inside.update(plain)
            for table, before in tables.items():
                if _moved(before, inside[table]):
                    inside[table].clear()
                    inside[table].update(before)
        for _, container, members in self.containers:
            if not _same_members(container, members):
                _refill(container, members)


_GONE = object()


def _alike(now: Any, before: Any, depth: int) -> bool:
    """Whether two values are as good as the same to a forward that reads them."""
    if now is before or depth > _DEEPEST:
        return True
    if type(now) is not type(before):
        return False
    if isinstance(now, str | bytes | int | float | complex | set | frozenset):
        return bool(now == before)
    if isinstance(now, Tensor):
        return _can_copy(now) and _can_copy(before) and _equal(now, before)
    if isinstance(now, list | tuple):
        pairs = list(zip(now, before, strict=False))
        return len(now) == len(before) and all(_alike(a, b, depth + 1) for a, b in pairs)
    mine, others = (
        (value if isinstance(value, Mapping) else getattr(value, "__dict__", {})) for value in (now, before)
    )
    return mine.keys() == others.keys() and all(_alike(mine[key], others[key], depth + 1) for key in mine)


def _moved(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [name for name, value in before.items() if now.get(name, _GONE) is not value]
    return names + [name for name in now if name not in before]


def _replaced(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names in one of torch's tables whose tensor or module has another value now."""
    names = [name for name, value in before.items() if not _alike(now.get(name, _GONE), value, _DEEPEST - 1)]
    return names + [name for name in now if name not in before]


def _containers(name: str, value: Any, depth: int) -> list[tuple[str, Any, Any]]:
    """The mutable containers in an attribute, each with a copy of its members."""
    if depth > _DEEPEST or name.startswith(("_forward_", "_backward_", "_state_dict_", "_load_state_dict_")):
        return []
    if isinstance(value, MutableMapping):
        members: Any = dict(value)
        inner = list(members.values())
    elif isinstance(value, MutableSequence) and not isinstance(value, bytearray):
        members = inner = list(value)
    elif isinstance(value, MutableSet):
        members, inner = set(value), []
    else:
        return []
    found = [(name, value, members)]
    for item in inner:
        if isinstance(item, MutableMapping | MutableSequence | MutableSet) and not isinstance(item, nn.Module):
            found += _containers(name, item, depth + 1)
    return found


def _same_members(container: Any, members: Any) -> bool:
    if len(container) != len(members):
        return False
    if isinstance(members, dict):
        return all(container.get(key, _GONE) is value for key, value in members.items())
    if isinstance(members, set):
        return all(item in container for item in members)
    return all(a is b for a, b in zip(container, members, strict=True))


def _refill(container: Any, members: Any) -> None:
    container.clear()
    (container.extend if isinstance(members, list) else container.update)(members)


@dataclass
class Kept:
    """A module and its inputs as they were: attributes, and the values of buffers, loose tensors and inputs.

    Parameters are told by their version alone: a copy of every weight would cost as much memory as the model.
    """

    attributes: Attributes
    values: list[tuple[str, Tensor, Tensor]]
    weights: list[tuple[str, Tensor, int]]

    @classmethod
    def of(cls, module: nn.Module, args: Any, kwargs: Any) -> Kept:
        """All of it as it is now."""
        reached = look(module)
        buffers = [(name, tensor) for part in reached.modules for name, tensor in part._buffers.items()]
        loose = [(item.path, item.value) for item in reached.tensors]
        given = [(_INPUT, tensor) for tensor in tensors_in((args, kwargs))]
        values = {id(tensor): (name, tensor) for name, tensor in [*buffers, *loose, *given] if _can_copy(tensor)}
        weights: list[tuple[str, Tensor, int]] = [
            (name, p, p._version) for name, p in module.named_parameters() if not p.is_inference()
        ]
        copies = [(name, tensor, tensor.detach().clone()) for name, tensor in values.values()]
        return cls(Attributes.of(reached), copies, weights)

    def changes(self) -> list[str]:
        """What is not as it was, by name."""
        moved = [name for name, tensor, copy in self.values if not _equal(tensor, copy)]
        return list(dict.fromkeys([*self.attributes.changes(), *moved, *self.learned()]))

    def learned(self) -> list[str]:
        """Names of parameters that were written into; `restore` cannot put them back."""
        return [name for name, weight, version in self.weights if weight._version != version]

    def restore_inputs(self) -> None:
        """Put the inputs alone back."""
        with torch.no_grad():
            for name, tensor, copy in self.values:
                if name == _INPUT:
                    tensor.copy_(copy)

    def restore(self) -> None:
        """Put attributes, buffers, loose tensors and inputs back; weights stay as they are."""
        self.attributes.restore()
        with torch.no_grad():
            for _, tensor, copy in self.values:
                tensor.copy_(copy)


def _can_copy(tensor: Any) -> bool:
    plain = isinstance(tensor, Tensor) and type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
    return plain and not tensor.is_meta and not tensor.is_nested and not _repeats(tensor)


def _repeats(tensor: Tensor) -> bool:
    """Whether several elements share a place (an expanded tensor), which nothing can be copied into."""
    return any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _equal(one: Tensor, two: Tensor) -> bool:
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if one.is_floating_point() or one.is_complex():
        return bool(((one == two) | (one.isnan() & two.isnan())).all())
    return torch.equal(one, two)


@contextmanager
def attributes_kept(reached: Reached) -> Iterator[None]:
    """What a module's attributes refer to is afterwards what it was, whatever its forward made of them."""
    before = Attributes.of(reached)
    try:
        yield
    finally:
        before.restore()


@contextmanager
def state_kept(module: nn.Module, args: Any, kwargs: Any) -> Iterator[None]:
    """Attributes, buffers, loose tensors and inputs are afterwards what they were."""
    before = Kept.of(module, args, kwargs)
    try:
        yield
    finally:
        before.restore()
