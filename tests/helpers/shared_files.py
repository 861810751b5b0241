"""Files that take long to make: one for all processes that test side by side."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The file of this name, made by the first test that needs it; read only.

    Args:
        factory: of the temporary folders; those of the processes of one pytest-xdist run have one parent.
        name: of the file, unique in the suite.
        make: writes it, the same whoever calls it.
    """
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "made-once"
    folder.mkdir(exist_ok=True)
    path = folder / name
    with FileLock(f"{path}.lock"):
        if not path.exists():
            make(path)
    return path
