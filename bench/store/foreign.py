"""Where everything foreign arrives: bounded files, bounded JSON, and a typed check before anybody uses it.

Foreign is whatever another process or person wrote: a record, a bundle's parts, a calibration, a journal, but also what
a worker of ours leaves behind, because the user's model ran in it. A fault here is one `CorruptRecord` with one line.

Memory: a file of JSON costs at most `MEMORY_FACTOR` times its size and `MEMORY_BESIDE` bytes, as long as it is parsed;
its size is limited, and so is the number of its lists and objects, each of which takes many times the two signs that it
is.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.errors import ResultsError
from bench.foreign_files import read_regular
from bench.foreign_text import escape_controls, whole_characters

#: Bytes of JSON in one file, unpacked. The largest record of a thousand layers is a twentieth of it.
MOST_JSON_BYTES = 16 * 2**20
#: Lists and objects in one file.
MOST_PARTS = 250_000
#: What parsing costs: times the size of the text, and beside it.
MEMORY_FACTOR = 24
MEMORY_BESIDE = 64 * 2**20


class CorruptRecord(ResultsError):
    """A file of ours or of others that cannot be read, or whose content is not what it should be."""


def parse(data: bytes, most: int = MOST_JSON_BYTES) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, NaN or infinity stand in it, it is too long, or has too many parts.
    """
    if len(data) > most:
        raise ValueError(f"holds {len(data)} bytes of JSON; at most {most} are read")
    parts = data.count(b"[") + data.count(b"{")
    if parts > MOST_PARTS:
        raise ValueError(f"holds {parts} lists and objects; at most {MOST_PARTS} are read")
    try:
        return _DECODER.decode(data.decode())
    except RecursionError as error:
        raise ValueError("is nested without end") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def without_halves(value: Any) -> Any:
    """Plain data whose texts are whole characters: half a surrogate pair, which no output takes, as `\\udc80`."""
    try:
        json.dumps(value, ensure_ascii=False, check_circular=False).encode()
    except UnicodeEncodeError:
        return _spelt(value)
    return value


def _spelt(value: Any) -> Any:
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, dict):
        return {whole_characters(key): _spelt(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spelt(item) for item in value]
    return value


def unpacked(data: bytes, most: int = MOST_JSON_BYTES) -> bytes:
    """Decompressed bytes, refused beyond the limit before they are all in memory.

    Raises:
        ValueError: there are more; also OSError, EOFError or zlib.error for damaged data.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        value = file.read(most + 1)
    if len(value) > most:
        raise ValueError(f"unpacks to more than {most} bytes")
    return value


def read_json(path: Path, most: int = MOST_JSON_BYTES) -> Any:
    """What `bench.store.records.write_json` wrote.

    Args:
        path: a regular file; `.gz` is unpacked.
        most: bytes of JSON.

    Raises:
        CorruptRecord: the file is not complete, valid JSON of bounded size.
    """
    with translate_faults(path):
        data = read_regular(path, most)
        return parse(unpacked(data, most) if path.suffix == ".gz" else data, most)


@contextmanager
def translate_faults(path: Path | str) -> Iterator[None]:
    """Raise CorruptRecord, with what to do, for a file that cannot be read or is not what it should be."""
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        what = getattr(error, "strerror", None) or error
        raise CorruptRecord(
            f"{path}: cannot be read ({what}); move it away and run again, which measures it again"
        ) from error


def checked(kind: Any, value: Any, where: str) -> Any:
    """The value itself, if it is of the kind; every number in it finite, every key and text where the kind says.

    Args:
        kind: a type of `bench.store.schema`.
        value: plain JSON data.
        where: how to name it in an error.

    Raises:
        CorruptRecord: it is of another kind; the message names the place of the first fault.
    """
    for fault in faults(kind, value):
        raise CorruptRecord(f"{where}: {fault}")
    return value


def faults(kind: Any, value: Any) -> Iterable[str]:
    """What is wrong with a value, a line per place; nothing where it is of the kind."""
    try:
        _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=False):
            yield f"{_place(item['loc'])} is {shown(item['input'])}: {escape_controls(item['msg'])[:120].lower()}"
    except RecursionError:
        yield "is nested without end"


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _place(location: tuple[int | str, ...]) -> str:
    """`timing.invocations[1].median_ms` of the parts of a path."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return escape_controls(text.removeprefix("."))[:200] or "it"


def shown(value: Any) -> str:
    """A foreign value, short and printable."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = ascii(value) if not isinstance(value, int) or abs(value) < 10**20 else "a number without end"
    return text[:60]
