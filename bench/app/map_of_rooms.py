"""The map of the code as a table, drawn from the code: rooms from top to bottom, what each holds, which modules."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path


def rooms_table(root: Path) -> str:
    """A Markdown table of the layers of `pyproject.toml`, top first; a room may import only from rows below it."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    lines = ["| room | holds | modules |", "|---|---|---|"]
    for layer in layers:
        for name in layer.split(" | "):
            lines.append(_line(root, name))
    return "\n".join(lines)


def _line(root: Path, name: str) -> str:
    path = root / name.replace(".", "/")
    if path.is_dir():
        modules = sorted(item.stem if item.suffix else f"{item.name}/" for item in path.iterdir() if _is_module(item))
        return f"| `{name.replace('.', '/')}/` | {_says(path / '__init__.py')} | {', '.join(modules)} |"
    return f"| `{name.replace('.', '/')}.py` | {_says(path.with_suffix('.py'))} | |"


def _is_module(item: Path) -> bool:
    if item.is_dir():
        return (item / "__init__.py").is_file()
    return item.suffix == ".py" and item.stem not in ("__init__", "__main__")


def _says(file: Path) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].replace("|", "\\|")
