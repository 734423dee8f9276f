"""Which suites there are: the name of each and its file, read no further than to the name before it is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.config.paths import suite_folders
from bench.config.yaml_file import first_text
from bench.errors import UsageError
from bench.foreign_text import escape_controls

#: What a suite is called: a name that Hydra and file systems give no meaning to.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class Suites(Mapping[str, dict[str, Any]]):
    """What every suite file says, by the suite's name; each is read and checked once, when it is asked for.

    Asking for one raises UsageError where its file is no suite: `bench.config.suites.read_suite`.
    """

    def __init__(self, files: dict[str, Path]):
        self.files = files
        self._read: dict[str, dict[str, Any]] = {}

    def __getitem__(self, name: str) -> dict[str, Any]:
        from bench.config.suites import read_suite

        if name not in self._read:
            self._read[name] = read_suite(self.files[name])
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.files))

    def __len__(self) -> int:
        return len(self.files)


def find_suites(folders: Iterable[Path] | None = None) -> Suites:
    """The suites of these folders, by default of `bench.config.paths.suite_folders`.

    Raises:
        UsageError: two have one name, or a name is none.
    """
    files: dict[str, Path] = {}
    for folder in suite_folders() if folders is None else folders:
        file = folder / "suite.yaml"
        if not file.is_file():
            continue
        name = first_text(file, "name") or folder.name
        if not NAME.fullmatch(name):
            raise UsageError(
                f'{file}: "{escape_controls(name)[:60]}" is no name of a suite: letters, digits, _, - and .'
            )
        if name in files:
            raise UsageError(f'{file}: a suite named "{name}" is already defined in {files[name]}; rename one')
        files[name] = file
    return Suites(files)
