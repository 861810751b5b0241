"""The cache gives the same table as reading, notices every change and is never needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciod_core.data.annotations.json_rows import JsonRows
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats import annotation_cache
from ciod_core.data.formats.annotation_cache import CACHE_VARIABLE, cached_table
from ciod_core.data.formats.coco import read_coco, write_coco

YEAR_AGO = 31_536_000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that takes even the smallest file."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(annotation_cache, "SMALLEST_FILE", 1)
    return tmp_path / "cache" / "annotations"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old enough to be remembered by their times."""
    monkeypatch.setattr(annotation_cache, "SETTLED_AFTER_SECONDS", -1.0)


class Reader:
    """Counts how often the annotation file itself is read."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, path: Path) -> AnnotationTable:
        self.calls += 1
        return read_coco(path)


def same(first: AnnotationTable, second: AnnotationTable) -> None:
    for field in fields(AnnotationTable):
        expected, found = getattr(first, field.name), getattr(second, field.name)
        if isinstance(expected, JsonRows):
            assert b"".join(expected.blocks()) == b"".join(found.blocks())
        elif isinstance(expected, np.ndarray):
            assert expected.dtype == found.dtype, field.name
            np.testing.assert_array_equal(expected, found, err_msg=field.name)
        else:
            assert expected == found, field.name


def stick_out(content: dict[str, Any]) -> None:
    content["annotations"][0]["bbox"] = [-5, 2, 20, 100]
    content["images"][0]["file_name"] = "ü ö/ñ.jpg"


@pytest.mark.usefixtures("settled")
def test_a_second_reading_gives_the_same_table_and_the_same_files(
    coco_file: Callable[..., Path], tmp_path: Path
) -> None:
    path, reader = coco_file(stick_out), Reader()
    first, second = cached_table(path, reader), cached_table(path, reader)
    assert reader.calls == 1
    assert second.clipped_boxes == 1
    same(first, second)
    assert write_coco(first, tmp_path / "a.json") == write_coco(second, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_the_same_content_elsewhere_is_known_and_keeps_its_own_path(
    coco_file: Callable[..., Path], cache: Path
) -> None:
    reader = Reader()
    cached_table(coco_file(), reader)
    other = coco_file(name="copy.json")
    assert cached_table(other, reader).path == other
    assert reader.calls == 1
    assert not list(cache.glob("*.json")), "a file that was just written is not remembered by its times"


@pytest.mark.usefixtures("settled")
def test_a_change_of_the_same_size_and_time_is_noticed(coco_file: Callable[..., Path], cache: Path) -> None:
    path, reader = coco_file(), Reader()
    status = path.stat()
    cached_table(path, reader)
    assert list(cache.glob("*.json"))

    def other_box(content: dict[str, Any]) -> None:
        content["annotations"][0]["bbox"] = [2.5, 2, 10, 20]

    coco_file(other_box)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert 2.5 in cached_table(path, reader).boxes_N4[:, 0]
    assert reader.calls == 2


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("pattern", ["*.safetensors", "*.box_json.npy", "*.json"])
@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_entry_is_read_anew(
    coco_file: Callable[..., Path], cache: Path, pattern: str, damage: bytes | None
) -> None:
    path, reader = coco_file(), Reader()
    first = cached_table(path, reader)
    for file in cache.glob(pattern):
        file.unlink() if damage is None else file.write_bytes(damage)
    same(first, cached_table(path, reader))


def test_a_cache_that_cannot_be_written_is_done_without(
    coco_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    reader = Reader()
    assert cached_table(coco_file(), reader).num_boxes == cached_table(coco_file(), reader).num_boxes == 4
    assert reader.calls == 2


def test_small_files_are_not_kept(coco_file: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotation_cache, "SMALLEST_FILE", 2**20)
    assert cached_table(coco_file(), read_coco).box_json is None
    assert not cache.exists()


@pytest.mark.usefixtures("settled")
def test_the_least_recently_used_entries_go_first(
    coco_file: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named(name: str) -> Callable[[dict[str, Any]], None]:
        return lambda content: content["images"][0].update(file_name=name)

    paths = [coco_file(named(f"{name}.jpg"), f"{name}.json") for name in "ab"]
    entries = [next(cache.glob(f"{cached_table(path, read_coco).sha256}*.safetensors")) for path in paths]
    os.utime(entries[1], (entries[1].stat().st_atime, entries[1].stat().st_mtime - YEAR_AGO))
    files = [path for path in cache.iterdir() if path.suffix != ".json"]
    monkeypatch.setattr(annotation_cache, "LARGEST_CACHE", sum(path.stat().st_size for path in files))
    third = cached_table(coco_file(named("c.jpg"), "c.json"), read_coco)
    left = {path.name for path in cache.glob("*.safetensors")}
    assert entries[0].name in left
    assert entries[1].name not in left
    assert any(name.startswith(third.sha256) for name in left)
    assert len(list(cache.glob("*.npy"))) == 4
