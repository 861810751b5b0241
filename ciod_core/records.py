"""Immutable records, and the one that describes a safetensors file in its metadata."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from ciod_core.errors import CheckpointError
from ciod_core.files import MostBytes, check_readable, parse_json

# In characters; three times what a detector of the most classes needs.
LONGEST_DESCRIPTION = 2**25


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
) -> AnyRecord:
    """Read the description of a safetensors file without its tensors.

    Args:
        path: the file.
        key: of the metadata entry that holds the description as JSON.
        record: type of the description.
        upgrade: brings descriptions of older versions to this one (`ciod_core.migrations`).
        kind: of the file, for messages: 'knowledge bank'.
        remedy: what to do when the file cannot be used, for messages.

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
        return record.model_validate(upgrade(parse_json(metadata[key]), path))
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: its description is unknown to this version ({first_problem(error)}); {remedy}"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path}: its description is damaged ({error}); {remedy}") from None
