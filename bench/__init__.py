"""Waterline: efficiency benchmarks with a unit, an interval, a provenance and a definition for every number."""

from typing import TYPE_CHECKING, Any

from bench.version import __version__

if TYPE_CHECKING:
    from bench.api import (
        across_machines,
        build,
        compare,
        counting_rule,
        curves,
        instances,
        largest_batch,
        layers,
        load,
        measure,
        waterline,
    )
else:

    def __getattr__(name: str) -> Any:
        """A function of the library, imported when it is first asked for: the command line and every Tab do without."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from bench import api

        return getattr(api, name)


#: What the library offers; `dir(bench)` shows this and not the files behind it.
__all__ = [
    "__version__",
    "across_machines",
    "build",
    "compare",
    "counting_rule",
    "curves",
    "instances",
    "largest_batch",
    "layers",
    "load",
    "measure",
    "waterline",
]


def __dir__() -> list[str]:
    return sorted(__all__)
