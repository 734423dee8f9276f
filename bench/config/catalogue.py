"""Models, methods and tasks by name: the union of the `catalogue.yaml` tables of all suite folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bench.canonical import BASELINE_METHOD, digest, parse_settings, settings_text
from bench.config.paths import suite_folders
from bench.config.registered import registered
from bench.config.signatures import check_settings, signature, source_digest, split_path
from bench.config.suite_files import NAME
from bench.config.yaml_file import read_yaml
from bench.errors import UsageError, did_you_mean
from bench.foreign_files import open_regular

#: Parameters that the bench fills in from the case, not from the settings, and where a user sets them.
RESERVED = {"resolution": "suite.resolutions=[...]", "batch": "suite.batches=[...]", "seed": "seed=..."}
#: A parameter of a method that the bench fills in likewise, from the block's workload.
TOLD = "workload"


@dataclass(frozen=True)
class Entry:
    """A registered callable: its dotted path, preset settings, and for a model the task it is trained on.

    Attributes:
        name: as a suite or the command line spells it.
        path: `package.module:Callable`.
        settings: presets.
        task: of a model, the one it is trained on.
        folder: of the suite that registers it.
        is_path: of a prefix, what follows it is a file or folder of the user's.
        or_word: of such a prefix, it may also be a single word that its library knows.
        suffix: of such a prefix, the ending of files that need no prefix.
        backend: what runs it where a suite asks for eager torch, which cannot; "" for a torch module.
        content: the user's file or folder that a model is made of; what it holds belongs to the case.
        names: of a prefix: `package.folder:decorator`, under which a library registers the names that may follow it.
    """

    name: str
    path: str
    settings: dict[str, Any] = field(default_factory=dict)
    task: str | None = None
    folder: Path | None = None
    is_path: bool = False
    or_word: bool = False
    suffix: str = ""
    backend: str = ""
    content: Path | None = None
    names: str | None = None

    @property
    def digest(self) -> str:
        """Hash of the source behind the entry, of its preset settings, and of the user's files that it is made of."""
        if self.content is None:
            return digest([source_digest(self.path), settings_text(self.settings)])
        settings = {name: value for name, value in self.settings.items() if name != "name"}
        return digest([source_digest(self.path), settings_text(settings), content_digest(self.content)])

    def accepts(self, parameter: str) -> bool:
        """Whether the callable takes this keyword."""
        known = signature(self.path)
        return parameter in known.settings


@dataclass(frozen=True)
class Catalogue:
    """All names there are; `prefixes` resolve names such as `timm:vit_small_patch16_224`."""

    models: dict[str, Entry]
    methods: dict[str, Entry]
    tasks: dict[str, Entry]
    prefixes: dict[str, Entry]

    def model(self, name: str) -> Entry:
        """The model of this name, prefix:name, file with an ending that is known, or dotted path.

        Raises:
            UsageError: there is none, with the nearest; or the library behind a prefix is not installed.
        """
        prefix, colon, rest = name.partition(":")
        if colon and prefix in self.prefixes and rest:
            return _prefixed(self.prefixes[prefix], name, rest)
        for entry in self.prefixes.values():
            if entry.suffix and name.endswith(entry.suffix) and name not in self.models:
                return _prefixed(entry, name, name)
        return _find("model", name, self.models)

    def matching(self, pattern: str, among: Iterable[str] = ()) -> list[str]:
        """Models that a pattern with `*` or `?` names, each with the settings that the pattern ends with.

        Args:
            pattern: such as `timm:*lite*` or `lsnet_?(form='fused')`.
            among: specs of a grid; those whose names match come first and keep settings of their own.

        Raises:
            UsageError: nothing matches.
        """
        name, bracket, settings = pattern.strip().partition("(")
        prefix, colon, _ = name.partition(":")
        source = self.prefixes[prefix].names if colon and prefix in self.prefixes else None
        known = [f"{prefix}:{word}" for word in registered(source).names] if source else list(self.models)
        own = [spec for spec in among if not bracket and fnmatchcase(spec.partition("(")[0], name)]
        found = [word + bracket + settings for word in known if fnmatchcase(word, name)]
        if not own and not found:
            raise UsageError(f'no model matches "{name}"; {did_you_mean(name.replace("*", ""), known)}')
        return own + [spec for spec in found if spec not in own]

    def method(self, name: str) -> Entry:
        """The method of this name or dotted path.

        Raises:
            UsageError: there is none; the message names the nearest.
        """
        return _find("method", name, self.methods, extra=(BASELINE_METHOD,))

    def task(self, name: str) -> Entry:
        """The task of this name or dotted path.

        Raises:
            UsageError: there is none; the message names the nearest.
        """
        return _find("task", name, self.tasks)


def _prefixed(entry: Entry, name: str, rest: str) -> Entry:
    """The entry of one name of a prefix.

    Raises:
        UsageError: the name has to be a file or folder, and there is none; or the library behind the prefix is not
            installed or has no such name.
    """
    if entry.names is not None and rest not in registered(entry.names):
        raise UsageError(f'{entry.name} has no model "{rest}"; {did_you_mean(rest, registered(entry.names).names)}')
    if not entry.is_path or (entry.or_word and rest.isidentifier() and not Path(rest).exists()):
        return replace(entry, name=name, settings={**entry.settings, "name": rest})
    place = Path(rest).expanduser().absolute()
    try:
        there = place.is_file() or place.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    if not there:
        raise UsageError(
            f'model "{name}": there is no file or folder {rest}; it is looked for from {Path.cwd()}, and nothing '
            "is downloaded"
        )
    return replace(entry, name=name, settings={**entry.settings, "name": str(place)}, content=place)


def content_digest(place: Path) -> str:
    """Hash of what a file holds, and those beside it whose names begin with its own; of a folder, of all files below.

    Raises:
        UsageError: a file cannot be read, or it is no regular one.
    """
    if place.is_dir():
        files = [path for path in place.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(place))]
    else:
        files = [path for path in place.parent.iterdir() if path.name.startswith(place.name) and path.is_file()]
    rows = []
    for path in sorted(files):
        try:
            with open_regular(path) as file:
                rows.append([str(path.relative_to(place.parent)), hashlib.file_digest(file, "sha256").hexdigest()])
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    first = len(place.name)  # what the file or folder is called does not matter
    return digest([[name[first:], value] for name, value in rows])


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _find(kind: str, name: str, table: dict[str, Entry], extra: tuple[str, ...] = ()) -> Entry:
    if name in table:
        return table[name]
    if ":" in name:
        signature(name)  # says now if the module or the name does not exist
        return Entry(name, name)
    raise UsageError(f'{kind} "{name}" is not in the catalogue; {_meant(name, [*table, *extra])}')


def _meant(name: str, known: Iterable[str]) -> str:
    """What was probably meant: a name of the catalogue, or the path of one's own that lacks its colon."""
    module, dot, attribute = name.rpartition(".")
    if dot and module and attribute.isidentifier():
        return f"a path of your own has a colon before its last name: {module}:{attribute}"
    return did_you_mean(name, known)


def parse_spec(text: str) -> tuple[str, dict[str, Any]]:
    """Name and settings of `name` or `name(setting=value, ...)`; values are Python literals.

    Raises:
        UsageError: the text is not of that form.
    """
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return name, {}
    if not rest.endswith(")"):
        raise UsageError(f'"{text}": a closing bracket is missing; write it as name(setting=value)')
    try:
        return name.strip(), parse_settings(rest[:-1])
    except ValueError as error:
        raise UsageError(f'"{text}": {error}') from error


def check_model(entry: Entry, settings: dict[str, Any]) -> None:
    """Raise UsageError unless the model takes these settings.

    A preset of the catalogue may name what the case fills in, such as the model's own resolution; the case wins.
    """
    known = signature(entry.path)
    filled = tuple(name for name in RESERVED if name in known.settings)
    for name in filled:
        if name in settings:
            raise UsageError(
                f'model "{entry.name}": {name}={settings[name]!r} clashes with the {name} of the case: set '
                f"{RESERVED[name]} instead"
            )
    presets = {name: value for name, value in entry.settings.items() if name not in filled}
    check_settings(f'model "{entry.name}"', entry.path, {**presets, **settings}, reserved=filled)


def check_method(entry: Entry, settings: dict[str, Any]) -> None:
    """Raise UsageError unless the method takes these settings."""
    told = (TOLD,) if TOLD in signature(entry.path).settings else ()
    if told and TOLD in settings:
        raise UsageError(
            f'method "{entry.name}": {TOLD}={settings[TOLD]!r} clashes with the {TOLD} of the case: '
            "say it in the block of the grid instead"
        )
    check_settings(f'method "{entry.name}"', entry.path, {**entry.settings, **settings}, reserved=told)


_FURTHER_KEYS = {"models": ("task",), "prefixes": ("is_path", "or_word", "suffix", "backend", "names")}


def _entry(kind: str, name: str, value: Any, file: Path) -> Entry:
    if isinstance(value, str):
        value = {"build": value}
    allowed = {"build", "settings", *_FURTHER_KEYS.get(kind, ())}
    if not isinstance(value, dict) or not isinstance(value.get("build"), str):
        raise UsageError(f"{file}: {kind}.{name} must be a dotted path or have the key build with one")
    for key in value:
        if key not in allowed:
            raise UsageError(f'{file}: {kind}.{name} has an unknown key "{key}"; {did_you_mean(str(key), allowed)}')
    settings = value.get("settings") or {}
    task = value.get("task")
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise UsageError(f"{file}: {kind}.{name}.settings must be a mapping of setting names to values")
    if task is not None and not isinstance(task, str):
        raise UsageError(f"{file}: {kind}.{name}.task must be the name of a task, not {task!r}")
    is_path, or_word = value.get("is_path", False), value.get("or_word", False)
    suffix, backend = value.get("suffix", ""), value.get("backend", "")
    if not all(isinstance(each, bool) for each in (is_path, or_word)):
        raise UsageError(f"{file}: {kind}.{name}: is_path and or_word are true or false")
    if not isinstance(suffix, str) or not isinstance(backend, str):
        raise UsageError(f"{file}: {kind}.{name}: suffix and backend are texts")
    names = value.get("names")
    try:
        split_path(value["build"])
        if names is not None:
            split_path(str(names))
    except UsageError as error:
        raise UsageError(f"{file}: {kind}.{name}: {error}") from error
    return Entry(
        name, value["build"], dict(settings), task, file.parent, is_path, or_word, suffix, backend, names=names
    )


def is_pattern(spec: str) -> bool:
    """Whether the name of a spec has a sign that stands for any letters."""
    return any(sign in spec.partition("(")[0] for sign in "*?")


def _rows(kind: str, rows: Any, file: Path) -> dict[str, Any]:
    """The table of one kind: names to rows."""
    if rows is None:
        return {}
    if not isinstance(rows, dict) or not all(isinstance(name, str) for name in rows):
        raise UsageError(f"{file}: {kind} must be a mapping of names (quote a name that is a number) to dotted paths")
    return rows


def load(folders: list[Path] | None = None) -> Catalogue:
    """The union of all catalogues.

    Raises:
        UsageError: a catalogue is malformed, or two of them define the same name.
    """
    kinds: dict[str, dict[str, Entry]] = {"models": {}, "methods": {}, "tasks": {}, "prefixes": {}}
    for folder in suite_folders() if folders is None else folders:
        file = folder / "catalogue.yaml"
        if not file.is_file():
            continue
        for kind, rows in read_yaml(file).items():
            if kind not in kinds:
                raise UsageError(f'{file}: unknown key "{kind}"; {did_you_mean(str(kind), kinds)}')
            for name, value in _rows(kind, rows, file).items():
                if name in kinds[kind]:
                    first = kinds[kind][name].folder
                    raise UsageError(f'{file}: {kind[:-1]} "{name}" is already defined in {first}; rename one')
                kinds[kind][name] = _entry(kind, name, value, file)
    return Catalogue(**kinds)


def task_names() -> list[str]:
    """The names of the tasks in all catalogues that can be read; who loads a broken one says what is wrong with it."""
    names: set[str] = set()
    for folder in suite_folders():
        file = folder / "catalogue.yaml"
        if file.is_file():
            with suppress(UsageError):
                names |= set(_rows("tasks", read_yaml(file).get("tasks"), file))
    return sorted(name for name in names if NAME.fullmatch(name))
