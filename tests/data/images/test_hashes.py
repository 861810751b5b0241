"""Hashes of image files are computed once, and never those of another content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from ciod_core.data.images import hashes as module
from ciod_core.data.images.hashes import ImageHashes
from ciod_core.data.images.scan import unlabeled_images
from ciod_core.errors import DataError
from ciod_core.files import MostBytes


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file that was last changed an hour ago."""
    path = tmp_path / "1.png"
    write(path, b"one", age=3600)
    return path


def write(path: Path, content: bytes, *, age: float = 0.0) -> None:
    path.write_bytes(content)
    changed = path.stat().st_mtime - age
    os.utime(path, (changed, changed))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Fills with the files that are read."""
    seen: list[Path] = []
    real = module.sha256_of_file

    def watched(path: Path, most: MostBytes) -> str:
        seen.append(path)
        return real(path, most)

    monkeypatch.setattr(module, "sha256_of_file", watched)
    return seen


def test_a_file_is_read_once_also_by_the_next_command(image: Path, reads: list[Path]) -> None:
    cache = image.parent / "cache.json"
    first = ImageHashes(cache)
    assert first.cached(image) is None
    assert first.get(image) == first.get(image) == first.cached(image) == digest(b"one")
    assert not cache.exists()
    first.save()
    assert ImageHashes(cache).get(image) == ImageHashes(cache).cached(image) == digest(b"one")
    assert reads == [image]


@pytest.mark.parametrize(("content", "age"), [(b"two", 1800), (b"longer", 3600)])
def test_a_changed_file_is_read_again(image: Path, content: bytes, age: float) -> None:
    hashes = ImageHashes(image.parent / "cache.json")
    hashes.get(image)
    write(image, content, age=age)
    assert hashes.cached(image) is None
    assert hashes.get(image) == digest(content)


def test_a_file_that_changed_a_moment_ago_is_not_trusted(image: Path) -> None:
    """Its clock may not tell the next change."""
    hashes = ImageHashes()
    write(image, b"one")
    before = image.stat()
    assert hashes.get(image) == digest(b"one")
    image.write_bytes(b"two")
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert hashes.get(image) == digest(b"two")


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b"[]", b"\xff", b'{"files": {"a": [1]}}', b'{"files": {}, "format_version": 9}']
)
def test_a_damaged_cache_counts_as_empty(image: Path, damaged: bytes) -> None:
    cache = image.parent / "cache.json"
    cache.write_bytes(damaged)
    hashes = ImageHashes(cache)
    assert hashes.get(image) == digest(b"one")
    hashes.save()
    assert ImageHashes(cache).cached(image) == digest(b"one")


def test_a_cache_that_cannot_be_written_is_not_written(image: Path) -> None:
    (image.parent / "file").write_text("")
    hashes = ImageHashes(image.parent / "file" / "cache.json")
    assert hashes.get(image) == digest(b"one")
    hashes.save()


def test_a_missing_image(image: Path) -> None:
    with pytest.raises(
        DataError, match=r"none\.png: the image cannot be read \(No such file or directory\); restore it"
    ):
        ImageHashes().get(image.with_name("none.png"))


def test_all_images_of_a_table_in_its_order(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / "images" / f"{number}.png")
    table = unlabeled_images(tmp_path / "images")
    expected = tuple(digest((tmp_path / "images" / f"{number}.png").read_bytes()) for number in range(4))
    assert ImageHashes().for_table(table, tmp_path / "images") == expected
