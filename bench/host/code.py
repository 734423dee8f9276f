"""Which code measures: version, commit, and whether the checkout was changed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from bench.version import __version__

#: The checkout, where the instrument runs from one.
ROOT = Path(__file__).resolve().parents[2]


def code_version() -> dict[str, Any]:
    """Version of the instrument, with commit and state if it runs from a checkout.

    Its keys are version, commit (None outside a checkout), dirty (None likewise).
    """
    unknown = {"version": __version__, "commit": None, "dirty": None}
    if not (ROOT / ".git").exists():
        return unknown
    try:
        commit = _git("rev-parse", "HEAD")
        dirty = bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return unknown
    return {"version": __version__, "commit": commit, "dirty": dirty}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()
