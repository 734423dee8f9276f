"""Words that follow a number."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """`1 case`, `3 cases`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def them(count: int) -> str:
    """The pronoun of so many things."""
    return "it" if count == 1 else "them"
