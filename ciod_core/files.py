"""Reading and writing files so that nobody ever sees half of one."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        OSError: when the file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Lend a temporary path in the same folder; it becomes `path` when the block ends without an exception.

    The temporary name keeps the suffix of `path`, because some writers choose the format by it. Missing parent
    folders are made. When the block fails, the temporary file goes and an existing `path` stays as it was.

    Args:
        path: the file.
        durable: wait until the disk has it, so that not even a power failure shows half of it. Large files that are
            cheap to make again, and whose hash is recorded, can do without.

    Raises:
        OSError: when the folder cannot be written (full disk, permission); the error carries `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{secrets.token_hex(6)}-{path.name}")
    try:
        yield temporary
        if durable:
            _flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        # A user knows the file that was asked for, not the temporary one beside it.
        if error.filename is None or Path(os.fsdecode(error.filename)) == temporary:
            error.filename = str(path)
            error.filename2 = None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, all of it or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, all of it or nothing."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path, document: Any) -> None:
    """Write a JSON document to `path`, all of it or nothing.

    Raises:
        ValueError: for NaN or infinity, which JSON does not know.
    """
    atomic_write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def relative_if_inside(path: Path, folder: Path) -> str:
    """`path` relative to `folder` when it lies inside, else absolute; always with forward slashes."""
    absolute = path.resolve()
    root = folder.resolve()
    return (absolute.relative_to(root) if absolute.is_relative_to(root) else absolute).as_posix()


def is_inside(name: str) -> bool:
    """True for a file name that, read as a POSIX or a Windows path, stays below the folder it is joined to."""
    if not name.strip() or "\0" in name:
        return False
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    climbs = posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts
    return bool(windows.parts) and not climbs


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
