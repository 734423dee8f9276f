"""What Tab offers: verbs, suites, grids, models, methods with their settings, keys of rows, choices of every group.

Read from files alone, without Hydra, pydantic or torch, because a Tab has to answer at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.config.paths import config_folder, group_names, suite_folders
from bench.config.suite_files import find_suites
from bench.config.verbs import JOBS, RETRIES
from bench.config.yaml_file import names_under, read_yaml
from bench.errors import BenchError

#: Keys of a block that the command line replaces; a test holds them to `bench.config.axes.OVERRIDES`.
LISTS = ("models", "methods", "resolutions", "batches", "dtypes", "backends", "workload", "shapes", "against")
#: Values of keys whose choices stand in no file.
_CHOICES = {
    "job": JOBS,
    "retry": RETRIES,
    "counts": ("true", "false"),
    "trust": ("true", "false"),
    "all": ("true", "false"),
    "device.compile": ("off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    "device.memory_format": ("contiguous", "channels_last"),
}


def offers(line: str, point: int | None = None) -> list[str]:
    """The words that may stand where the cursor is; each is whole, as in `suite=ops`.

    Args:
        line: the command line so far, with the program's name.
        point: the cursor's place in it; default its end.
    """
    before = line[: len(line) if point is None else point]
    words = before.split()[1:]
    word = "" if before.endswith(" ") or not words else words[-1]
    key, equals, value = word.partition("=")
    try:
        if not equals:
            return sorted(name for name in _keys() if name.startswith(word))
        return [f"{key}={choice}" for choice in _values(key, value, words) if choice.startswith(value)]
    except (BenchError, OSError, SyntaxError, AttributeError, TypeError):
        return []  # a Tab says nothing of what is wrong; the command will


def _keys() -> Iterable[str]:
    """Every key with its sign: those of the composed files, and the lists of a block."""
    folder = config_folder()
    for name, value in _read(folder / "config.yaml").items():
        if name not in ("defaults", "hydra"):
            yield from _flat(name, value)
    for group in (path for path in folder.iterdir() if path.is_dir()):
        yield f"{group.name}="
        for file in group.glob("*.yaml"):
            for name, value in _read(file).items():
                if name not in ("defaults", "name", "version"):
                    yield from _flat(f"{group.name}.{name}", value)
    yield "suite="
    yield from (f"suite.{name}=" for name in LISTS)


def _flat(name: str, value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    else:
        yield f"{name}="


def _values(key: str, value: str, words: Sequence[str]) -> Iterable[str]:
    """What may follow `key=`, of which `value` is there already."""
    if key == "suite":
        return sorted(find_suites())
    if key == "grid":
        return sorted(names_under(_suite_file(words), "grids"))
    if key == "row":
        return sorted({name[:8] for name in os.listdir(Path(_given(words, "paths.results", "results")) / "records")})
    if key in ("model", "suite.models", "suite.methods"):
        return _of_catalogues(key.removeprefix("suite."), value, words)
    if key in _CHOICES:
        return _CHOICES[key]
    group = config_folder() / key
    files = set(group_names(key)) if group.is_dir() else set()
    return sorted(files | _names("tasks") if key == "task" else files)


def _given(words: Sequence[str], key: str, default: str) -> str:
    """The value of an override that stands on the line already."""
    found = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
    return found[-1] if found else default


def _suite_file(words: Sequence[str]) -> Path:
    files = find_suites().files
    return files[_given(words, "suite", "vit_tokens")] if _given(words, "suite", "vit_tokens") in files else Path()


def _of_catalogues(kind: str, value: str, words: Sequence[str]) -> Iterable[str]:
    """Names of models or methods, in a list where the key takes one; after `name(` its settings.

    Where a suite is chosen, its own come alone as long as what is typed fits one of them.
    """
    lead, last = _last_item(value) if kind != "model" else ("", value)
    kind = "models" if kind == "model" else kind
    name, bracket, _ = last.partition("(")
    if bracket:
        return [f"{lead}{name}({setting}=" for setting in _settings(_row(kind, name))]
    own = [known for known in _of_suite(kind, words) if known.startswith(last)]
    return [f"{lead}{known}" for known in own or sorted(_names(kind))]


def _of_suite(kind: str, words: Sequence[str]) -> list[str]:
    """Models or methods in the catalogue and the grids of the suite on the line; none without one."""
    file = _suite_file(words)
    if not _given(words, "suite", "") or not file.name:
        return []
    blocks = [block for grid in (_read(file).get("grids") or {}).values() for block in grid]
    specs = [str(spec) for block in blocks for spec in block.get(kind) or []]
    known = {*names_under(file.parent / "catalogue.yaml", kind), *(spec.partition("(")[0] for spec in specs)}
    return sorted(name for name in known if not set(name) & set("*?:"))


def _names(kind: str) -> set[str]:
    """What the rows of one kind are called in all catalogues."""
    return {name for folder in suite_folders() for name in names_under(folder / "catalogue.yaml", kind)}


def _row(kind: str, name: str) -> Any:
    """The row of that name; None where no catalogue has one. Only the file that has it is read whole."""
    for folder in reversed(suite_folders()):
        if name in names_under(folder / "catalogue.yaml", kind):
            return _read(folder / "catalogue.yaml")[kind][name]
    return None


def _last_item(value: str) -> tuple[str, str]:
    """What of a list stands before the item that is being typed, and that item; a list begins with a bracket."""
    depth, start = 0, 0
    for place, letter in enumerate(value):
        depth += (letter == "(") - (letter == ")")
        if letter in "[," and depth == 0:
            start = place + 1
    while start < len(value) and value[start] in "\"' ":
        start += 1
    return value[:start], value[start:]


def _settings(row: Any) -> list[str]:
    """The keyword settings of a catalogue's row, from its source alone."""
    import ast  # which the other questions do without

    path = row.get("build") if isinstance(row, Mapping) else row
    module, colon, name = str(path).partition(":")
    file = _file_of(module)
    if not colon or file is None:
        return []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            plain = node.args.args[len(node.args.args) - len(node.args.defaults) :]
            return [argument.arg for argument in (*plain, *node.args.kwonlyargs)]
    return []


def _file_of(module: str) -> Path | None:
    """The file of a module of a suite, beside the folders of the suites."""
    parts = module.split(".")
    for folder in suite_folders():
        for root in (folder.parent.parent, folder.parent):
            file = root.joinpath(*parts).with_suffix(".py")
            if file.is_file():
                return file
    return None


def _read(file: Path) -> dict[str, Any]:
    """What a YAML file of ours says; nothing of one that is no mapping."""
    return read_yaml(file) if file.is_file() else {}
