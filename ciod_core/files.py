"""Reading files of a bounded size, and writing files so that nobody ever sees half of one."""

from __future__ import annotations

import enum
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ciod_core.temporaries import TEMPORARY, temporary_file

# The weights of a detector that was published as a folder.
WEIGHTS_IN_FOLDER = "model.safetensors"
# In characters. No file system has longer paths.
LONGEST_PATH = 4096
_MIB, _GIB = 2**20, 2**30


class MostBytes(enum.IntEnum):
    """The largest size of each kind of file that is read; several times what the largest public datasets need."""

    YAML = 2 * _MIB
    """Settings, plans and data.yaml: the parser takes seconds for a megabyte."""
    LABELS = 16 * _MIB
    """The labels of one image, or the names of all classes."""
    TEXT = 256 * _MIB
    """Lists of images, and what ciod itself notes as JSON."""
    ANNOTATIONS = 16 * _GIB
    """COCO files and results."""
    IMAGE = 2 * _GIB
    TENSORS = 64 * _GIB
    """Weights, training states, knowledge banks and exported models."""


def weights_file(path: Path) -> Path:
    """The weights in the folder of a published detector; any other path as it is."""
    inside = path / WEIGHTS_IN_FOLDER
    return inside if inside.is_file() else path


def check_readable(path: Path, most: MostBytes) -> None:
    """Refuse what must not be read as a file; for libraries that open `path` themselves.

    Raises:
        OSError: there is no such file, it is no regular file (opening a named pipe waits forever, a device never
            ends), or it is larger than `most`; `strerror` says which.
    """
    _refuse_unbounded(path, path.stat(), most)


def open_readable(path: Path, most: MostBytes) -> BufferedReader:
    """Open a file to read its bytes; raises as `check_readable`, and as `open`."""
    # Without O_NONBLOCK, opening a named pipe waits for a writer; regular files do not know the difference.
    nonblocking = getattr(os, "O_NONBLOCK", 0)
    stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | nonblocking))  # noqa: SIM115
    try:
        _refuse_unbounded(path, os.fstat(stream.fileno()), most)
    except OSError:
        stream.close()
        raise
    return stream


def read_bytes(path: Path, most: MostBytes) -> bytes:
    """The content of a file; raises as `open_readable`."""
    with open_readable(path, most) as stream:
        return stream.read()


def parse_json(text: str | bytes) -> Any:
    """What ciod itself wrote as JSON.

    Raises:
        ValueError: it is no JSON, is nested too deeply or holds an integer of more than 64 bits.
    """
    try:
        return json.loads(text, parse_int=_int64)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def sha256_of_file(path: Path, most: MostBytes = MostBytes.TENSORS) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits; raises as `open_readable`."""
    with open_readable(path, most) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Give the name of a file to an OSError that has none: what a write to an open stream raises."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


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
    try:
        with temporary_file(path) as temporary:
            yield temporary
            if durable:
                _flush_to_disk(temporary)
            temporary.replace(path)
        if durable:
            _flush_to_disk(path.parent)
    except OSError as error:
        # A user knows the file that was asked for, not the temporary one beside it.
        if error.filename is None or Path(os.fsdecode(error.filename)).name.startswith(TEMPORARY):
            error.filename = str(path)
            error.filename2 = None
        raise


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


def _int64(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"it holds an integer of {len(digits)} digits")
    return int(digits)


def _refuse_unbounded(path: Path, status: os.stat_result, most: MostBytes) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is a pipe or a device and no regular file", str(path))
    if status.st_size > most:
        size = f"{most // _GIB} GiB" if most >= _GIB else f"{most // _MIB} MiB"
        raise OSError(errno.EFBIG, f"is larger than {size}, the most for such a file", str(path))


def _flush_to_disk(path: Path) -> None:
    """Wait until the disk has a file, or, where there is such a thing, the entries of a folder."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
