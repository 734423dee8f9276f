"""The bytes of tensors that are alive, operator by operator: who allocated them, when they died, and the peak.

A dispatch mode sees every operator's results; a weak reference to each storage tells when it is freed. What comes out
is a log of events, and the peak is computed from the log afterwards, so that a storage can be called an activation
once it is known to leave its module.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.meters.stored import leaves
from bench.meters.threads import ThreadClocks, ThreadsFollowed
from bench.meters.trace import compiler_loaded, compilers_off, deeper_recursion, has_own_layout

Category = Literal["weights", "buffers", "gradients", "optimizer", "inputs", "activations", "temporaries"]
#: What every forward has; a training step has gradients and the state of an optimizer besides.
CATEGORIES: tuple[Category, ...] = ("weights", "buffers", "inputs", "activations", "temporaries")
#: What a network and its training hold between runs, whatever the input is.
LASTING: tuple[Category, ...] = ("weights", "buffers", "gradients", "optimizer")


@dataclass(frozen=True)
class Event:
    """A storage grew or, with negative `size`, was freed, after `operator` (an index) had run."""

    storage: int
    size: int
    operator: int


@dataclass(frozen=True)
class Peak:
    """The largest sum of live bytes, what it was made of, and the operator that reached it (None: before any).

    `passing` is the largest sum of what is not `LASTING`. A training step may reach it at another moment: its gradients
    are not there yet when all that the forward saved is.
    """

    total: int
    split: dict[Category, int]
    operator: int | None
    passing: int


@dataclass
class Trace:
    """What a forward allocated and freed; `operators` holds the name and the module path of each index.

    `named` says of storages that were there at the end what they are, where that is neither an activation nor a
    temporary; `other_threads` that threads which cannot be followed did something meanwhile. `backward_at` is the first
    operator that a backward ran, None without one; operators of a backward are of the module whose forward they undo.
    """

    events: list[Event] = field(default_factory=list)
    operators: list[tuple[str, str]] = field(default_factory=list)
    left_a_module: set[int] = field(default_factory=set)
    named: dict[int, Category] = field(default_factory=dict)
    other_threads: bool = False
    backward_at: int | None = None

    def peak(self, resident: dict[Category, int]) -> Peak:
        """The peak over what was alive all the time (`resident`) and what came and went."""
        return peak(self.events, self.left_a_module, resident, self.named)


def peak(
    events: Iterable[Event],
    activations: set[int],
    resident: dict[Category, int],
    named: Mapping[int, Category] | None = None,
) -> Peak:
    """The first moment with the largest sum of live bytes, by category, and the largest sum of what passes.

    Args:
        events: in order; of an operator below 0 where a storage was there before the first.
        activations: storages that are those.
        resident: bytes of what was alive all the time.
        named: storages of another category; the rest are temporaries.
    """
    named = named or {}
    alive: Counter[int] = Counter()
    total = best = sum(resident.values())
    passing = most = sum(size for name, size in resident.items() if name not in LASTING)
    lasting = {storage for storage, name in named.items() if name in LASTING}
    at, snapshot = None, dict(alive)
    for event in events:
        alive[event.storage] += event.size
        total += event.size
        passing += 0 if event.storage in lasting else event.size
        most = max(most, passing)
        if total > best:
            at = event.operator if event.operator >= 0 else None
            best, snapshot = total, {key: size for key, size in alive.items() if size}
    names: tuple[Category, ...] = tuple(dict.fromkeys([*CATEGORIES, *resident, *named.values()]))
    split: dict[Category, int] = {name: resident.get(name, 0) for name in names}
    for storage, size in snapshot.items():
        split[named.get(storage, "activations" if storage in activations else "temporaries")] += size
    return Peak(best, split, at, most)


class LiveTensors(TorchDispatchMode):
    """Fills a `Trace` while it is active; storages in `known` (by address) are resident and not logged again."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not needed where no compiler was imported; and the wrapper it would bring imports for seconds."""
        return False

    def __init__(self, known: Iterable[int], device: str, paths: dict[int, str]):
        super().__init__()
        self.trace = Trace()
        self._known = set(known)
        self._device = device
        self._paths = paths
        self._local = threading.local()
        self._alive: dict[int, tuple[int, int, weakref.ref[Any]]] = {}
        self._serials = count(1)
        self._forwards: dict[int, str] = {}  # by the number of the autograd node that an operator's forward made

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(hasattr(kind, "__tensor_flatten__") for kind in types):
            return NotImplemented  # a wrapper unpacks itself; its inner operators come back here
        if isinstance(func, torch._ops.OpOverload) and _is_composite(func) and not has_own_layout(args):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        self.trace.operators.append((str(func), self._path_now()))
        result = func(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return result

    def _path_now(self) -> str:
        """Path of the module that the present operator is of: in a backward that of the forward which it undoes.

        Autograd numbers the nodes of a thread as the forward makes them, each before its operator runs.
        """
        node = torch._C._current_autograd_node()
        if node is None:
            self._forwards[torch.autograd._get_sequence_nr() - 1] = self.path
            return self.path
        if self.trace.backward_at is None:
            self.trace.backward_at = len(self.trace.operators)
        return self.path or self._forwards.get(node._sequence_nr(), "")

    def find(self, tensors: Iterable[Tensor]) -> None:
        """Note activations that are there before the run and may be freed during it."""
        for tensor in tensors:
            self._see(tensor)
            self.leave(tensor, entered=False)

    def name(self, category: Category, tensors: Iterable[Tensor]) -> None:
        """Note of tensors that are there after the run what they are."""
        for tensor in tensors:
            for part in leaves(tensor):
                found = self._alive.get(part.untyped_storage()._cdata)
                if found:
                    self.trace.named[found[0]] = category

    def _see(self, tensor: Tensor) -> None:
        for part in leaves(tensor):
            if part.device.type != self._device:
                continue
            storage = part.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in self._known:
                continue
            if key not in self._alive:
                self._alive[key] = (next(self._serials), 0, weakref.ref(storage, self._forget(key)))
            serial, before, reference = self._alive[key]
            if size != before:
                self._alive[key] = (serial, size, reference)
                self._log(serial, size - before)

    def _forget(self, key: int) -> Callable[[Any], None]:
        def freed(_: Any) -> None:
            serial, size, _reference = self._alive.pop(key)
            self._log(serial, -size)

        return freed

    def _log(self, serial: int, size: int) -> None:
        self.trace.events.append(Event(serial, size, len(self.trace.operators) - 1))

    @property
    def _stack(self) -> list[str]:
        """Paths of the modules that run in this thread, outermost first."""
        if not hasattr(self._local, "stack"):
            self._local.stack = [""]
        return self._local.stack

    @property
    def path(self) -> str:
        """Path of the innermost module that runs in this thread."""
        return self._stack[-1]

    @contextmanager
    def in_thread(self, path: str) -> Iterator[None]:
        """A context for another thread, in which what runs belongs to this trace, inside the module of that path."""
        twin = type(self)((), self._device, self._paths)
        twin.trace, twin._known, twin._alive, twin._serials = self.trace, self._known, self._alive, self._serials
        twin._forwards = self._forwards
        twin._stack[:] = [path]
        with twin:
            yield

    def enter(self, module: nn.Module) -> None:
        """Note that the module's forward begins."""
        self._stack.append(self._paths.get(id(module), self._stack[-1]))

    def leave(self, output: Any, *, entered: bool = True) -> None:
        """Note that it ended, and that what it returned is an activation; not `entered`: there was no module."""
        if entered:
            self._stack.pop()
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                for part in leaves(tensor):
                    found = self._alive.get(part.untyped_storage()._cdata)
                    if found:
                        self.trace.left_a_module.add(found[0])


class GuardedLiveTensors(LiveTensors):
    """The same where a compiler is about: it must not look into the mode while it prepares what it would compile."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_dispatch__(func, types, args, kwargs)


def _is_composite(func: Any) -> bool:
    """Whether the operator is made of others, which only inference mode hides."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


@contextmanager
def _module_boundaries(mode: LiveTensors) -> Iterator[None]:
    """Tells the mode when a module's forward begins and ends; not by hooks, which switch torch's fast paths off."""
    original = nn.Module.__call__

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        mode.enter(module)
        output = None
        try:
            output = original(module, *args, **kwargs)
            return output
        finally:
            mode.leave(output)

    nn.Module.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]


@contextmanager
def _no_collection() -> Iterator[None]:
    """The garbage collector off, so that cycles that hold tensors live equally long in every run."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def record(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    known: Iterable[int],
    *,
    found: Callable[[], Iterable[Tensor]] = tuple,
    named: Callable[[], Mapping[Category, Iterable[Tensor]]] = dict,
) -> Trace:
    """The trace of one forward without gradients and without compilers.

    Args:
        module: runs as it is given; threads that it starts or hands tasks to are followed.
        args: positional inputs.
        kwargs: keyword inputs.
        known: addresses of storages that were there before.
        found: gives activations that are there before and may be freed during the run; asked before it.
        named: gives what is of another category than what a forward makes; asked after the run.
    """
    device = _device_of(module, args)
    kind = GuardedLiveTensors if compiler_loaded() else LiveTensors
    mode = kind(known, device, {id(part): path for path, part in module.named_modules()})
    mode.find(found())
    threads, clocks = ThreadsFollowed(lambda: mode.in_thread(mode.path)), ThreadClocks()
    with (
        compilers_off(),
        deeper_recursion(),
        _no_collection(),
        torch.no_grad(),
        _module_boundaries(mode),
        threads,
        mode,
    ):
        module(*args, **kwargs)
    for category, tensors in named().items():
        mode.name(category, tensors)
    mode.trace.other_threads = clocks.moved(threads.idents)
    return mode.trace


def _device_of(module: nn.Module, args: tuple[Any, ...]) -> str:
    for tensor in (*module.parameters(), *module.buffers(), *tree_leaves(args)):
        if isinstance(tensor, Tensor):
            return tensor.device.type
    return "cpu"
