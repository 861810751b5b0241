"""Freed memory that is held all the same, and the many forms of having too little."""

from __future__ import annotations

import ctypes
import errno
import sys

# What libraries say in exceptions of a general type, and a loader of its killed worker.
_SIGNS = (
    "DefaultCPUAllocator",
    "can't allocate memory",
    "CUDA error: out of memory",
    "ALLOC_FAILED",
    "bad_alloc",
    "unable to allocate shared memory",
    "out of shared memory",
    "is killed by signal: Killed",
    "is killed by signal: Bus error",
)


def release_freed_memory() -> None:
    """Hand freed memory back to the system, where the C library (glibc) can.

    It keeps what it thinks it may need again: after an annotation file was read, many megabytes, which every forked
    process would carry along.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """True where an exception means that there is not enough memory, on a GPU or not; needs no torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
