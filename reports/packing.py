"""Data of a page that are long, packed: deflated and spelled in base64, which takes a fifth of the room.

`unpacked` in `1_page.js` takes them apart in the browser, which can since 2023; `unpacked` here does in Python.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from markupsafe import Markup

from reports.safe import inert_json

#: Letters below which text stands as it is.
FROM = 4000
#: Deflate without a header, as `DecompressionStream("deflate-raw")` reads it.
_RAW = -15


def packed(text: str) -> Markup:
    """Inert JSON for a block of a page: the text, or where it is long an object that has it packed.

    Args:
        text: inert JSON, as `reports.safe.inert_json` makes it.
    """
    if len(text) < FROM:
        return Markup(text)
    deflate = zlib.compressobj(wbits=_RAW)
    data = deflate.compress(text.encode()) + deflate.flush()
    return inert_json({"packed": base64.b64encode(data).decode()})


def unpacked(text: str) -> Any:
    """What a block holds, packed or not."""
    value = json.loads(text)
    if not (isinstance(value, dict) and set(value) == {"packed"}):
        return value
    return json.loads(zlib.decompress(base64.b64decode(value["packed"]), wbits=_RAW))
