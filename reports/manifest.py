"""Which pages are as they were: a hash of what each was made from, kept beside the site."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.store.records import write_atomically


def digest_of(*parts: Any) -> str:
    """A short hash of plain data."""
    return hashlib.sha256(_AS_JSON.encode(parts).encode()).hexdigest()[:24]


_AS_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str)


WHOLE, BRIEF, OTHER = "whole", "brief", "other"
#: Before the hash of a page that lacks its figures.
_BRIEFLY = "brief "
#: Endings of files that a build makes beside the shared assets.
MADE = (".html", ".js")


@dataclass
class Manifest:
    """Hashes of the last build and of this one; `base` stands for everything that all pages depend on."""

    path: Path
    base: str
    before: dict[str, str] = field(default_factory=dict)
    now: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, base: str) -> Manifest:
        """The manifest of the last build; an unreadable one means that every page is rebuilt."""
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            before = known["pages"] if known.get("base") == base else {}
            stale = dict.fromkeys(known["pages"], "") | before
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            stale = {}
        return cls(path, base, stale)

    def known(self, files: Iterable[str], digest: str) -> str:
        """How all of `files` stand that were made from the same content; remembers them as `WHOLE` for this build.

        `WHOLE` is as they should be, `BRIEF` without their figures, `OTHER` from other content or not all alike.
        """
        named = list(files)
        self.now |= dict.fromkeys(named, digest)
        found = {self.before.get(file, "") for file in named}
        if not digest or len(found) > 1:
            return OTHER
        return {digest: WHOLE, f"{_BRIEFLY}{digest}": BRIEF}.get(found.pop(), OTHER)

    def unfinished(self, files: Iterable[str], digest: str) -> None:
        """Have the next build look at `files` again: they lack their figures, without a digest what they should be."""
        self.now |= dict.fromkeys(files, f"{_BRIEFLY}{digest}" if digest else "")

    def finish(self, out: Path) -> None:
        """Write what this build made and remove the pages of an earlier build that are no longer wanted."""
        for page in self.before.keys() - self.now.keys():
            target = (out / page).resolve()
            if target.is_relative_to(out.resolve()) and target.suffix in MADE:
                target.unlink(missing_ok=True)
        text = json.dumps({"base": self.base, "pages": self.now}, sort_keys=True, separators=(",", ":"))
        write_atomically(self.path, text.encode())
