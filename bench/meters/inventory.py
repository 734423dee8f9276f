"""Every tensor that a module holds, once: registered, packed, frozen into a graph, or loose in an attribute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from bench.errors import BenchError
from bench.meters.reach import hidden_modules, hidden_tensors
from bench.meters.stored import Extent, covered_bytes, extent, leaves

Kind = Literal["parameter", "packed", "constant", "buffer", "loose"]

#: Kinds that are weights; buffers and tensors outside the registry stand apart.
WEIGHTS: tuple[Kind, ...] = ("parameter", "packed", "constant")


class ParamsError(BenchError):
    """The module's parameters cannot be counted as it stands."""


@dataclass(frozen=True)
class Held:
    """One distinct tensor of a module: under which name, of what kind, and the mask that pruning put on it.

    `stands_for` is what a module says of a buffer of codes in `packed_weights`, a mapping from the buffer's name to the
    number of weights in it (0 for scales and the like): such buffers are weights.
    """

    path: str
    kind: Kind
    tensor: Tensor
    mask: Tensor | None = None
    stands_for: int | None = None

    @property
    def values(self) -> int:
        """Values that it stands for: its elements, unless the module says how many weights its codes are."""
        return self.tensor.numel() if self.stands_for is None else self.stands_for

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Where its bytes are."""
        return tuple(extent(part) for part in leaves(self.tensor))


@dataclass(frozen=True)
class Inventory:
    """Every distinct tensor of a module; `shared` maps the further names of a tensor to the first.

    `opaque` names the compiled objects whose content cannot be read, so that the counts are lower bounds; `hidden` the
    modules with tensors that are reached through plain attributes and not registered.
    """

    held: tuple[Held, ...]
    shared: dict[str, str]
    opaque: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def bytes_of(self, *kinds: Kind) -> int:
        """Bytes of the tensors of these kinds, each byte once."""
        return covered_bytes(e for item in self.held if item.kind in kinds for e in item.extents)

    def elements_of(self, *kinds: Kind) -> int:
        """Values that the tensors of these kinds stand for."""
        return sum(item.values for item in self.held if item.kind in kinds)


def inventory(module: nn.Module) -> Inventory:
    """Every distinct tensor that a module holds, by kind; tensors that share all their bytes are one."""
    first: dict[Any, str] = {}
    kept: list[Held] = []
    shared: dict[str, str] = {}
    for item in _walk(module):
        if isinstance(item.tensor, UninitializedParameter | UninitializedBuffer):
            raise ParamsError(f"{item.path} has no shape before the first input; run the module once and count again")
        parts = item.extents
        key = frozenset(parts) if any(part.stop for part in parts) else id(item.tensor)
        if key in first:
            if first[key] != item.path:
                shared[item.path] = first[key]
        else:
            first[key] = item.path
            kept.append(item)
    hidden = [item.path for item in hidden_modules(module) if any(True for _ in _registered(item.value))]
    return Inventory(tuple(kept), shared, tuple(_opaque(module)), tuple(hidden))


def _registered(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _opaque(module: nn.Module) -> Iterator[str]:
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if _is_compiled_object(value) and not _can_open(value):
                yield f"{path}.{name}".lstrip(".")


def _is_compiled_object(value: Any) -> bool:
    return isinstance(value, torch.ScriptObject) and not isinstance(value, torch._C.ScriptModule)


def _can_open(value: Any) -> bool:
    packed: Any = value
    return _is_compiled_object(value) and bool({"unpack", "__getstate__"} & set(packed._method_names()))


def _walk(module: nn.Module) -> Iterator[Held]:
    """Everything that a module holds: registered tensors first, so that an alias of one is not counted again."""
    paths = _paths(module)
    yield from _parameters(paths)
    for prefix, part in paths:
        for name, value in vars(part).items():
            if _can_open(value):
                for index, tensor in enumerate(_packed_tensors(value)):
                    yield Held(f"{prefix}{name}.{index}", "packed", tensor)
    for prefix, part in paths:
        for name, buffer in part._buffers.items():
            if buffer is not None:
                count = packed_weights(part).get(name)
                yield Held(prefix + name, "buffer" if count is None else "packed", buffer, stands_for=count)
    yield from _outside(module, paths)
    if isinstance(module, torch.jit.ScriptModule):
        yield from _constants(module)


def packed_weights(part: nn.Module) -> Mapping[str, int]:
    """What a module says of its buffers that are weights, by name: how many weights each stands for."""
    said = getattr(part, "packed_weights", None)
    return said if isinstance(said, Mapping) else {}


def _paths(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module with the beginning of its tensors' names, registered ones first."""
    paths = [(f"{path}." if path else "", part) for path, part in module.named_modules()]
    for found in hidden_modules(module):
        inside = found.value.named_modules()
        paths += [(f"{found.path}.{path}." if path else f"{found.path}.", part) for path, part in inside]
    return paths


def _parameters(paths: list[tuple[str, nn.Module]]) -> Iterator[Held]:
    for prefix, part in paths:
        masks = _masks(part)
        for name, parameter in part._parameters.items():
            if parameter is not None:
                yield Held(prefix + name, "parameter", parameter, masks.get(name))


def _outside(module: nn.Module, paths: list[tuple[str, nn.Module]]) -> Iterator[Held]:
    """Tensors in plain attributes, and in what is reached through them."""
    for prefix, part in paths:
        yield from _loose(prefix, part)
    for found in hidden_tensors(module):
        yield Held(found.path, "parameter" if isinstance(found.value, nn.Parameter) else "loose", found.value)


def _masks(module: nn.Module) -> dict[str, Tensor]:
    """By parameter name, the mask that `torch.nn.utils.prune` or a parametrisation multiplies it with."""
    found = {}
    for name, _ in module._parameters.items():
        mask = module._buffers.get(f"{name.removesuffix('_orig')}_mask") if name.endswith("_orig") else None
        if mask is not None:
            found[name] = mask
    if isinstance(module, nn.utils.parametrize.ParametrizationList) and len(module) == 1:
        mask = getattr(module[0], "mask", None)
        if isinstance(mask, Tensor) and "original" in module._parameters:
            found["original"] = mask
    return found


def _packed_tensors(value: Any) -> Iterator[Tensor]:
    """The tensors inside a packed object of torch.ao (weights as quantised tensors, biases as they are)."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, torch.ScriptObject):
        packed: Any = value
        yield from _packed_tensors(packed.unpack() if "unpack" in packed._method_names() else packed.__getstate__())
    elif isinstance(value, tuple | list):
        for member in value:
            yield from _packed_tensors(member)


def _loose(prefix: str, module: nn.Module) -> Iterator[Held]:
    """Tensors in plain attributes, or one level down in lists and dicts: torch does not save or move them."""
    names = [name for name, _ in module._parameters.items()]
    derived = {name.removesuffix(end) for end in ("_orig", "_g") for name in names if name.endswith(end)}
    for name, value in vars(module).items():
        if name in _MODULE_INTERNALS or name in derived:
            continue
        members = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
        for member in members:
            if isinstance(member, Tensor):
                yield Held(prefix + name, "parameter" if isinstance(member, nn.Parameter) else "loose", member)


_MODULE_INTERNALS = frozenset(vars(nn.Module()))


def _constants(module: torch.jit.ScriptModule) -> Iterator[Held]:
    """Tensors that freezing wrote into the graph of a scripted module."""
    graph: Any = module.inlined_graph
    for index, node in enumerate(graph.findAllNodes("prim::Constant")):
        if node.hasAttribute("value") and node.kindOf("value") == "t":
            yield Held(f"graph constant {index}", "constant", node.t("value"))


def held_bytes(held: Iterable[Held]) -> int:
    """Bytes of the whole storages behind these tensors, also where a tensor views only a part."""
    storages = {}
    for item in held:
        for part in leaves(item.tensor):
            storage = part.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())
