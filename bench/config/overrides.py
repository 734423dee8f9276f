"""Overrides as a shell and Hydra take them: for commands that pages and messages tell the user to type."""

from __future__ import annotations

import re
import shlex

#: What Hydra's grammar takes without quotes of its own.
_PLAIN = re.compile(r"[A-Za-z0-9_/.+%*@?|:-]+")
#: What it takes for a number, a truth value or nothing: a key that is all digits stays a text only in quotes.
_NO_TEXT = re.compile(r"[+-]?[0-9_.]+(e[+-]?[0-9_]+)?|[+-]?inf|nan|true|false|null", re.IGNORECASE)


def as_word(key: str, value: str) -> str:
    """`key=value` as one word of a shell's command line, quoted for Hydra where its grammar asks for it."""
    if _PLAIN.fullmatch(value) and not _NO_TEXT.fullmatch(value):
        return shlex.quote(f"{key}={value}")
    inner = re.sub(r'(\\+)(?="|$)', r"\1\1", value).replace('"', r"\"").replace("${", r"\${")
    return shlex.quote(f'{key}="{inner}"')
