"""What makes a page safe to publish: JSON that cannot become markup, a strict content policy, no local paths."""

from __future__ import annotations

import json
import re
from operator import is_
from typing import Any

from markupsafe import Markup

from bench.host.personal import HOME, START, outside_addresses
from bench.store.records import Record

#: `file:` beside 'self' lets browsers that give a page on disk no origin load its own assets; on a web server no page
#: can load a file: address, so it adds nothing there. Plotly sets inline styles; nothing else is inline.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file: 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'none'; base-uri 'none'; form-action 'none'"
)

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_ESCAPED = re.compile("[<>&\u2028\u2029]")
_UNIX_PATH = re.compile(rf"{START}(?:~|\.{{1,2}})?/*(?:/[\w.@+=,%-]+){{2,}}/?")
_HOME_WITH_SPACES = re.compile(rf"{START}/+(?:home|Users)/+[^/\n\"']+(?=/)")
_BARE_HOME = re.compile(rf"{HOME.pattern}(?![^\s'\":,;<>()\[\]|])")
_WINDOWS_PATH = re.compile(r"(?<!\w)[A-Za-z]:\\(?:[^\\\s\"'<>|]+\\)*[^\\\s\"'<>|]*")
#: What every path of a Unix machine has in it: a name between two slashes. To look for it first is many times quicker.
_MAYBE_PATH = re.compile(r"/[\w.@+=,%-]+/")
#: Where one may begin at all (`START`): not behind a name, as in `samples/a/b`, but for a compiler's option.
_MAYBE_START = re.compile(r"(?<!\w)/|-[A-Za-z]/")
_BULK = frozenset({"layers", "machine"})
_PATHLESS = frozenset({int, float, bool, type(None)})
_PRIVATE_KEYS = frozenset({"hostname", "host", "user", "username", "cwd", "home", "executable", "argv"})
_PRIVATE_TEXTS = tuple(f'"{key}"' for key in _PRIVATE_KEYS)
_AS_TEXT = json.JSONEncoder(ensure_ascii=False).encode
#: The same as `_MAYBE_START`, said from the slash on, which is found many times quicker.
_ANY_START = re.compile(r"/(?:(?<!\w/)|(?<=-[A-Za-z]/))")


def inert_json(value: Any, *, hide_paths: bool = False) -> Markup:
    """JSON for a `<script type="application/json">` block: no character in it can end the block or start markup.

    Args:
        value: plain JSON types.
        hide_paths: cut paths of the machine as `without_paths` does, at the price of one search through the text.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if hide_paths and "\\" in text:  # an escaped line end would hide that a path begins after it
        text = json.dumps(without_paths(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    elif hide_paths:
        text = _shorten(text)
    return Markup(_ESCAPED.sub(lambda found: _ESCAPES[found.group()], text))


def without_paths(value: Any) -> Any:
    """The same plain data with every path of the machine cut to its last part and private keys left out.

    What has neither is given back as it is, not copied: that is nearly all of a record.
    """
    if isinstance(value, str):
        return _shorten(value) if "/" in value or "\\" in value else value
    if isinstance(value, dict):
        return _dict_without_paths(value)
    if isinstance(value, (list, tuple)):
        items = [item if type(item) in _PATHLESS else without_paths(item) for item in value]
        return value if isinstance(value, list) and all(map(is_, items, value)) else items
    return value


def _dict_without_paths(value: dict[Any, Any]) -> dict[Any, Any]:
    changed: dict[Any, Any] = {}
    for key, item in value.items():
        kind = type(item)
        if kind is str:  # most are words, which cannot hold a path
            if "/" in item or "\\" in item:
                shorter = _shorten(item)
                if shorter != item:
                    changed[key] = shorter
        elif kind not in _PATHLESS:
            shorter = without_paths(item)
            if shorter is not item:
                changed[key] = shorter
    if not changed and _PRIVATE_KEYS.isdisjoint(value):
        return value
    return {key: changed.get(key, item) for key, item in value.items() if key not in _PRIVATE_KEYS}


def published(record: Record) -> Record:
    """The record without paths of the machine; layers are left to the figures, where they are shown."""
    return {key: value if key in _BULK or _is_clean(value) else without_paths(value) for key, value in record.items()}


def _is_clean(value: Any) -> bool:
    """Whether one look at the text of a part tells that no path begins and no private key stands in it: most parts."""
    if type(value) in _PATHLESS:
        return True
    text = _AS_TEXT(value)
    return "\\" not in text and _ANY_START.search(text) is None and not any(key in text for key in _PRIVATE_TEXTS)


def _shorten(text: str) -> str:
    return outside_addresses(text, _shorten_paths)


def _shorten_paths(text: str) -> str:
    if _MAYBE_PATH.search(text) and _MAYBE_START.search(text):
        text = _BARE_HOME.sub("~", _HOME_WITH_SPACES.sub("/home/user", text))
        text = _UNIX_PATH.sub(lambda found: "…/" + found.group().rstrip("/").rsplit("/", 1)[-1], text)
    return (
        text
        if "\\" not in text
        else _WINDOWS_PATH.sub(lambda found: "…\\" + found.group().rstrip("\\").rsplit("\\", 1)[-1], text)
    )


def script_data(name: str, value: Any) -> str:
    """A script that hands plain data to those of the page, by name: what `waterlineData` in `1_page.js` takes.

    It is loaded as a file of the site's own, because a page that is opened from disk may read nothing else.
    """
    return f"waterlineData({inert_json(name)}, {inert_json(value)});\n"
