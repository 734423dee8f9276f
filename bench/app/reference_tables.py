"""Tables of the reference, made from what the program itself reads: metrics, settings, protocols, verbs, exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from bench.app.front_door import verbs
from bench.app.listing import row_line
from bench.config.paths import config_folder
from bench.config.protocol import SINCE_2, Protocol
from bench.config.protocol_files import protocol_values
from bench.config.schema import Config, Suite
from bench.metrics import METRICS, SECTIONS

#: The protocols in the order in which they cost time, and those of version 2.
PROTOCOLS = ("counts", "glance", "quick", "standard", "publish")
OF_VERSION_2 = ("v2/glance", "v2/quick", "v2/standard", "v2/publish")
#: `key: value   # what it is`, as the configuration's files explain it; of deeper keys, the indented ones.
_EXPLAINED = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)#\s*(?P<said>.+)$")
_BETTER = {"lower": "lower", "higher": "higher", "none": ""}
_MADE = "Made from the code by `python -m bench.app.generate_docs`; do not edit.\n"


def metrics_page() -> str:
    """Every metric by section: name, title, unit, which direction is better, and what it is."""
    parts = [
        "# Metrics",
        f"{_MADE}\n{len(METRICS)} metrics. The name is what records, `bench.measure` and MLflow call it; a value that "
        "could not be taken is *unavailable* with its reason.",
    ]
    for section in SECTIONS:
        own = [metric for metric in METRICS.values() if metric.section == section]
        if own:
            lines = ["| metric | title | unit | better | what it is |", "|---|---|---|---|---|"]
            lines += [row_line(f"`{m.name}`", m.title, m.unit, _BETTER[m.better], m.definition) for m in own]
            parts.append(f"## {section}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def settings_page() -> str:
    """Every setting by its dotted key: default and what it does."""
    comments = dict(_comments())
    parts = [
        "# Settings",
        f"{_MADE}\nEvery setting is written `key=value` on the command line. `bench suite=NAME --cfg job` shows what "
        "is in force. The values of the protocols stand in [protocols](protocols.md).",
    ]
    for title, model, prefix in _sections():
        lines = ["| key | default | what it is |", "|---|---|---|"]
        lines += [
            row_line(f"`{key}`", _written(default), said) for key, default, said in _rows(model, prefix, comments)
        ]
        parts.append(f"## {title}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def protocols_page() -> str:
    """Every parameter of the protocols side by side, and those of version 2."""
    folder = config_folder() / "protocol"
    firsts = [f"- `{name}`: {_first_comment(folder / f'{name}.yaml')}" for name in PROTOCOLS]
    head = f"# Protocols\n\n{_MADE}\n`protocol=NAME` takes one of these; why each number is what it is, says "
    head += "[the protocol](../protocol.md).\n\n" + "\n".join(firsts) + "\n\n" + _protocols_table(PROTOCOLS)
    head += "\n\n## Version 2\n\nNot in force yet; [what is other in it](../protocol_v2.md).\n\n"
    return head + _protocols_table(OF_VERSION_2) + "\n"


def _protocols_table(names: Sequence[str]) -> str:
    """The parameters of these protocols, those that all of them have."""
    flat = {name: dict(_flat(Protocol(**protocol_values(name)).model_dump())) for name in names}
    later = {f"{part}.{name}" for part, values in SINCE_2.items() for name in values}
    unknown = later if all(values["version"] == 1 for values in flat.values()) else set()
    said = dict(_descriptions(Protocol, ""))
    lines = [row_line("parameter", *names, "what it is"), "|---" * (len(names) + 2) + "|"]
    for key in flat[names[-1]]:
        if key not in ("name", "version", *unknown):
            lines.append(row_line(f"`{key}`", *(_written(flat[name][key]) for name in names), said.get(key, "")))
    return "\n".join(lines)


def verbs_table() -> str:
    """Every verb and what it does."""
    lines = ["| `job=` | does |", "|---|---|"]
    return "\n".join([*lines, *(row_line(f"`{name}`", said) for name, said in verbs().items())])


def unexplained() -> list[str]:
    """Keys of settings of which nothing says what they are."""
    comments = dict(_comments())
    return [key for _, model, prefix in _sections() for key, _, said in _rows(model, prefix, comments) if not said]


def _sections() -> Iterable[tuple[str, type[BaseModel], str]]:
    """Title, model and prefix of every group of settings but the protocol, the plain ones first."""
    yield "What is done", Config, ""
    for name, field in Config.model_fields.items():
        model = field.annotation
        if name != "protocol" and isinstance(model, type) and issubclass(model, BaseModel):
            yield f"{name}", model, f"{name}."


def _rows(model: type[BaseModel], prefix: str, comments: Mapping[str, str]) -> Iterable[tuple[str, Any, str]]:
    """Key, default and meaning of a model's own settings, those of models inside it too, unless it is the whole."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if model is not Config:
                yield from _rows(inner, f"{prefix}{name}.", comments)
            continue
        key = f"{prefix}{name}"
        said = field.description or comments.get(key, "")
        choices = [str(one) for one in get_args(inner) if isinstance(one, str)]
        told = [said] if said else []
        if choices and not any(choice in said for choice in choices[:2]):
            told.append(f"one of {', '.join(f'`{choice}`' for choice in choices)}")
        default = "" if field.is_required() or model is Suite else field.get_default(call_default_factory=True)
        yield key, default, "; ".join(told)


def _comments() -> Iterable[tuple[str, str]]:
    """What the files of the configuration say of their keys, by dotted key."""
    root = config_folder()
    yield from _comments_of(root / "config.yaml", "")
    for group in sorted(path for path in root.iterdir() if path.is_dir()):
        for file in sorted(group.glob("*.yaml")):
            yield from _comments_of(file, f"{group.name}.")


def _comments_of(file: Path, prefix: str) -> Iterable[tuple[str, str]]:
    parents: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        found = re.match(r"^( *)(\w+):", line)
        if not found:
            continue
        indent = len(found[1])
        parents = [(depth, name) for depth, name in parents if depth < indent]
        explained = _EXPLAINED.match(line)
        if explained:
            yield prefix + ".".join([*(name for _, name in parents), found[2]]), explained["said"].strip()
        parents.append((indent, found[2]))


def _descriptions(model: type[BaseModel], prefix: str) -> Iterable[tuple[str, str]]:
    comments = dict(_comments())
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _descriptions(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.description or comments.get(f"protocol.{prefix}{name}", "")


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _first_comment(file: Path) -> str:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("# ")


def _written(value: Any) -> str:
    """A value as it is typed on the command line; nothing for what is not set."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
