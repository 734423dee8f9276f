"""One forward seen operator by operator: what each multiplies, reads and writes, and in which module it runs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from bench.meters.activations import layer_outputs
from bench.meters.hooks import ForwardHooks
from bench.meters.inputs import Batch, layout_of
from bench.meters.operator_record import ModuleVisit, OperatorRecord
from bench.meters.operator_rules import ALLOCATIONS, OperatorRule, rule_of, written_places
from bench.meters.parameters_read import ParameterReads
from bench.meters.products import Call, Product, attention_product, is_sparse, stored_values
from bench.meters.reach import Reached
from bench.meters.value_checks import ValueChecks
from bench.meters.written_out import WrittenOut

_PACKED_NAMES = {16: "float16", 32: "float32"}
_BITS = {torch.bool: 1, torch.quint8: 8, torch.qint8: 8, torch.qint32: 32, torch.quint4x2: 4}


def tensor_bits(tensor: Tensor) -> int:
    """Bits that one element takes where it is multiplied."""
    return _BITS.get(tensor.dtype, tensor.element_size() * 8 if not tensor.is_complex() else tensor.element_size() * 4)


def stored_bytes(tensor: Tensor) -> int:
    """Bytes of the distinct elements: broadcast dimensions once, sparse tensors as values and indices."""
    if is_sparse(tensor):
        return _sparse_bytes(tensor)
    if tensor.is_nested or tensor.layout is not torch.strided:
        return tensor.numel() * tensor.element_size()
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if stride or size == 0:
            elements *= size
    return elements * tensor.element_size()


def _sparse_bytes(tensor: Tensor) -> int:
    if tensor.layout is torch.sparse_coo:
        parts = [tensor._indices(), tensor._values()]
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    else:
        parts = [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return sum(part.numel() * part.element_size() for part in parts)


def plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """The ordinary tensors inside a tensor subclass, or the tensor itself; values only for sparse tensors."""
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        for name in names:
            yield from plain_tensors(getattr(tensor, name))
    elif is_sparse(tensor):
        yield stored_values(tensor)
    else:
        yield tensor


class WeightStorages:
    """Which storages hold weights: parameters, buffers, and what is computed from nothing but them."""

    def __init__(self, reached: Reached) -> None:
        self._fixed: set[int] = set()
        self._sparse: set[int] = set()
        self._derived: dict[int, StorageWeakRef] = {}
        parts = reached.modules
        held = [t for part in parts for t in (*part._parameters.values(), *part._buffers.values()) if t is not None]
        loose = [item.value for item in reached.tensors if isinstance(item.value, nn.Parameter)]
        for tensor in dict.fromkeys([*held, *loose]):
            if is_lazy(tensor):
                continue
            for plain in plain_tensors(tensor):
                self._fixed.add(self.identity(plain))
            if is_sparse(tensor):
                self._sparse.add(id(tensor))

    @staticmethod
    def identity(tensor: Tensor) -> int:
        """A number that tensors of one storage share as long as it lives."""
        try:
            return tensor.untyped_storage()._cdata
        except (NotImplementedError, RuntimeError):
            return -id(tensor)

    def key(self, tensor: Tensor) -> int | None:
        """An identity of the weight behind the tensor, or None if it holds activations."""
        if is_sparse(tensor):
            inner = self.identity(stored_values(tensor))
            return inner if inner in self._fixed else None
        key = self.identity(tensor)
        if key in self._fixed:
            return key
        reference = self._derived.get(key)
        return key if reference is not None and not reference.expired() else None

    def add(self, tensor: Tensor) -> None:
        """Mark a result computed from weights alone (a cast, a dequantisation) as a weight."""
        if is_sparse(tensor) or tensor.layout is not torch.strided:
            return
        storage = tensor.untyped_storage()
        self._derived[storage._cdata] = StorageWeakRef(storage)


#: Allowance for going into or out of a module, torch's hooks and ours included: no work of the network.
_PASSING_S = 1e-4


class ModulePaths(ForwardHooks):
    """The innermost running module, kept by two process-wide hooks that are registered once and removed at the end.

    Process-wide hooks leave every module's own hook lists empty: hooks on modules would switch off the fused
    transformer path, and so change what is counted. `passed` is how often a module was entered or left.
    """

    def __init__(self, module: nn.Module, reached: Reached) -> None:
        self._names = {id(child): name for name, child in module.named_modules()}
        for found in reached.hidden:
            inside = found.value.named_modules()
            self._names |= {id(child): f"{found.path}.{name}".rstrip(".") for name, child in inside}
        self.visits: dict[str, ModuleVisit] = {}
        self._local = threading.local()
        self.inputs: set[int] = set()
        self.batch: Batch | None = None
        self.passed = 0

    @property
    def _stack(self) -> list[tuple[str, int]]:
        """Path and identity of the modules that run in this thread, outermost first."""
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        return self._local.stack

    @property
    def current(self) -> str:
        """Path of the innermost module that runs in this thread; "" is the root."""
        return self._stack[-1][0] if self._stack else ""

    @contextmanager
    def below(self, path: str) -> Iterator[None]:
        """A context in which this thread runs inside the module of that path, as a task of it does."""
        self._stack.append((path, 0))
        try:
            yield
        finally:
            self._stack.clear()

    def name(self, module: nn.Module) -> str:
        """The module's path; one that is not registered anywhere below the root gets its class in brackets."""
        known = self._names.get(id(module))
        return known if known is not None else f"{self.current}.<{type(module).__name__}>".lstrip(".")

    def visit(self, path: str, op: str = "") -> ModuleVisit:
        """The visit record of a path, made at its first mention."""
        if path not in self.visits:
            self.visits[path] = ModuleVisit(path, op, len(self.visits))
        return self.visits[path]

    def enter(self, module: nn.Module, inputs: Any) -> None:
        """Put the module on this thread's stack, and note its first inputs."""
        self.passed += 1
        path = self.name(module)
        self._stack.append((path, id(module)))
        visit = self.visit(path, type(module).__name__)
        visit.calls += 1
        tensors = list(_tensors(inputs))
        if self.batch is None and tensors and id(tensors[0]) in self.inputs:
            self.batch = layout_of(module, tensors[0])
        if visit.calls == 1:
            visit.input_shapes = [_shape(tensor) for tensor in tensors]
            visit.dtype = next((dtype_name(t) for t in tensors if t.is_floating_point()), "")
        if tensors and not tensors[0].is_nested and tensors[0].dim() == 3:
            visit.tokens.append(int(tensors[0].shape[1]))

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Take the module off the stack, and note what it gave."""
        self.passed += 1
        innermost = bool(self._stack) and self._stack[-1][1] == id(module)  # so that a thousand levels stay quick
        if not innermost and id(module) not in (identity for _, identity in self._stack):
            return
        path, identity = self._stack.pop()
        while identity != id(module):  # left without a word, by an exception that is no Exception
            path, identity = self._stack.pop()
        visit = self.visits.get(path)
        if visit is not None and visit.calls == 1:
            visit.output_shapes = [_shape(tensor) for tensor in _output_tensors(output)]


def _output_tensors(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else [t for t in tree_leaves(output) if isinstance(t, Tensor)]


def _shape(tensor: Tensor) -> list[int]:
    return [] if tensor.is_nested else [int(size) for size in tensor.shape]


def dtype_name(tensor: Tensor) -> str:
    """The dtype without its module, such as "float32"."""
    return str(tensor.dtype).removeprefix("torch.")


def _needs_desugaring(tensor: Tensor) -> bool:
    return type(tensor) is not Tensor and is_traceable_wrapper_subclass(tensor)


@dataclass
class Gap:
    """Processor time of this thread between two operators, and the module it was spent in."""

    path: str
    seconds: float


class OperatorTrace(TorchDispatchMode):
    """Records every operator that reaches the dispatcher while it is active.

    The mode itself owns no hooks, so that re-entering it (to take composite operators apart under inference mode) can
    leak none; `ModulePaths` is entered once, outside.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not needed, because compilers are off during a trace; and the wrapper it would bring imports for seconds."""
        return False

    def __init__(
        self,
        paths: ModulePaths,
        weights: WeightStorages,
        values: ValueChecks | None = None,
        parameters: ParameterReads | None = None,
    ) -> None:
        super().__init__()
        self.records: list[OperatorRecord] = []
        self.gaps: list[Gap] = []
        self.phase = "forward"
        self._paths = paths
        self._weights = weights
        self._values = values
        self._parameters = parameters
        self._last_end: float | None = None
        self._passed = 0
        self._composite: dict[Any, bool] = {}
        self._written_out = WrittenOut()
        self._made: set[int] = set()
        self._given: set[int] = set()
        self._overwritten: dict[int, tuple[Any, Any]] = {}
        self.foreign: dict[int, tuple[str, Tensor]] = {}

    def knows(self, tensors: Iterable[Tensor]) -> None:
        """Mark tensors (the inputs) as known: an operand neither known, nor made here, nor a weight is foreign."""
        self._given.update(self._weights.identity(plain) for tensor in tensors for plain in plain_tensors(tensor))
        self._made |= self._given

    @contextmanager
    def in_thread(self, path: str) -> Iterator[None]:
        """A context for another thread, in which what runs is part of this trace, inside the module of that path."""
        twin = type(self)(self._paths, self._weights, self._values, self._parameters)
        shared = ("records", "phase", "foreign", "_written_out", "_made", "_given", "_overwritten")
        vars(twin).update({name: getattr(self, name) for name in shared})
        with self._paths.below(path), twin:
            yield

    def start_clock(self) -> None:
        """From here on, time that no operator explains is kept as gaps."""
        self._last_end = time.thread_time()

    def stop_clock(self) -> None:
        """Close the gap after the last operator."""
        self._note_gap()
        self._last_end = None

    def _note_gap(self) -> None:
        if self._last_end is not None:
            gap = time.thread_time() - self._last_end - _PASSING_S * (self._paths.passed - self._passed)
            if gap > 1e-3:
                self.gaps.append(Gap(self._paths.current, gap))
        self._passed = self._paths.passed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(t is not Tensor and t is not nn.Parameter for t in types) and _has_wrapper(args, kwargs):
            return NotImplemented
        if not isinstance(func, torch._ops.OpOverload):
            return self._higher_order(func, args, kwargs)
        self._note_gap()
        if self._is_composite(func) and not has_own_layout(args):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        self._keep_what_is_overwritten(func, args, kwargs)
        started = time.perf_counter()
        result = func(*args, **kwargs)
        elapsed = time.perf_counter() - started
        self._record(func, args, kwargs, result, elapsed)
        if self._last_end is not None:
            self._last_end = time.thread_time()
        return result

    def _keep_what_is_overwritten(self, func: Any, args: Any, kwargs: Any) -> None:
        """Copy the storage of a tensor that was there before the forward and is about to be written in place."""
        written = [args[place] for place in written_places(func) if place < len(args)]
        written += [kwargs["out"]] if "out" in kwargs else []
        for tensor in _tensors(written):
            identity = self._weights.identity(tensor)
            outside = identity not in self._made or identity in self._given
            if identity >= 0 and outside and identity not in self._overwritten and tensor.device.type != "meta":
                storage = tensor.untyped_storage()
                self._overwritten[identity] = (storage, storage.clone())

    def put_back(self) -> int:
        """Give tensors that were there before the forward the values they had; how many were written in place."""
        for storage, before in self._overwritten.values():
            if storage.nbytes() == before.nbytes():
                storage.copy_(before)
        return len(self._overwritten)

    def _is_composite(self, func: Any) -> bool:
        known = self._composite.get(func)
        if known is None:
            known = func.namespace != "prim" and torch._C._dispatch_has_kernel_for_dispatch_key(
                func.name(), torch._C.DispatchKey.CompositeImplicitAutograd
            )
            self._composite[func] = known
        return known

    def _higher_order(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A branch is taken and looked into; attention with a score function is counted in full; others are unknown."""
        if self._last_end is not None:
            self._last_end = time.thread_time()  # what leads here is torch preparing to compile, no work of the network
        name = f"higher_order::{getattr(func, '_name', func)}"
        record = OperatorRecord(name, "unknown", self._paths.current, self.phase, "mixed")
        if name == "higher_order::cond":
            record.kind, record.data_dependent = "view", True
            self.records.append(record)
            with self:
                return args[1](*args[3]) if bool(args[0]) else args[2](*args[3])
        result = func(*args, **kwargs)
        if name == "higher_order::flex_attention":
            record.kind, record.dtype = "compute", dtype_name(args[0])
            record.activation_read = sum(stored_bytes(tensor) for tensor in args[:3])
            record.activation_written = stored_bytes(result[0])
            self._count_product(record, attention_product(args[0], args[1], args[2], False, (1, 1)))
        self.records.append(record)
        return result

    def _record(self, func: Any, args: Any, kwargs: Any, result: Any, elapsed: float) -> None:
        rule = rule_of(func)
        if rule.kind == "view":
            record = OperatorRecord(func._schema.name, "view", self._paths.current, self.phase, "")
            # a number read from a buffer (a quantisation scale, say) is the same for every input
            record.data_dependent = rule.data_dependent and self._weights.key(args[0]) is None
            self.records.append(record)
            if record.operator in ALLOCATIONS:
                self._made.add(self._weights.identity(result))
            return
        call = Call(func, args, kwargs, result)
        inputs = list(_tensors(args)) + [t for key, v in kwargs.items() for t in _tensors((v,)) if key != "out"]
        record = OperatorRecord(
            func._schema.name,
            rule.kind,
            self._paths.current,
            self.phase,
            _dtype(inputs, result),
            elapsed_s=elapsed,
            data_dependent=rule.data_dependent or _indexes_by_mask(func, inputs),
        )
        self._count_bytes(record, rule, call, inputs)
        if rule.formula is not None:
            self._count_product(record, rule.formula(call))
            record.activations = layer_outputs(record.operator, call, self._weights.key)
        elif rule.vector is not None:
            record.vector_ops = rule.vector(call)
            if rule.norm is not None:
                _count_norm(record, rule.norm, call)
        if self._values is not None:
            self._values.look(record, call)
        record.elementwise_products = self._written_out.look(record.operator, call)
        self.records.append(record)

    def _count_product(self, record: OperatorRecord, product: Product) -> None:
        record.macs = product.macs
        record.dense_macs = product.dense if product.dense is not None else product.macs
        record.causal_unused_macs = product.causal_unused
        record.weightless_macs = product.weightless
        record.vector_ops = product.vector_ops
        record.norm_macs = 5 * product.norm_elements
        record.norm = "layer_norm" if product.norm_elements else None
        left = product.left_bits or (tensor_bits(product.left) if product.left is not None else 32)
        right = product.right_bits or (tensor_bits(product.right) if product.right is not None else left)
        record.left_bits, record.right_bits = left, right
        if product.left_bits or product.right_bits:
            record.dtype = _packed_dtype(product, left, right)
        record.bit_operations = product.macs * left * right
        record.weight_read += product.weight_bytes
        if product.weight_bytes and self._parameters is not None:
            self._parameters.packed(record.operator)
        for operand in (product.right, product.left):
            if operand is not None:
                key = self._weights.key(operand)
                if key is not None:
                    if self._values is not None:
                        self._values.weight(key, operand, record)
                    break
                self._note_foreign(operand)

    def _note_foreign(self, operand: Tensor) -> None:
        """Keep an operand that was there before the forward and is neither a weight nor an input."""
        identity = self._weights.identity(operand)
        plain = operand.layout is torch.strided and not operand.is_nested and type(operand) is Tensor
        if plain and identity not in self._made and identity not in self.foreign:
            self.foreign[identity] = (self._paths.current, operand)

    def _count_bytes(self, record: OperatorRecord, rule: OperatorRule, call: Call, inputs: list[Tensor]) -> None:
        written = [call.args[i] for i in rule.written if i < len(call.args)]
        mutated = {id(tensor) for tensor in _tensors(tuple(written))}
        results = list(_tensors((call.out,)))
        fresh = [tensor for tensor in results if id(tensor) not in mutated]
        targets = fresh + list(_tensors(tuple(written)))
        only_weights = bool(inputs)
        seen: set[int] = set()
        for position, tensor in enumerate(inputs):
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            is_weight = self._weights.key(tensor) is not None
            only_weights = only_weights and is_weight
            if rule.reads == "none" or (rule.overwritten and id(tensor) in mutated):
                continue
            size = stored_bytes(tensor)
            picked = results if rule.reads == "result" and position == 0 else []
            if picked:
                size = min(size, sum(stored_bytes(result) for result in picked))
            if is_weight:
                record.weight_read += size
                self._note_read(record, tensor, position, call, picked)
            else:
                record.activation_read += size
        if rule.kind != "view":
            self._made.update(self._weights.identity(tensor) for tensor in fresh)
        for tensor in targets:
            if self._weights.key(tensor) is not None and id(tensor) in mutated:
                record.weight_written += stored_bytes(tensor)
            else:
                record.activation_written += stored_bytes(tensor)
        if only_weights and rule.kind in ("vector", "move"):
            for tensor in fresh:
                self._weights.add(tensor)

    def _note_read(
        self, record: OperatorRecord, tensor: Tensor, position: int, call: Call, picked: list[Tensor]
    ) -> None:
        """Tell which parameters an operator read: all of the tensor, or as many as it picked."""
        if self._parameters is not None:
            elements = sum(result.numel() for result in picked)
            self._parameters.read(record.operator, tensor, position, call, elements)


class GuardedTrace(OperatorTrace):
    """The same trace where a compiler is about: it must not look into the mode while it traces a network's function."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_dispatch__(func, types, args, kwargs)


def operator_trace(
    paths: ModulePaths, weights: WeightStorages, values: ValueChecks | None, parameters: ParameterReads | None = None
) -> OperatorTrace:
    """A trace, guarded if something is imported that compiles (the guard itself takes seconds to import)."""
    return (GuardedTrace if compiler_loaded() else OperatorTrace)(paths, weights, values, parameters)


def compiler_loaded() -> bool:
    """Whether this process has imported what compiles functions, or a layer that calls it."""
    return not {"torch._dynamo", "torch.nn.attention.flex_attention"}.isdisjoint(sys.modules)


def _packed_dtype(product: Product, left: int, right: int) -> str:
    """The dtype that packed weights hide: "int8" where both sides are, "float32xint4" where they differ."""
    sides = []
    for bits, given, operand in ((left, product.left_bits, product.left), (right, product.right_bits, product.right)):
        plain = given is None and operand is not None
        sides.append(dtype_name(operand) if plain and operand is not None else _PACKED_NAMES.get(bits, f"int{bits}"))
    return sides[0] if sides[0] == sides[1] else "x".join(sides)


def _count_norm(record: OperatorRecord, norm: str, call: Call) -> None:
    """What fvcore charges: 5 per element with an affine part and 4 without; batch norm in inference 2 and 1."""
    elements = call.args[0].numel()
    record.norm = norm
    affine = call.arg("weight") is not None
    if norm == "batch_norm" and _in_inference(call):
        record.norm_macs = elements * (2 if affine else 1)
    else:
        record.norm_macs = elements * (5 if affine else 4)


def _in_inference(call: Call) -> bool:
    names = {argument.name for argument in call.func._schema.arguments}
    if "training" in names:
        return not call.arg("training")
    return call.func._schema.name.endswith(("no_training", "no_update"))


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _has_wrapper(args: Any, kwargs: Any) -> bool:
    return any(_needs_desugaring(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor))


def has_own_layout(args: Any) -> bool:
    """Nested and mkldnn tensors have kernels of their own for composite operators: taking those apart would fail."""
    return any(t.is_nested or t.layout is torch._mkldnn for t in _tensors(args))  # type: ignore[attr-defined]


def _indexes_by_mask(func: Any, inputs: list[Tensor]) -> bool:
    return func._schema.name == "aten::index" and any(t.dtype is torch.bool for t in inputs[1:])


def _dtype(inputs: list[Tensor], result: Any) -> str:
    """The dtype of the arithmetic; two operands of different kinds are named together and never summed."""
    names = list(dict.fromkeys(dtype_name(t) for t in inputs if t.dim() > 0 or len(inputs) == 1))
    floating = [n for n in names if "float" in n or "complex" in n or "int8" in n]
    names = floating or names
    if not names:
        names = [dtype_name(t) for t in _tensors((result,))][:1]
    return names[0] if len(names) == 1 else "x".join(names[:2])


@contextmanager
def deeper_recursion() -> Iterator[None]:
    """Room for the frames that hooks put between a module and its caller: what recurses without them does with them."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(3 * before)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@contextmanager
def compilers_off() -> Iterator[None]:
    """Run compiled functions and modules eagerly, so that their operators reach the dispatcher one by one."""
    with torch.jit.optimized_execution(False):
        if not compiler_loaded():  # nothing can have been compiled, and importing it takes seconds
            yield
            return
        with torch.compiler.set_stance("force_eager"):
            yield
