"""Decoding a user's JSON file to typed entries, with errors of one line that name the place."""

from __future__ import annotations

import codecs
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ciod_core.errors import DataError


def decode_json(path: Path, data: bytes, kind: Any, form: str) -> Any:
    """The content of a JSON file.

    Args:
        path: the file, for messages.
        data: its bytes.
        kind: the type that msgspec makes of it.
        form: the content that such a file must have, for the message about another one.

    Raises:
        DataError: the text is no JSON, or an entry has the wrong type.
    """
    # Editors and shells on Windows put this mark in front of UTF-8.
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: {_describe_validation(str(error), form)}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error.reason}); save the file as UTF-8") from None
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: {_describe_syntax(str(error), data)}; export or download the file again") from None
    except RecursionError:
        raise DataError(f"{path}: is nested too deeply for a COCO file; export or download the file again") from None


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause the garbage collector, which millions of new objects would set off again and again to find nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _describe_validation(message: str, form: str) -> str:
    """Rewrite msgspec's "Expected `int`, got `str` - at `$.images[0].id`" with the field first."""
    text, _, place = message.replace("`", "").partition(" - at ")
    text = text[0].lower() + text[1:]
    place = place.removeprefix("$").removeprefix(".")
    if not place:
        return f"{text}; {form}"
    return f"{place}: {text}; correct that entry"


def _describe_syntax(message: str, data: bytes) -> str:
    if not data.strip():
        return "is empty"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "is UTF-16 text; save it as UTF-8"
    if message == "Input data was truncated":
        return f"ends in the middle of the JSON (after byte {len(data)})"
    match = re.fullmatch(r"JSON is malformed: (.*) \(byte (\d+)\)", message)
    if match is None:
        return f"is not JSON ({message})"
    # msgspec counts trailing characters from one, everything else from zero.
    position = int(match[2]) - (match[1] == "trailing characters")
    line = data.count(b"\n", 0, position) + 1
    column = position - data.rfind(b"\n", 0, position)
    found = re.match(rb"-?(NaN|Infinity)", data[position:])
    reason = f"{found[0].decode()} is not a JSON number" if found else match[1]
    return f"is not valid JSON: {reason} at line {line} column {column}"
