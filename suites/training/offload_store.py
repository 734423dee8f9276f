"""Where activations go: storages by key in a dictionary or in files, written and read by threads."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

#: File systems whose files are in memory.
IN_MEMORY = ("tmpfs", "ramfs")


class Slot:
    """One storage that was written away; dropped from the store with its last holder."""

    def __init__(self, store: Store, key: int, storage: torch.UntypedStorage, like: Tensor):
        self.store, self.key, self.like = store, key, like.new_empty(0)
        self.alive = StorageWeakRef(storage)  # while it is held the address is no other storage's
        self.memory: torch.UntypedStorage | None = storage
        self.fetched: Future[torch.UntypedStorage] | None = None
        self.lock = threading.Lock()
        self.written: Future[None] = store.pool.submit(self._write)
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
                self.fetched = self.store.pool.submit(self.store.get, self.key, self.like.device)

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
        offloaded: bytes written; writing: seconds that threads wrote; read, forwarded: storages taken back; waited:
            seconds that unpacking waited.
    """

    def __init__(self, kind: str, threads: int, delay: float, rate: float | None = None):
        """Nothing is in it yet.

        Args:
            kind: `ram` or `file`.
            threads: that write and read.
            delay: seconds added to each write and read.
            rate: bytes a second that all writes and reads together are held to; None for no limit.
        """
        self.kind, self.delay, self.rate = kind, delay, rate
        self.pool = ThreadPoolExecutor(threads)
        self.numbers = itertools.count()
        self.kept: dict[int, torch.UntypedStorage] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="offload-")) if kind == "file" else None
        if self.folder is not None:
            weakref.finalize(self, shutil.rmtree, self.folder, True)
        self.offloaded, self.writes, self.read, self.forwarded = 0, 0, 0, 0
        self.writing, self.waited = 0.0, 0.0
        self.lock, self.line, self.threads = threading.Lock(), threading.Lock(), threads

    def put(self, key: int, storage: torch.UntypedStorage) -> None:
        """Write a storage."""
        begun = time.perf_counter()
        time.sleep(self.delay)
        if self.folder is None:
            self.kept[key] = storage
        else:
            _bytes(storage).cpu().numpy().tofile(self.folder / str(key))
        self._hold_back(storage.nbytes())
        with self.lock:
            self.offloaded += storage.nbytes()
            self.writes += 1
            self.writing += time.perf_counter() - begun

    def get(self, key: int, device: torch.device) -> torch.UntypedStorage:
        """Read a storage back to where it was."""
        time.sleep(self.delay)
        if self.folder is None:
            found = self.kept[key]
            self._hold_back(found.nbytes())
            return found
        path = self.folder / str(key)
        size = path.stat().st_size
        read = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).clone()
        self._hold_back(size)
        return read.to(device).untyped_storage()

    def _hold_back(self, count: int) -> None:
        """Take as long as so many bytes take at the rate; one line for all threads."""
        if self.rate is not None:
            with self.line:
                time.sleep(count / self.rate)

    def drop(self, key: int) -> None:
        """Forget a storage."""
        self.kept.pop(key, None)
        if self.folder is not None:
            (self.folder / str(key)).unlink(missing_ok=True)

    def bandwidth(self) -> float:
        """Bytes a second that all threads together have written; infinite before the first."""
        seen = self.offloaded * self.threads / self.writing if self.writing else float("inf")
        return seen if self.rate is None else min(seen, self.rate)

    def place(self) -> str:
        """Where it is, in words: files in memory save none."""
        if self.folder is None:
            return "a dictionary in memory, which saves none"
        kind = file_system(self.folder, _mounts())
        return f"files on {kind}{', which is memory and saves none' if kind in IN_MEMORY else ''}"

    def held(self) -> int:
        """Storages that are written and not dropped."""
        return len(self.kept) if self.folder is None else len(list(self.folder.iterdir()))


def file_system(folder: Path, mounts: str) -> str:
    """The kind of file system that a folder is on, by a table of mounts as Linux has it (proc(5), fstab's columns)."""
    found, length = "a file system that is not told", -1
    for line in mounts.splitlines():
        words = line.split()
        if len(words) > 2 and folder.is_relative_to(words[1]) and len(words[1]) >= length:
            found, length = words[2], len(words[1])  # of two on one place the later covers the earlier
    return found


def _mounts() -> str:
    table = Path("/proc/mounts")
    return table.read_text() if table.is_file() else ""


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
