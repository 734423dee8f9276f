"""What Hydra makes of a command line that it cannot read, in our words and with the nearest right name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from bench.config.overrides import as_word
from bench.config.paths import config_folder, group_names
from bench.errors import did_you_mean, no_such

#: How to write what Hydra's grammar gives a meaning of its own.
IN_QUOTES = "put an override that holds ( ) = , # ~ or a blank in quotes twice, as in 'model=\"nets:Net(width=4)\"'"
#: Keys that are still read and never proposed: another one says the same.
OLDER = ("retry_failed",)


def _groups(suites: Iterable[str]) -> dict[str, list[str]]:
    from bench.config.catalogue import task_names

    folder = config_folder()
    found = {path.name: group_names(path.name) for path in folder.iterdir() if path.is_dir()}
    return {**found, "suite": sorted(suites), "task": sorted({*found["task"], *task_names()})}


def _known_keys() -> list[str]:
    from bench.config.schema import all_keys

    return [key for key in all_keys() if key not in OLDER]


def explain_hydra(error: Exception, suites: Iterable[str], words: Sequence[str] = ()) -> str:
    """What Hydra complained about in our words, with the nearest right name.

    Args:
        error: what Hydra raised.
        suites: names of the suites that there are.
        words: of the command line.
    """
    text, groups = str(error), _groups(suites)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (
        _value_that_is_none(text)
        or _unquoted_settings(text, words)
        or _name_that_is_none(text, groups)
        or "the command line cannot be read: " + " ".join(lines[:3]) + "; " + IN_QUOTES
    )


def _value_that_is_none(text: str) -> str | None:
    """How to write a value that Hydra's grammar does not take as it stands."""
    if "Config group override must be a string" in text:
        return (
            "suite, protocol, device, executor, tracking, report and task are chosen by name: a word, as in suite=ops"
        )
    several = re.search(r"Ambiguous value for argument '([^'=]+)=([^']*)'", text)
    if several:
        return f"several values are a list: '{several[1]}=[{several[2]}]'; with -m each would be a job of its own"
    odd = re.search(r"LexerNoViableAltException: ([^=\n]+)=(.*)", text)
    if odd:
        return f"a value with signs of its own stands in two pairs of quotes: {as_word(odd[1], odd[2])}"
    function = re.search(r"Unknown function '(\w+)'", text)
    if function:
        return (
            "quote a spec that has settings, or Hydra takes it for a function: "
            f"'suite.methods=[\"{function[1]}(...)\"]'"
        )
    return None


def _unquoted_settings(text: str, words: Sequence[str]) -> str | None:
    """How to write the first override whose value has settings in brackets, where Hydra stumbled over a bracket."""
    if "'('" not in text and "')'" not in text:
        return None
    for word in words:
        key, equals, value = word.partition("=")
        if equals and re.fullmatch(r"[^\"'\[{]*\(.*\)", value):
            return f"a spec that has settings stands in two pairs of quotes: {as_word(key, value)}"
    return None


def _name_that_is_none(text: str, groups: Mapping[str, Sequence[str]]) -> str | None:
    """The nearest right name where a group, a choice or a key does not exist."""
    missing = re.search(r"Could not find '([\w/]+)/([^']*)'", text)
    if missing and missing[1] in groups:
        return no_such(missing[1], missing[2], groups[missing[1]])
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if key and key[1] in groups:
        return f"{key[1]} is chosen by name; {did_you_mean('', groups[key[1]])}"
    key = key or re.search(r"No match in the defaults list.*?'([^'=]+)", text, re.S)
    return f'unknown key "{key[1]}"; {did_you_mean(key[1], _known_keys())}' if key else None
