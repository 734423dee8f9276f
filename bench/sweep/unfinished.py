"""What a killed sweep left of its work: probes and half-timed sessions, used again only where they would be made alike.

They belong to one version of the instrument and to one state of their cases. A case that has got a record since has
moved on, and what was measured before that record is past; a record that only tells of an interruption changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.analysis.session import Invocation
from bench.canonical import digest
from bench.plan.case import Case
from bench.store.foreign import CorruptRecord, checked, faults, read_json
from bench.store.records import Store
from bench.worker.results import InvocationFields, ProbeFields

#: Says what a session is of, beside its samples.
SESSION = "session.json"


class Unfinished:
    """The probes and sessions of a results folder that can be continued.

    Args:
        store: the results folder.
        machine_key: key of this machine.
        producer: what has to be equal for a probe or a session to be used again: version of the instrument and meters.
        save: writes JSON to a path.
    """

    def __init__(self, store: Store, machine_key: str, producer: dict[str, Any], save: Callable[[Path, Any], None]):
        self._store, self._machine_key, self._producer, self._save = store, machine_key, producer, save

    def _last_final_hash(self, case_key: str) -> str | None:
        return self._store.last_final_hash(case_key, self._machine_key)

    def probe(self, case: Case) -> dict[str, Any] | None:
        """The case's probe, if it was made by this version and no record has been written since."""
        saved = _readable(self._probe_path(case))
        if any(True for _ in faults(ProbeFields, saved)):
            return None
        same = saved.get("maker") == self._producer and saved.get("settled") == self._last_final_hash(case.key)
        return saved if saved and same else None

    def keep_probe(self, case: Case, result: dict[str, Any]) -> None:
        """Write a case's probe down."""
        self._save(
            self._probe_path(case), {**result, "maker": self._producer, "settled": self._last_final_hash(case.key)}
        )

    def _probe_path(self, case: Case) -> Path:
        return self._store.probes / f"{case.key}.{self._machine_key}.json"

    def session(self, group_key: str, baseline: Case, members: Sequence[Case], moment: str) -> tuple[str, Path]:
        """A session of these members and its folder: one that was left, or a new one.

        Args:
            group_key: what the members share.
            baseline: the case that the others are compared with.
            members: the cases that wait for a record.
            moment: now; makes the name of a new session unlike all others.
        """
        facts = {"group": group_key, "machine": self._machine_key, "anchor": baseline.key, "maker": self._producer}
        wanted = {case.key for case in members}
        for folder in self._left.get(group_key, ()):
            saved = _readable(folder / SESSION)
            if all(saved.get(name) == value for name, value in facts.items()) and wanted == self._waiting(saved):
                return folder.name, folder
        session_id = digest([group_key, self._machine_key, sorted(wanted), moment])
        folder = self._store.samples / session_id
        waiting = {key: self._last_final_hash(key) for key in sorted(wanted)}
        self._save(folder / SESSION, {"session": session_id, **facts, "waiting": waiting})
        self._left.setdefault(group_key, []).append(folder)
        return session_id, folder

    @cached_property
    def _left(self) -> dict[str, list[Path]]:
        """Folders of the sessions that were begun, by group; looked at once, for the driver holds the results alone."""
        found: dict[str, list[Path]] = {}
        for file in sorted(self._store.samples.glob(f"*/{SESSION}")):
            found.setdefault(str(_readable(file).get("group")), []).append(file.parent)
        return found

    def _waiting(self, saved: dict[str, Any]) -> set[str]:
        """The members of a session whose record is still to be written."""
        waiting = saved.get("waiting")
        if not isinstance(waiting, dict):
            return set()
        return {key for key, before in waiting.items() if self._last_final_hash(key) == before}


def invocations(folder: Path, problems: list[str]) -> list[Invocation]:
    """What there is of a session, by index; a damaged file is put aside, and its index is free again.

    Args:
        folder: the session's.
        problems: gets a line for each damaged file.
    """
    done: list[Invocation] = []
    for path in sorted(folder.glob("[0-9]*.json.gz")):
        try:
            done.append(checked(InvocationFields, read_json(path), str(path)))
        except CorruptRecord:
            aside = path.with_name(f"{path.name}.corrupt")
            path.rename(aside)
            problems.append(f"{path}: damaged samples, kept as {aside.name} and measured again")
    return sorted(done, key=lambda item: int(item["index"]))


def free_index(taken: Collection[int]) -> int:
    """The lowest index that no invocation has."""
    return next(index for index in range(len(taken) + 1) if index not in taken)


def _readable(path: Path) -> dict[str, Any]:
    """What was written there; nothing if that is damaged or not there, because it can be made again."""
    try:
        saved = read_json(path)
    except CorruptRecord:
        return {}
    return saved if isinstance(saved, dict) else {}
