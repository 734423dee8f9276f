"""Records of a results folder in an order of one's own, each read when it is asked for: none is kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import overload

from bench.store.outline import Head, Record
from bench.store.records import Store


class Stored(Sequence[Record]):
    """Records by the names of their files.

    Args:
        store: the results folder.
        names: of their files; more come by `append` and `add`.
    """

    def __init__(self, store: Store, names: Iterable[str] = ()):
        self._store = store
        self._names = list(names)

    def append(self, record: Record) -> None:
        """Take up a record that is the newest of its case and machine on disk."""
        self.add(record["case_key"], record["machine_key"])

    def add(self, case_key: str, machine_key: str) -> None:
        """Take up the newest record of a case on a machine, if it is still there."""
        self._names += [path.name for path in self._store.attempts(case_key, machine_key)[-1:]]

    def heads(self) -> list[Head]:
        """The heads of the records."""
        return [self._store.head_of(name) for name in self._names]

    def that(self, wanted: Callable[[Head], bool]) -> Stored:
        """Those whose heads are wanted."""
        return Stored(self._store, [name for name in self._names if wanted(self._store.head_of(name))])

    def outlines(self) -> list[Record]:
        """The records without their long parts."""
        return self._store.outlines_of(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, place: int) -> Record: ...

    @overload
    def __getitem__(self, place: slice) -> Stored: ...

    def __getitem__(self, place: int | slice) -> Record | Stored:
        if isinstance(place, slice):
            return Stored(self._store, self._names[place])
        return self._store.read_again(self._names[place])
