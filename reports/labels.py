"""Names of cases that fit into a legend: long lists of a setting shown by their ends."""

from __future__ import annotations

import re

from bench.canonical import BASELINE_METHOD
from bench.plan.case import Case

#: Entries up to which a list is written out.
WRITTEN_OUT = 4
_LIST = re.compile(r"\[([^\[\]]*)\]")


def case_label(case: Case) -> str:
    """What a case is called in its own figure's title: its method, or its model if compared by that."""
    own = case.model_label if case.method == BASELINE_METHOD and case.against else case.method_label
    return brief(own)


def brief(name: str, leading: int = 1) -> str:
    """The name with each list of more than `WRITTEN_OUT` entries cut to its ends: `prune=[197 … 30]`.

    Args:
        name: a case's name.
        leading: how many entries stand before the mark.
    """
    return _LIST.sub(lambda found: _ends(found, leading), name)


def _ends(found: re.Match[str], leading: int) -> str:
    entries = [entry.strip() for entry in found[1].split(",")]
    if len(entries) <= max(WRITTEN_OUT, leading + 1):
        return found[0]
    return f"[{', '.join(entries[:leading])} … {entries[-1]}]"


def brief_each(names: list[str]) -> dict[str, str]:
    """The brief form of every name; those that would come out alike show as many more entries as tell them apart."""
    short = {name: brief(name) for name in names}
    for leading in range(2, max((name.count(",") for name in names), default=0) + 2):
        forms = list(short.values())
        alike = [name for name, form in short.items() if forms.count(form) > 1]
        if not alike:
            break
        short |= {name: brief(name, leading) for name in alike}
    return short
