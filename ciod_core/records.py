"""Immutable records, and safetensors files that one of them describes.

The description is a JSON text in the file's metadata. Its first field is a checksum: the SHA-256 of the whole file with
zeros in the place of these digits.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from ciod_core.errors import CheckpointError
from ciod_core.files import MostBytes, atomic_path, check_readable, open_readable, parse_json

# In characters; three times what a detector of the most classes needs.
LONGEST_DESCRIPTION = 2**25
CHECKSUM_KEY = "checksum"
_ZEROS = b"0" * 64
_CHUNK = 2**20


class Record(BaseModel):
    """Base of what is written to files: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyRecord = TypeVar("AnyRecord", bound=Record)


def first_problem(error: ValidationError) -> str:
    """The first field that does not fit, and why, in one line."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def open_tensors(path: Path, framework: str = "numpy") -> Any:
    """Open a safetensors file; a context manager.

    Raises:
        OSError: the file is missing, no regular file or too large.
        SafetensorError: it is damaged.
    """
    check_readable(path, MostBytes.TENSORS)
    return safe_open(path, framework=framework)


def read_description(
    path: Path,
    key: str,
    record: type[AnyRecord],
    upgrade: Callable[[dict[str, Any], object], dict[str, Any]],
    *,
    kind: str,
    remedy: str,
    verify: bool = False,
) -> AnyRecord:
    """Read the description of a safetensors file without its tensors.

    Args:
        path: the file.
        key: of the metadata entry that holds the description as JSON.
        record: type of the description.
        upgrade: brings descriptions of older versions to this one (`ciod_core.migrations`).
        kind: of the file, for messages: 'knowledge bank'.
        remedy: what to do when the file cannot be used, for messages.
        verify: read the whole file to compare its checksum; files of older versions have none.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or written by a newer version.
    """
    try:
        with open_tensors(path) as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; {remedy}") from None
    except (SafetensorError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({reason}) and may be damaged; {remedy}"
        ) from None
    if len(metadata.get(key, "")) > LONGEST_DESCRIPTION:
        raise CheckpointError(f"{path}: its description has {len(metadata[key]):,} characters and is damaged; {remedy}")
    if key not in metadata:
        raise CheckpointError(f"{path} has no '{key}' description, so it is no {kind}; {remedy}")
    try:
        document = upgrade(parse_json(metadata[key]), path)
        if CHECKSUM_KEY not in document:
            raise ValueError("its checksum is missing")
        checksum = document.pop(CHECKSUM_KEY)
        if verify and checksum is not None and _checksum(path, checksum) != checksum:
            raise CheckpointError(f"{path} is damaged: its content does not have its checksum; {remedy}")
        return record.model_validate(document)
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: its description is unknown to this version ({first_problem(error)}); {remedy}"
        ) from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: its description is damaged ({error}); {remedy}") from None


def write_described(
    path: Path, save: Callable[..., bytes], tensors: Mapping[str, Any], key: str, description: dict[str, Any]
) -> None:
    """Write a safetensors file atomically; the same input gives the same bytes.

    Args:
        path: the file.
        save: of safetensors, for the kind of the tensors.
        tensors: its content.
        key: of the metadata entry that gets the description.
        description: a record as a JSON document.
    """
    text = json.dumps({CHECKSUM_KEY: _ZEROS.decode()} | description)
    content = save(tensors, metadata={key: text})
    # The metadata come first in the file, and the checksum first in them.
    place = content.index(_ZEROS)
    digits = hashlib.sha256(content).hexdigest().encode()
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(content[:place] + digits)
        stream.write(memoryview(content)[place + len(digits) :])


def _checksum(path: Path, noted: object) -> str:
    """The checksum of a file, whose header has the noted one."""
    if not isinstance(noted, str) or not re.fullmatch(r"[0-9a-f]{64}", noted):
        raise ValueError("its checksum is none")
    with open_readable(path, MostBytes.TENSORS) as stream:
        length = stream.read(8)
        header = stream.read(int.from_bytes(length, "little"))
        digest = hashlib.sha256(length + header.replace(noted.encode(), _ZEROS, 1))
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
