"""What the processes of a sweep leave each other: converted networks, within a limit of bytes on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

#: Bytes of artefacts that are kept; an older one that is wanted again is converted again.
LIMIT = 8 * 2**30


def prune(folder: Path, limit: int = LIMIT) -> list[str]:
    """Remove the oldest artefacts until the rest is within the limit; the names of those removed."""
    if not folder.is_dir():
        return []
    found = sorted(folder.iterdir(), key=lambda entry: entry.stat().st_mtime)
    sizes = {entry: sum(path.stat().st_size for path in entry.rglob("*") if path.is_file()) for entry in found}
    removed, total = [], sum(sizes.values())
    for entry in found:
        if total <= limit:
            break
        shutil.rmtree(entry)
        total -= sizes[entry]
        removed.append(entry.name)
    return removed
