"""Short names: long lists of a setting are shown by their ends, except among the conditions on a case's page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

#: Entries up to which a list is written out.
WRITTEN_OUT = 4
_LIST = re.compile(r"\[([^\[\]]*)\]")


def short_name(name: str, leading: int = 1) -> str:
    """The name with each list of more than `WRITTEN_OUT` entries cut to its ends: `prune=[197 … 30]`.

    Args:
        name: of a case, a method or a model, with its settings.
        leading: how many entries stand before the mark.
    """
    return _LIST.sub(lambda found: _ends(found, leading), name)


def _ends(found: re.Match[str], leading: int) -> str:
    entries = [entry.strip() for entry in found[1].split(",")]
    if len(entries) <= max(WRITTEN_OUT, leading + 1):
        return found[0]
    return f"[{', '.join(entries[:leading])} … {entries[-1]}]"


def short_names(names: Iterable[str]) -> dict[str, str]:
    """The short form of every name; those that would come out alike show as many more entries as tell them apart."""
    listed = list(dict.fromkeys(names))
    short = {name: short_name(name) for name in listed}
    for leading in range(2, max((name.count(",") for name in listed), default=0) + 2):
        forms = Counter(short.values())
        alike = [name for name, form in short.items() if forms[form] > 1]
        if not alike:
            break
        short |= {name: short_name(name, leading) for name in alike}
    return short
