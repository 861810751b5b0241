"""Locks of files that go with the process that holds them, however it ends."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ciod_core.errors import CiodError

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


class HeldError(Exception):
    """Another process holds the lock."""


@contextmanager
def lock(path: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file, which is made where there is none, for at most one process at a time.

    Args:
        path: the file, in a folder that exists.
        wait: seconds to wait for another process.

    Raises:
        HeldError: another process holds it.
        CiodError: the file system has no locks.
        OSError: the file cannot be made.
    """
    # Imported here: commands that only read an experiment start faster without it.
    from filelock import FileLock, Timeout

    # A file whose existence is the lock would do without locks of the file system, but stay when a process is killed.
    held = FileLock(path, fallback_to_soft=False)
    try:
        held.acquire(timeout=wait)
    except Timeout:
        raise HeldError from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        raise CiodError(
            f"{path}: its file system has no locks, which keep two processes from changing the same files ({error}); "
            "put the experiment on another one"
        ) from error
    try:
        yield
    finally:
        held.release()
