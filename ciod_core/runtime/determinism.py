"""Switches that make two runs of the same command equal, bit by bit on a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic


@contextmanager
def reproducible(seed: int, *, strict: bool) -> Iterator[None]:
    """Seed torch and, when `strict`, use deterministic algorithms until the block ends.

    Random draws of the data do not depend on this: they are made from seed, epoch and image.
    """
    torch.manual_seed(seed)
    # Its one switch is a property that type checkers cannot see.
    memory_filling: Any = torch.utils.deterministic
    was_strict = torch.are_deterministic_algorithms_enabled()
    was_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    was_filling = memory_filling.fill_uninitialized_memory
    if strict:
        # cuBLAS reads this when it starts; a user's own value stands.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # A few kernels of GPUs have no deterministic form; they warn and the CPU stays exact.
        torch.use_deterministic_algorithms(True, warn_only=torch.accelerator.is_available())
        # Filling fresh memory guards against reading it uninitialised and costs a tenth of the time on a CPU.
        memory_filling.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_strict, warn_only=was_warning)
        memory_filling.fill_uninitialized_memory = was_filling
