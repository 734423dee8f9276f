"""Settings and plain data as canonical text, and the hashes made from it."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from json import dumps  # taken before a worker's code could put another in its place
from typing import Any

KEY_LENGTH = 16
#: The method of a model that nothing is done to.
BASELINE_METHOD = "none"
#: The suite of networks that a user named by a path or a file: another one only lent them its grid.
OWN_NETWORKS = "own_networks"


def digest(value: Any) -> str:
    """A short stable hash of plain JSON data."""
    text = dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def settings_text(settings: dict[str, Any]) -> str:
    """Settings as canonical Python keywords, sorted by name: `keep_rate=0.7, at=[4, 7]` reads back unchanged."""
    return ", ".join(f"{name}={settings[name]!r}" for name in sorted(settings))


def parse_settings(text: str) -> dict[str, Any]:
    """The settings that `settings_text` wrote; literals only, nothing is evaluated.

    Raises:
        ValueError: the text is not a list of `name=literal`, names one twice, or a value is none that JSON and a
            settings text can both hold.
    """
    source = f"f({text})"
    try:
        call = ast.parse(source, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("not a list of name=value")
        names = [keyword.arg for keyword in call.keywords if keyword.arg is not None]
        if len(names) < len(call.keywords) or ast.get_source_segment(source, call) != source:
            raise ValueError("not a list of name=value")
        if len(set(names)) < len(names):
            raise ValueError("a name stands there twice")
        settings = {name: _literal(name, k.value) for name, k in zip(names, call.keywords, strict=True)}
        dumps(settings, allow_nan=False, ensure_ascii=False).encode()
        settings_text(settings).encode()  # a number of more digits than Python writes down would be no text again
        return settings
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        raise ValueError(f"settings {shown!r} are not of the form name=value, name=value: {error}") from error


def _literal(name: str, value: ast.expr) -> Any:
    """The value of one setting.

    Raises:
        ValueError: it is no literal.
    """
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError):
        written = ast.unparse(value)
        shown = written if len(written) <= 60 else f"{written[:60]}..."
        hint = f'; a text is written {name}="{shown}"' if isinstance(value, ast.Name | ast.Attribute) else ""
        raise ValueError(f"{name}={shown} is no number, text, list or truth value{hint}") from None


def content_hash(record: Mapping[str, Any]) -> str:
    """SHA-256 of the record's canonical JSON without the hash itself."""
    body = {key: value for key, value in record.items() if key != "content_hash"}
    text = dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
