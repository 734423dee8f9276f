"""Text that others wrote, as a terminal and a reader may be shown it: what steers them is spelt out instead."""

from __future__ import annotations

import re

#: Control characters (a terminal obeys them), marks that turn the direction of text, line separators, and halves of
#: surrogate pairs, which no output can encode.
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def escape_controls(text: str) -> str:
    """The text on one line; every character that would steer a terminal or the eye as `\\x1b` or `\\u202e`."""
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def shortened(text: str, most: int = 200) -> str:
    """Text of at most so many characters, for titles and cells: the beginning, a mark, and the end."""
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 5]} ... {text[-end:]}"


def whole_characters(text: str) -> str:
    """The text with halves of surrogate pairs as `\\udc80`, so that every encoding and library takes it."""
    return text.encode("utf-8", "backslashreplace").decode() if not text.isascii() else text
