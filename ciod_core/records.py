"""Immutable records, and the one that describes a safetensors file in its metadata."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from ciod_core.errors import CheckpointError


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
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; {remedy}") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}) and may be damaged; {remedy}"
        ) from None
    if key not in metadata:
        raise CheckpointError(f"{path} has no '{key}' description, so it is no {kind}; {remedy}")
    try:
        return record.model_validate(upgrade(json.loads(metadata[key]), path))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: its description is damaged ({error}); {remedy}") from None
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: its description is unknown to this version ({first_problem(error)}); {remedy}"
        ) from None
