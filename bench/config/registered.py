"""Names that an installed package registers with a decorator, read from its sources: nothing of it is imported."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.config.signatures import split_path
from bench.errors import UsageError


@dataclass(frozen=True)
class Registered:
    """What a package registers.

    Attributes:
        names: of functions under the decorator, in alphabetical order.
        retired: older names that the package still takes, from the tables that it hands to `<decorator>_deprecations`.
    """

    names: tuple[str, ...]
    retired: tuple[str, ...]

    def __contains__(self, name: str) -> bool:
        """Whether the package takes this name; a tag after a dot says which weights, and is its own affair."""
        base = name.partition(".")[0]
        return base in self.names or base in self.retired or name in self.retired


@cache
def registered(path: str) -> Registered:
    """What is registered under `package.folder:decorator`.

    Raises:
        UsageError: the package is not installed, or has no such folder; the message says how to install it.
    """
    module, decorator = split_path(path)
    sources = "\n".join(file.read_text(encoding="utf-8") for file in sorted(_folder(module).rglob("*.py")))
    functions = rf"^@{decorator}(?:\([^)]*\))?\s*\n(?:@.*\n)*def (\w+)"
    tables = re.findall(rf"{decorator}_deprecations\(\s*__name__,\s*\{{(.*?)\}}\s*,?\s*\)", sources, re.DOTALL)
    retired = {key for table in tables for key in re.findall(r"""["']([^"']+)["']\s*:""", table)}
    return Registered(tuple(sorted(set(re.findall(functions, sources, re.MULTILINE)))), tuple(sorted(retired)))


def _folder(module: str) -> Path:
    package, *inside = module.split(".")
    spec = importlib.util.find_spec(package)  # of a top-level package: looked for, not run
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"{package} is not installed: python -m pip install {package}")
    folder = Path(next(iter(spec.submodule_search_locations)), *inside)
    if not folder.is_dir():
        raise UsageError(f"{package} has no folder {'/'.join(inside)}: a version of it that is not known here")
    return folder
