"""What would tell strangers whose machine it was, and text without it: folders, user and host names."""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.canonical import content_hash

#: Names that say nothing about anybody, or that are words of the records themselves.
ANONYMOUS = frozenset(
    {"root", "user", "users", "admin", "ubuntu", "debian", "runner", "nobody", "localhost", "docker", "max", "torch"}
)
SHORTEST = 3

#: An address on a network (`https://host/...`), whose folders are nobody's; `file:` and `sqlite:` name folders of a
#: machine.
ADDRESS = re.compile(r"\b(?!file:)[A-Za-z][A-Za-z0-9+.-]*://[^\s/'\"<>](?:(?!:/)[^\s'\"<>])*")
#: Where a path may begin: not within a word, a relative path, a closing tag or after a drive, but also right after a
#: compiler's option (`-I/home/...`) and within a list of paths (`/a:/home/...`).
START = r"(?:(?<![\w./~\\<-])(?<!(?<![\w/])[A-Za-z]:)|(?<=[^\w/]-[A-Za-z])|(?<=^-[A-Za-z]))"
_PART = r"[^\s/'\":,;<>()\[\]|]+"

#: The folders of an absolute path, the last part not included; ratios (`a/b`) are not paths, and the system's own
#: folders are the same everywhere.
FOLDERS = re.compile(
    rf"{START}~?/+(?!(?:sys|proc|dev|usr|lib|lib64|etc)/)(?:{_PART}/+)+"
    r"|(?<![\w.:/\\<-])[A-Za-z]:[\\/](?:[^\\/\s'\":,;<>]+[\\/])+"
)
HOME = re.compile(rf"{START}/+(?:home|Users)/+{_PART}")
MARK = ".../"


def without_personal(value: Any, names: Iterable[str] | None = None) -> Any:
    """Plain JSON data whose texts name no folders, users or hosts; `private` parts are dropped.

    Args:
        value: plain JSON types.
        names: user and host names to take out; default those of this machine.
    """
    pattern = _pattern(own_names() if names is None else names)
    return _clean(value, pattern)


def redacted(record: dict[str, Any]) -> dict[str, Any]:
    """The record without personal parts, resealed with its old hash as `redacted_from`; the same if it had none."""
    body = {key: value for key, value in record.items() if key != "content_hash"}
    clean = without_personal(body)
    if clean == body:
        return record
    clean["redacted_from"] = record["content_hash"]
    return {**clean, "content_hash": content_hash(clean)}


def outside_addresses(text: str, change: Callable[[str], str]) -> str:
    """The text with everything changed but addresses on a network."""
    if "://" not in text:
        return change(text)
    parts, end = [], 0
    for found in ADDRESS.finditer(text):
        parts += [change(text[end : found.start()]), found[0]]
        end = found.end()
    return "".join([*parts, change(text[end:])])


def _clean(value: Any, pattern: re.Pattern[str] | None) -> Any:
    if isinstance(value, dict):
        return {key: _clean(item, pattern) for key, item in value.items() if key not in ("private", "uuid")}
    if isinstance(value, list):
        return [_clean(item, pattern) for item in value]
    return _clean_text(value, pattern) if isinstance(value, str) else value


def _clean_text(text: str, pattern: re.Pattern[str] | None) -> str:
    shorter = outside_addresses(text, lambda part: FOLDERS.sub(MARK, HOME.sub("~", part)))
    return pattern.sub("(hidden)", shorter) if pattern else shorter


def own_names() -> tuple[str, ...]:
    """User and host name of this machine, as far as they tell anything."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without an entry in the password file
        user = ""
    host = platform.node()
    return tuple(name for name in {user, host, host.split(".")[0]} if len(name) >= SHORTEST and name not in ANONYMOUS)


def leaks(text: str, folders: Iterable[Path] = ()) -> str | None:
    """The first personal thing in a text: a home folder, one of `folders`, a name of this machine; or `None`."""
    found = HOME.search(ADDRESS.sub(" ", text))
    if found:
        return found[0]
    for folder in folders:
        if len(folder.parts) > 2 and str(folder) in text:
            return str(folder)
    pattern = _pattern(own_names())
    named = pattern.search(text) if pattern else None
    return named[0] if named else None


def _pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """The names wherever no letter or digit makes them part of another word: `jdoe_x` names jdoe as well."""
    words = sorted((re.escape(name) for name in names if name), key=len, reverse=True)
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(words)})(?![^\W_])") if words else None
