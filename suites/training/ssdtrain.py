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
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from suites.common.gpt import as_gpt
from suites.training.offload_store import Slot, Store
from suites.training.plain import Wrapped

#: Storages that are fetched ahead; training forwards that the adaptive rule looks at.
AHEAD, PROFILED = 3, 2


class Offloaded(Wrapped):
    """A GPT whose saved activations go to a store while it runs forwards.

    Attributes:
        store: made with the first forward, so that the module travels to other processes.
        block: of the forward, or -1 before the first.
        last: the first block whose activations stay.
        profile: what the adaptive rule looks at, until it has decided; None where it is not asked.
        staying, moved: bytes that the last forward saved and left, and that it gave to the store.
    """

    def __init__(
        self, inner: nn.Module, how: tuple[str, int, float, float | None], kept: int, least: int, adaptive: bool
    ):
        """Nothing has run yet.

        Args:
            inner: a GPT.
            how: what a `Store` is made of.
            kept: last blocks whose activations stay.
            least: elements below which a tensor stays.
            adaptive: whether further blocks may stay.
        """
        super().__init__(inner)
        self.how = how
        self.least, self.block = least, -1
        self.staying, self.moved, self.waited_before = 0, 0, 0.0
        self.profile = Profile(len(inner.blocks)) if adaptive else None  # type: ignore[arg-type]
        self.last = len(inner.blocks) - kept  # type: ignore[arg-type]
        self.store: Store | None = None
        self.slots: list[weakref.ref[Slot]] = []
        for place, block in enumerate(inner.blocks):  # type: ignore[arg-type]
            block.register_forward_pre_hook(_Enter(self, place))

    def __getstate__(self) -> dict[str, Any]:
        profile = None if self.profile is None else Profile(len(self.profile.volumes))
        return {**self.__dict__, "store": None, "slots": [], "profile": profile}

    def context(self) -> Any:
        """Hooks around one forward."""
        if self.store is None:
            self.store = Store(*self.how)
        if self.profile is not None and torch.is_grad_enabled():
            self._decide(self.profile)
        self.block, self.slots = -1, []
        self.staying, self.moved, self.waited_before = 0, 0, self.store.waited
        weights = [*self.inner.parameters(), *self.inner.buffers()]
        session = _Session(self, {part.untyped_storage()._cdata for part in weights})
        return torch.autograd.graph.saved_tensors_hooks(session.pack, session.unpack)

    def saved_elsewhere(self) -> dict[str, Any]:
        """What the last forward saved and gave away, and how long its backward waited for it, for `training_step`."""
        assert self.store is not None
        on_meta = next(self.inner.parameters()).is_meta
        return {
            "saved": self.staying + self.moved,
            "offloaded": self.moved,
            "waited_s": None if on_meta else self.store.waited - self.waited_before,
            "note": "on the meta device nothing is written" if on_meta else self.store.place(),
        }

    def _decide(self, profile: Profile) -> None:
        """Keep from the block that the rule names on, once enough steps have been seen."""
        assert self.store is not None
        if profile.begin():
            wait(profile.writes)  # or a slow store would have no bandwidth yet
            self.last = min(self.last, keep_from(profile.volumes, profile.times(), self.store.bandwidth()))
            self.profile = None


class Profile:
    """Times and volumes of the blocks of the last profiled forward."""

    def __init__(self, blocks: int):
        self.begun, self.volumes, self.entered = 0, [0.0] * blocks, [0.0] * blocks
        self.writes: list[Future[None]] = []

    def begin(self) -> bool:
        """Whether enough forwards were seen; else the next one is."""
        self.begun += 1
        if self.begun > PROFILED:
            return True
        self.volumes = [0.0] * len(self.volumes)
        return False

    def times(self) -> list[float]:
        """Seconds of every block, from its entry to the next one's; the last is taken as long as the one before."""
        found = [after - before for before, after in itertools.pairwise(self.entered)]
        return [*found, found[-1] if found else 1.0]


class _Enter:
    """Notes which block the forward is in, and since when."""

    def __init__(self, owner: Offloaded, place: int):
        self.owner, self.place = owner, place

    def __call__(self, block: nn.Module, inputs: Any) -> None:
        self.owner.block = self.place
        if self.owner.profile is not None:
            self.owner.profile.entered[self.place] = time.perf_counter()


class _Session:
    """Packing and unpacking of one forward and its backward."""

    def __init__(self, owner: Offloaded, weights: set[int]):
        self.owner, self.weights = owner, weights
        self.known: dict[int, weakref.ref[Slot]] = {}
        self.seen: set[int] = set()  # storages that are counted and that the graph keeps alive

    def pack(self, tensor: Tensor) -> Any:
        """The tensor, or its slot with the view that it was."""
        owner, storage = self.owner, tensor.untyped_storage()
        if storage._cdata in self.weights or not tensor.is_floating_point():
            return tensor
        stays = not 0 <= owner.block < owner.last or tensor.numel() < owner.least
        if stays or tensor.is_meta:  # which has nothing to be written, and is counted as if it had
            self._count(storage, stays)
            return tensor
        reference = self.known.get(storage._cdata)
        slot = None if reference is None else reference()
        if slot is None:
            assert owner.store is not None
            slot = Slot(owner.store, next(owner.store.numbers), storage, tensor)
            self.known[storage._cdata] = weakref.ref(slot)
            owner.slots.append(weakref.ref(slot))
            owner.moved += storage.nbytes()
            if owner.profile is not None:
                owner.profile.volumes[owner.block] += storage.nbytes()
                owner.profile.writes.append(slot.written)
        return slot, tensor.storage_offset(), tensor.shape, tensor.stride()

    def _count(self, storage: torch.UntypedStorage, stays: bool) -> None:
        if storage._cdata in self.seen:
            return
        self.seen.add(storage._cdata)
        if stays:
            self.owner.staying += storage.nbytes()
        else:
            self.owner.moved += storage.nbytes()

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
    gb_per_s: Positive | None = None,
    adaptive: bool = False,
) -> nn.Module:
    """The GPT whose activations are written away in the forward and read back in the backward.

    Args:
        model: a GPT of suites.common.gpt.
        store: `ram` keeps them in a dictionary, which costs the hooks and saves nothing; `file` in a temporary folder.
        keep_last: last blocks whose activations stay, since the backward begins there.
        least: elements below which a tensor stays.
        threads: that write and read.
        delay_ms: added to each write and read, to imitate a slow disk.
        gb_per_s: 10^9 bytes a second that writes and reads together are held to; None for no limit.
        adaptive: whether, after two training forwards, activations stay as well from the block on behind which writing
            would not keep up (`keep_from`).

    Raises:
        ValueError: not such a model, or more blocks kept than there are.
    """
    gpt = as_gpt(model, "ssdtrain")
    if keep_last > len(gpt.blocks):
        raise ValueError(f"keep_last={keep_last}: the model has {len(gpt.blocks)} blocks")
    how = (store, threads, delay_ms / 1e3, None if gb_per_s is None else 1e9 * gb_per_s)
    return Offloaded(gpt, how, keep_last, least, adaptive).eval()


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
