"""Which attempts at which cases a folder holds, known from one look at it.

A sweep asks once or more for every case, and a folder of thousands of records is not to be listed each time. The folder
is listed again where its time of change says that somebody else put something there. That time has a grain of
milliseconds, so two things are looked at in the folder itself at every question: that a file still exists, and whether
there is one more attempt than is known. A writer puts its attempt behind the last one (`Store.write`), so no record of
one is missed.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

_NAME = re.compile(r"(?P<stem>.+?)(?:\.(?P<number>[1-9][0-9]{0,8}))?\.json")


def file_name(stem: str, number: int) -> str:
    """The name of an attempt's file; `stem` is `<case key>.<machine key>`, which the first attempt has alone."""
    return f"{stem}.json" if number == 1 else f"{stem}.{number}.json"


class Attempts:
    """The numbers of the attempts in a folder of records, by the part of a file's name that is case and machine."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._known: dict[str, set[int]] = {}
        self._changed: int | None = None

    def of(self, stem: str) -> list[int]:
        """Numbers of the attempts that are there, in order; the file of the first has no number in its name.

        Args:
            stem: `<case key>.<machine key>`.
        """
        self._refresh()
        known = self._known.get(stem, set())
        found = {number for number in known if self._exists(stem, number)}
        following = max(found, default=0) + 1
        while self._exists(stem, following):
            found.add(following)
            following += 1
        self._known[stem] = found
        return sorted(found)

    def written(self, stem: str, number: int, changed_before: int | None) -> None:
        """Take note of a file that we wrote ourselves, so that it is no reason to list the folder again.

        Args:
            stem: `<case key>.<machine key>`.
            number: of the attempt.
            changed_before: what `changed` said right before it was written.
        """
        self._known.setdefault(stem, set()).add(number)
        if changed_before == self._changed:
            self._changed = self.changed()

    def changed(self) -> int | None:
        """The folder's time of change in nanoseconds; None where no folder is: a writer says what is in its way."""
        try:
            found = os.stat(self.folder)
        except FileNotFoundError:
            return None
        return found.st_mtime_ns if stat.S_ISDIR(found.st_mode) else None

    def _exists(self, stem: str, number: int) -> bool:
        return (self.folder / file_name(stem, number)).exists()

    def _refresh(self) -> None:
        """List the folder if it has changed; the time is read first, so that a later change is seen next time."""
        changed = self.changed()
        if changed == self._changed:
            return
        known: dict[str, set[int]] = {}
        if changed is not None:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    _note(known, entry.name)
        self._known, self._changed = known, changed


def _note(known: dict[str, set[int]], name: str) -> None:
    """Put a file among the attempts, under both readings of its name where a machine's key could end in a number."""
    if not name.endswith(".json"):
        return
    known.setdefault(name.removesuffix(".json"), set()).add(1)
    found = _NAME.fullmatch(name)
    if found and found["number"] and int(found["number"]) > 1:
        known.setdefault(found["stem"], set()).add(int(found["number"]))
