"""Freed memory goes back to the system."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import pytest

from ciod_core.runtime.memory import release_freed_memory


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory this way")
def test_freed_memory_is_given_back_below_memory_in_use() -> None:
    # Small enough to come from the heap; the last one, still in use, keeps the heap from shrinking by itself.
    blocks = [np.ones(100_000, dtype=np.uint8) for _ in range(600)]
    kept = blocks.pop()
    del blocks
    before = resident_bytes()
    release_freed_memory()
    assert before - resident_bytes() > 30_000_000
    assert kept.all()
