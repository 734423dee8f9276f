"""What went wrong with a row, on one line, with the innermost line of the user's own code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from bench.foreign_text import shortened


def one_line(error: Mapping[str, Any]) -> str:
    """What a failed row says on one line: the error's type and message, and the innermost of the user's own lines."""
    lines = str(error.get("message") or "").splitlines() or ["it says no more"]
    kind, frames = str(error.get("type") or ""), [line.strip() for line in lines[1:] if ", line " in line]
    said = f"{kind}: {lines[0]}" if kind and not lines[0].startswith(kind) else lines[0]
    if not frames:
        return said[:200]
    file, _, rest = frames[-1].partition(", line ")
    return f"{said[:200]} ({shortened(os.path.relpath(file), 80)}, line {rest[:120]})"
