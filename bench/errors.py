"""Errors a user can act on: each says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path


class BenchError(Exception):
    """Base of every error shown to the user without a traceback; by itself: what was asked cannot be measured.

    Never 1, which is a verdict: a regression, or a row that does not reproduce.
    """

    exit_code = 3


class DoesNotFit(BenchError):
    """What was to be measured needs more memory than there is."""


class UsageError(BenchError):
    """A wrong name, key, value or combination; nothing has been measured or lost."""

    exit_code = 2


class ResultsError(BenchError):
    """Something is wrong with what is on disk: a locked, unwritable or unreadable results folder."""

    exit_code = 2


def did_you_mean(name: str, available: Iterable[str], *, limit: int = 12) -> str:
    """A clause naming the nearest right spelling and what is available, for the end of an error message.

    Args:
        name: the word that was not found.
        available: the words that would have been right.
        limit: how many available words are listed at most.
    """
    options = sorted(set(available))
    begun = [option for option in options if len(option) > 3 and name.startswith(option)]
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.55) or begun[-1:]
    shown = ", ".join(options[:limit]) + (", ..." if len(options) > limit else "")
    there = f"available: {shown or 'none'}"
    return f'did you mean "{near[0]}"? ({there})' if near else there


def no_such(kind: str, name: str, available: Iterable[str]) -> str:
    """The sentence for a name that a table does not have: what it should be one of, and the nearest."""
    return f'{kind} "{name}" does not exist; {did_you_mean(name, available)}'


def in_user_code(error: BaseException, *, limit: int = 3) -> str | None:
    """The last lines of the user's own code that an error went through, one a line; None if it went through none.

    What is the user's is what lies neither in this package, nor in an installed one, nor in Python's own library.
    """
    own, frames = Path(__file__).resolve().parent, list[str]()
    seen: BaseException | None = error
    while seen is not None and not frames:
        for entry in traceback.extract_tb(seen.__traceback__):
            if _is_users(entry.filename, own):
                line = f": {entry.line}" if entry.line else ""
                frames.append(f"  {entry.filename}, line {entry.lineno}, in {entry.name}{line}")
        seen = seen.__cause__
    return "\n".join(frames[-limit:]) or None


def _is_users(filename: str, own: Path) -> bool:
    path = Path(filename)
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    library = sysconfig.get_paths()["stdlib"]
    internal = filename.startswith("<frozen") or filename.startswith(library)
    return not (installed or internal or path.is_relative_to(own))
