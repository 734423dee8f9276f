"""SSDTrain: activations are written away during the forward and read back in the backward (arXiv 2408.10013).

Hooks on saved tensors pack each once a storage: parameters, buffers, inputs, small tensors and those of the last blocks
stay; others go to a pool of writers. Unpacking takes a tensor whose write is pending from memory (forwarding), else
reads it; the storages written just before it are fetched ahead, as the backward goes. A storage is let go with the last
node of the graph that needs it.

`keep_from` is the adaptive rule: with times t_i and volumes V_i of modules and a bandwidth W, everything from the first
module i with (sum_{j<i} V_j + 2 V_i) / (3 T - 2 sum_{j<i} t_j) > W on is kept.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from bench.config.settings import Count, PositiveInt
from suites.common.gpt import as_gpt
from suites.training.plain import Wrapped

AHEAD = 3


class Slot:
    """One storage that was written away; dropped from the store with its last holder."""

    def __init__(self, store: Store, key: int, storage: torch.UntypedStorage, like: Tensor):
        self.store, self.key, self.like = store, key, like.new_empty(0)
        self.alive = StorageWeakRef(storage)  # while it is held the address is no other storage's
        self.memory: torch.UntypedStorage | None = storage
        self.fetched: Future[torch.UntypedStorage] | None = None
        self.lock = threading.Lock()
        self.written = store.pool.submit(self._write)
        weakref.finalize(self, store.drop, key)

    def _write(self) -> None:
        storage = self.memory
        assert storage is not None
        self.store.put(self.key, storage)
        with self.lock:
            self.memory = None

    def prefetch(self) -> None:
        """Begin to read what has been written, if nobody has begun."""
        with self.lock:
            if self.memory is None and self.fetched is None:
                self.fetched = self.store.pool.submit(self.store.get, self.key)

    def storage(self) -> torch.UntypedStorage:
        """The storage: forwarded where its write is pending, else read."""
        with self.lock:
            if self.memory is not None:
                self.store.forwarded += 1
                return self.memory
        self.prefetch()
        assert self.fetched is not None
        begun = time.perf_counter()
        found = self.fetched.result()
        self.store.waited += time.perf_counter() - begun
        self.store.read += 1
        return found


class Store:
    """Where storages are kept by key: a dictionary (which saves nothing) or files of a temporary folder.

    Attributes:
        offloaded: bytes written; read, forwarded: storages taken back; waited: seconds that unpacking waited.
    """

    def __init__(self, kind: str, threads: int, delay: float):
        self.kind, self.delay = kind, delay
        self.pool = ThreadPoolExecutor(threads)
        self.numbers = itertools.count()
        self.kept: dict[int, torch.UntypedStorage] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="offload-")) if kind == "file" else None
        if self.folder is not None:
            weakref.finalize(self, shutil.rmtree, self.folder, True)
        self.offloaded, self.writes, self.read, self.forwarded, self.waited = 0, 0, 0, 0, 0.0

    def put(self, key: int, storage: torch.UntypedStorage) -> None:
        """Write a storage."""
        time.sleep(self.delay)
        if self.folder is None:
            self.kept[key] = storage
        else:
            _bytes(storage).numpy().tofile(self.folder / str(key))
        self.offloaded += storage.nbytes()
        self.writes += 1

    def get(self, key: int) -> torch.UntypedStorage:
        """Read a storage."""
        time.sleep(self.delay)
        if self.folder is None:
            return self.kept[key]
        path = self.folder / str(key)
        size = path.stat().st_size
        return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).clone().untyped_storage()

    def drop(self, key: int) -> None:
        """Forget a storage."""
        self.kept.pop(key, None)
        if self.folder is not None:
            (self.folder / str(key)).unlink(missing_ok=True)

    def held(self) -> int:
        """Storages that are written and not dropped."""
        return len(self.kept) if self.folder is None else len(list(self.folder.iterdir()))


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage)


class Offloaded(Wrapped):
    """A GPT whose saved activations go to a store while it runs forwards.

    Attributes:
        store: made with the first forward, so that the module travels to other processes.
        block: of the forward, or -1 before the first.
    """

    def __init__(self, inner: nn.Module, kind: str, kept: int, least: int, threads: int, delay: float):
        super().__init__(inner)
        self.how = (kind, threads, delay)
        self.least, self.block = least, -1
        self.last = len(inner.blocks) - kept  # type: ignore[arg-type]
        self.store: Store | None = None
        self.slots: list[weakref.ref[Slot]] = []
        for place, block in enumerate(inner.blocks):  # type: ignore[arg-type]
            block.register_forward_pre_hook(_Enter(self, place))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "store": None, "slots": []}

    def context(self) -> Any:
        """Hooks around one forward."""
        if self.store is None:
            self.store = Store(*self.how)
        self.block, self.slots = -1, []
        weights = [*self.inner.parameters(), *self.inner.buffers()]
        session = _Session(self, {part.untyped_storage()._cdata for part in weights})
        return torch.autograd.graph.saved_tensors_hooks(session.pack, session.unpack)


class _Enter:
    """Notes which block the forward is in."""

    def __init__(self, owner: Offloaded, place: int):
        self.owner, self.place = owner, place

    def __call__(self, block: nn.Module, inputs: Any) -> None:
        self.owner.block = self.place


class _Session:
    """Packing and unpacking of one forward and its backward."""

    def __init__(self, owner: Offloaded, weights: set[int]):
        self.owner, self.weights = owner, weights
        self.known: dict[int, weakref.ref[Slot]] = {}

    def pack(self, tensor: Tensor) -> Any:
        """The tensor, or its slot with the view that it was."""
        owner, storage = self.owner, tensor.untyped_storage()
        stays = not 0 <= owner.block < owner.last or tensor.is_meta or tensor.numel() < owner.least
        if stays or storage._cdata in self.weights or not tensor.is_floating_point():
            return tensor
        reference = self.known.get(storage._cdata)
        slot = None if reference is None else reference()
        if slot is None:
            assert owner.store is not None
            slot = Slot(owner.store, next(owner.store.numbers), storage, tensor)
            self.known[storage._cdata] = weakref.ref(slot)
            owner.slots.append(weakref.ref(slot))
        return slot, tensor.storage_offset(), tensor.shape, tensor.stride()

    def unpack(self, kept: Any) -> Tensor:
        """The tensor as it was."""
        if isinstance(kept, Tensor):
            return kept
        slot, offset, shape, stride = kept
        self._fetch_before(slot)
        with torch.no_grad():
            return slot.like.new_empty(0).set_(slot.storage(), offset, shape, stride)

    def _fetch_before(self, slot: Slot) -> None:
        slots = [found for reference in self.owner.slots if (found := reference()) is not None]
        place = next((place for place, found in enumerate(slots) if found is slot), 0)
        for found in slots[max(0, place - AHEAD) : place]:
            found.prefetch()


def ssdtrain(
    model: nn.Module,
    *,
    store: Literal["ram", "file"] = "file",
    keep_last: Count = 1,
    least: PositiveInt = 2**20,
    threads: PositiveInt = 2,
    delay_ms: Count = 0,
) -> nn.Module:
    """The GPT whose activations are written away in the forward and read back in the backward.

    Args:
        model: a GPT of suites.common.gpt.
        store: `ram` keeps them in a dictionary, which costs the hooks and saves nothing; `file` in a temporary folder.
        keep_last: last blocks whose activations stay, since the backward begins there.
        least: elements below which a tensor stays.
        threads: that write and read.
        delay_ms: added to each write and read, to imitate a slow disk.

    Raises:
        ValueError: not such a model, or more blocks kept than there are.
    """
    gpt = as_gpt(model, "ssdtrain")
    if keep_last > len(gpt.blocks):
        raise ValueError(f"keep_last={keep_last}: the model has {len(gpt.blocks)} blocks")
    return Offloaded(gpt, store, keep_last, least, threads, delay_ms / 1e3).eval()


def keep_from(volumes: Sequence[float], times: Sequence[float], bandwidth: float) -> int:
    """The first module whose activations are kept, and all behind it; as many as there are where all go.

    Args:
        volumes: bytes of each module, in the order of the forward.
        times: of each module's forward, in seconds.
        bandwidth: bytes per second of writing; the backward takes twice the forward.

    Raises:
        ValueError: lists of different lengths.
    """
    if len(volumes) != len(times):
        raise ValueError(f"{len(volumes)} volumes and {len(times)} times: give one of each per module")
    total, written, spent = sum(times), 0.0, 0.0
    for place, (volume, taken) in enumerate(zip(volumes, times, strict=True)):
        if written + 2 * volume > bandwidth * (3 * total - 2 * spent):
            return place
        written += volume
        spent += taken
    return len(volumes)
