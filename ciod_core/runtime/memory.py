"""Memory that was freed, and is held all the same."""

from __future__ import annotations

import ctypes
import sys


def release_freed_memory() -> None:
    """Hand freed memory back to the system, where the C library (glibc) can.

    It keeps what it thinks it may need again: after an annotation file was read, many megabytes, which every forked
    process would carry along.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
