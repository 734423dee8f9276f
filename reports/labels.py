"""Names of cases that fit into a legend: long lists of a setting shown by their ends."""

from __future__ import annotations

import re

#: Entries up to which a list is written out.
WRITTEN_OUT = 4
_LIST = re.compile(r"\[([^\[\]]*)\]")


def brief(name: str) -> str:
    """The name with each list of more than `WRITTEN_OUT` entries cut to its first and last: `prune=[197 … 30]`."""
    return _LIST.sub(_ends, name)


def _ends(found: re.Match[str]) -> str:
    entries = [entry.strip() for entry in found[1].split(",")]
    return found[0] if len(entries) <= WRITTEN_OUT else f"[{entries[0]} … {entries[-1]}]"


def brief_each(names: list[str]) -> dict[str, str]:
    """The brief form of every name; those that would come out alike keep their full form."""
    short = {name: brief(name) for name in names}
    taken = list(short.values())
    return {name: form if taken.count(form) == 1 else name for name, form in short.items()}
