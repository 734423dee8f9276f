"""Text that others wrote, as a terminal and a reader may be shown it: what steers them is spelt out instead."""

from __future__ import annotations

import re

#: Control characters (a terminal obeys them), marks that turn the direction of text, line separators, and halves of
#: surrogate pairs, which no output can encode.
_STEERING = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)  # fmt: skip


def escape_controls(text: str) -> str:
    """The text on one line, with every character that would steer a terminal or the reader's eye as `\\x1b` or `\\u202e`."""
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)
