"""Pipes, devices, folders and files without end are refused, not read."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ciod_core.errors import ConfigError
from ciod_core.files import MostBytes, check_readable, open_readable, sha256_of_file
from tests.helpers.readers import READERS, time_limit


def named_pipe(path: Path) -> None:
    os.mkfifo(path)


def endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse_terabytes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**42)


OBSTACLES: tuple[Callable[[Path], None], ...] = (named_pipe, endless_device, sparse_terabytes, Path.mkdir)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs named pipes and devices")
@pytest.mark.parametrize("obstacle", OBSTACLES)
@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_file_of_a_bounded_size(kind: str, obstacle: Callable[[Path], None], tmp_path: Path) -> None:
    reader = READERS[kind]
    if kind == "onnx model":
        pytest.importorskip("onnxruntime")
    reader.make(tmp_path)
    path = tmp_path / reader.name
    path.unlink()
    obstacle(path)
    # Nobody passes a metrics.csv.
    refusals = (*reader.refusals, ConfigError, *((OSError,) if kind == "metrics" else ()))
    with time_limit(), suppress(*refusals):
        reader.read(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs named pipes and devices")
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_such_a_file_is_refused_by_name(obstacle: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file"
    obstacle(path)
    for read in (check_readable, open_readable, sha256_of_file):
        with pytest.raises(OSError, match=r"pipe or a device|larger than 2 MiB|Is a directory") as caught:
            read(path, MostBytes.YAML)
        assert caught.value.filename == str(path)
