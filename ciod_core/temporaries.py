"""Temporary files and folders, and those that killed processes left behind.

Each has a name that begins with `TEMPORARY` and is locked by the process that writes it. The lock goes with the
process, however it ends: what nobody has locked is dead. On Windows nothing is known to be.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

TEMPORARY = ".tmp-"


def temporary_name(name: str = "") -> str:
    """A new name for what will be called `name`."""
    return f"{TEMPORARY}{secrets.token_hex(6)}{'-' if name else ''}{name}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Show that a temporary file or folder belongs to a process that lives."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Lend a new folder inside `folder`, which goes when the block ends.

    Raises:
        OSError: it cannot be made.
    """
    temporary = folder / temporary_name()
    temporary.mkdir()
    try:
        with locked(temporary):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def dead_in(folder: Path) -> Iterator[Path]:
    """What killed processes left in a folder; each file or folder goes before the next comes."""
    if sys.platform == "win32" or not folder.is_dir():
        return
    for path in sorted(folder.glob(f"{TEMPORARY}*")):
        with suppress(OSError):  # locked, or gone meanwhile
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield path
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            finally:
                os.close(descriptor)


def remove_dead(folder: Path) -> None:
    """Remove what killed processes left in a folder."""
    for _ in dead_in(folder):
        pass
