"""Where the project's own folders are, in a checkout or inside an installed wheel."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from bench.errors import UsageError

PACKAGE = Path(__file__).resolve().parents[1]

#: Folders of users' own suites, separated like PATH.
SUITES_VARIABLE = "BENCH_SUITES"
#: Entry-point group under which an installed package names its suite package.
SUITES_ENTRY_POINT = "bench.suites"


def config_folder() -> Path:
    """The folder of the shared Hydra groups: beside the package in a checkout, inside it in a wheel."""
    for candidate in (PACKAGE.parent / "conf", PACKAGE / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise UsageError(f"conf/config.yaml is neither beside nor inside {PACKAGE}: the installation is incomplete")


def group_names(group: str) -> list[str]:
    """What may be chosen of a Hydra group, as the command line names it: `quick`, and of a folder in it `v2/quick`."""
    folder = config_folder() / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def _bundled_suites() -> list[Path]:
    root = PACKAGE.parent / "suites"
    return sorted(path for path in root.iterdir() if path.is_dir() and _is_suite(path)) if root.is_dir() else []


def _is_suite(folder: Path) -> bool:
    return (folder / "suite.yaml").is_file() or (folder / "catalogue.yaml").is_file()


def _users_suites() -> list[Path]:
    found = []
    for text in filter(None, os.environ.get(SUITES_VARIABLE, "").split(os.pathsep)):
        folder = Path(text).expanduser()
        if not folder.is_dir():
            raise UsageError(f"{SUITES_VARIABLE} names {folder}, which is not a folder")
        inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_suite(path)]
        if not _is_suite(folder) and not inside:
            raise UsageError(f"{SUITES_VARIABLE} names {folder}, which holds no suite.yaml or catalogue.yaml")
        found += [folder] if _is_suite(folder) else inside
    return found


@cache
def _installed_suites() -> tuple[Path, ...]:
    """Suites of installed packages; looking for them reads every distribution there is, so once a process."""
    if not any(_names_suites(path) for path in _listings()):
        return ()
    from importlib.metadata import entry_points  # which takes longer to import than the look above

    found: list[Path] = []
    for entry in entry_points(group=SUITES_ENTRY_POINT):
        package = entry.load()
        found += [Path(folder) for folder in package.__path__ if _is_suite(Path(folder))]
    return tuple(found)


def _listings() -> Iterator[str]:
    """Files that may list entry points: those of unpacked distributions, and archives on the import path."""
    for place in dict.fromkeys(sys.path):
        if os.path.isfile(place):
            yield place
            continue
        with suppress(OSError):  # it is not there, or may not be read
            names = [name for name in os.listdir(place or ".") if name.endswith((".dist-info", ".egg-info"))]
            yield from (os.path.join(place, name, "entry_points.txt") for name in names)


def _names_suites(listing: str) -> bool:
    """Whether a file lists our entry point; an archive may."""
    if not listing.endswith(".txt"):
        return True
    try:
        with open(listing, "rb") as file:
            return SUITES_ENTRY_POINT.encode() in file.read()
    except OSError:
        return False


def suite_folders() -> list[Path]:
    """Every folder that holds a suite or a catalogue: ours, those in BENCH_SUITES, those of entry points.

    Raises:
        UsageError: BENCH_SUITES names something that is not a suite folder.
    """
    return [*_bundled_suites(), *_users_suites(), *_installed_suites()]


def import_roots() -> list[str]:
    """Folders to put on the import path so that suites' and users' dotted paths resolve: their parents and here."""
    parents = [str(folder.resolve().parent) for folder in _users_suites()]
    return list(dict.fromkeys([os.getcwd(), *parents]))


def extend_import_path() -> None:
    """Put `import_roots` on `sys.path`, behind what is there."""
    sys.path.extend(root for root in import_roots() if root not in sys.path)
