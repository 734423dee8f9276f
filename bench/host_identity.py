"""Which host a record was made on, without saying which: a digest that only tells equal hosts from others."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

#: Where a Linux host keeps the random number that it was given when it was installed.
_FILES = ("etc/machine-id", "var/lib/dbus/machine-id")
_SALT = b"waterline"


def host_digest(root: Path = Path("/")) -> str | None:
    """A hash that is the same whenever this host is asked; `None` where the host has no number of its own.

    The number itself is random and stays here. With our salt its hash matches that of no other program.

    Args:
        root: where `/etc` and `/var` are looked for.
    """
    for name in _FILES:
        try:
            number = (root / name).read_text(errors="replace").strip()
        except OSError:
            continue
        if re.fullmatch(r"[0-9a-f]{32}", number):
            return hashlib.sha256(_SALT + number.encode()).hexdigest()[:32]
    return None
