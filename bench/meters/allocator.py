"""glibc's allocator set for one purpose: steady addresses for timing, or giving memory back at once for memory.

The two settings exclude each other. A process is pinned before torch runs anything. One that has measured memory may
be pinned for timing afterwards (to measure energy, say); one that times is never pinned for memory.
"""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Purpose = Literal["timing", "memory"]

# Parameter numbers of mallopt(3) in glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8

_INT_MAX = 2**31 - 1
_SETTINGS: dict[Purpose, dict[int, int]] = {
    "timing": {_MMAP_MAX: 0, _TRIM_THRESHOLD: _INT_MAX, _TOP_PAD: 64 * 2**20, _ARENA_MAX: 1},
    "memory": {_MMAP_THRESHOLD: 64 * 2**10, _MMAP_MAX: _INT_MAX, _TRIM_THRESHOLD: 0, _TOP_PAD: 0, _ARENA_MAX: 1},
}
_REPLACEMENTS = ("jemalloc", "tcmalloc", "mimalloc")


@dataclass(frozen=True)
class Pinned:
    """Whether the thresholds are in force and, if not, why; `settings` are mallopt's parameters by name."""

    purpose: Purpose
    in_force: bool
    reason: str = ""
    settings: tuple[tuple[str, int], ...] = ()

    def as_dict(self) -> dict[str, object]:
        """The state as plain JSON types."""
        return {
            "purpose": self.purpose,
            "in_force": self.in_force,
            "reason": self.reason,
            "settings": dict(self.settings),
        }


class AllocatorConflict(RuntimeError):
    """The process is pinned for timing and may have timed already: it must not be slowed now."""


_state: Pinned | None = None


def pinned() -> Pinned | None:
    """How this process is pinned, or None."""
    return _state


def pin_allocator_for_timing() -> Pinned:
    """No mmap, no trimming, growth in large steps: a warm forward then takes no page faults from malloc."""
    return _pin("timing")


def pin_allocator_for_memory() -> Pinned:
    """Every large block its own mmap, given back when freed: the resident size then follows what is alive.

    Slows a forward by its page faults, so never in a process that times.

    Raises:
        AllocatorConflict: the process is pinned for timing.
    """
    return _pin("memory")


def _pin(purpose: Purpose) -> Pinned:
    global _state  # noqa: PLW0603 -- mallopt is process-wide, and so is the memory of having called it
    if purpose == "memory" and _state is not None and _state.purpose == "timing" and _state.in_force:
        raise AllocatorConflict(f"this process is pinned for {_state.purpose}; use a fresh process for {purpose}")
    _state = _apply(purpose)
    return _state


def _apply(purpose: Purpose) -> Pinned:
    other = _replacement()
    if other:
        return Pinned(purpose, False, f"{other} replaces glibc's malloc; mallopt does not reach it")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return Pinned(purpose, False, f"no mallopt in this C library ({platform.libc_ver()[0] or platform.system()})")
    names = {
        _TRIM_THRESHOLD: "M_TRIM_THRESHOLD",
        _TOP_PAD: "M_TOP_PAD",
        _MMAP_THRESHOLD: "M_MMAP_THRESHOLD",
        _MMAP_MAX: "M_MMAP_MAX",
        _ARENA_MAX: "M_ARENA_MAX",
    }
    refused = [names[number] for number, value in _SETTINGS[purpose].items() if mallopt(number, value) != 1]
    if refused:
        return Pinned(purpose, False, f"mallopt refused {', '.join(refused)}")
    return Pinned(purpose, True, "", tuple((names[number], value) for number, value in _SETTINGS[purpose].items()))


def _replacement() -> str | None:
    """The name of a malloc that is loaded instead of glibc's."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return None
    return next((name for name in _REPLACEMENTS if f"lib{name}" in maps), None)
