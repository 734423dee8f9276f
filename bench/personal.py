"""What would tell strangers whose machine it was, and text without it: folders, user and host names."""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: Names that say nothing about anybody.
ANONYMOUS = frozenset({"root", "user", "users", "admin", "ubuntu", "debian", "runner", "nobody", "localhost", "docker"})
SHORTEST = 3

#: The folders of an absolute path, the last part not included; addresses (`https://...`) and ratios (`a/b`) are not
#: paths, and the system's own folders are the same everywhere.
FOLDERS = re.compile(
    r"(?<![\w.:/\\<-])(?:~?/(?!(?:sys|proc|dev|usr|lib|lib64|etc)/)(?:[^\s/'\":,;<>()\[\]|]+/)+|[A-Za-z]:[\\/](?:[^\\/\s'\":,;<>]+[\\/])+)"
)
HOME = re.compile(r"(?<![\w.:/])/(?:home|Users)/[^\s/'\":,;<>()\[\]|]+")
MARK = ".../"


def without_personal(value: Any, names: Iterable[str] | None = None) -> Any:
    """Plain JSON data whose texts name no folders, users or hosts; `private` parts are dropped.

    Args:
        value: plain JSON types.
        names: user and host names to take out; default those of this machine.
    """
    pattern = _pattern(own_names() if names is None else names)
    return _clean(value, pattern)


def _clean(value: Any, pattern: re.Pattern[str] | None) -> Any:
    if isinstance(value, dict):
        return {key: _clean(item, pattern) for key, item in value.items() if key not in ("private", "uuid")}
    if isinstance(value, list):
        return [_clean(item, pattern) for item in value]
    return _clean_text(value, pattern) if isinstance(value, str) else value


def _clean_text(text: str, pattern: re.Pattern[str] | None) -> str:
    shorter = FOLDERS.sub(MARK, HOME.sub("~", text))
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
    found = HOME.search(text)
    if found:
        return found[0]
    for folder in folders:
        if len(folder.parts) > 2 and str(folder) in text:
            return str(folder)
    pattern = _pattern(own_names())
    named = pattern.search(text) if pattern else None
    return named[0] if named else None


def _pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """The names as whole words."""
    words = sorted((re.escape(name) for name in names if name), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(words)})(?![\w-])") if words else None
