"""Temporary files and folders, and those that killed processes left behind.

Each has a name that begins with `TEMPORARY` and is locked by the process that writes it. The lock goes with the
process, however it ends: what nobody has locked is dead. On Windows nothing is known to be.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

TEMPORARY = ".tmp-"
# In a temporary folder, what has to be undone before it may go; `ciod_core.experiment.transaction` does it.
JOURNAL_NAME = "journal.json"


def temporary_name(name: str = "") -> str:
    """A new name for what will be called `name`."""
    return f"{TEMPORARY}{secrets.token_hex(6)}{'-' if name else ''}{name}"


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Lend a new, empty file beside `path`, which goes when the block ends unless it was renamed.

    Raises:
        OSError: it cannot be made.
    """
    with _locked(lambda: path.with_name(temporary_name(path.name)), lambda new: new.touch(exist_ok=False)) as temporary:
        try:
            yield temporary
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Lend a new folder inside `folder`, which goes when the block ends.

    Raises:
        OSError: it cannot be made.
    """
    with _locked(lambda: folder / temporary_name(), Path.mkdir) as temporary:
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _locked(choose: Callable[[], Path], make: Callable[[Path], None]) -> Iterator[Path]:
    """Make a file or folder, and show while the block runs that it belongs to a process that lives."""
    if sys.platform == "win32":
        path = choose()
        make(path)
        yield path
        return
    while True:
        path = choose()
        make(path)
        # Before it is locked, others may take it for dead, and remove it; then another is made.
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                break
            os.close(descriptor)
    try:
        yield path
    finally:
        os.close(descriptor)


def dead_in(folder: Path) -> Iterator[Path]:
    """What killed processes left in a folder; each file, and folder without a journal, goes before the next comes."""
    if sys.platform == "win32" or not folder.is_dir():
        return
    for path in sorted(folder.glob(f"{TEMPORARY}*")):
        with suppress(OSError):  # locked, or gone meanwhile
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield path
                if not path.is_dir():
                    path.unlink()
                elif not (path / JOURNAL_NAME).is_file():
                    shutil.rmtree(path)
            finally:
                os.close(descriptor)


def remove_dead(folder: Path) -> None:
    """Remove what killed processes left in a folder, but for what has a journal."""
    for _ in dead_in(folder):
        pass
