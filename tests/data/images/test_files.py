"""Image files in folders and their sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ciod_core.data.images.decode import EXIF_ORIENTATION, decode_image, upright_size
from ciod_core.data.images.files import images_below
from ciod_core.errors import DataError


@pytest.mark.parametrize("orientation", [None, 1, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp"])
def test_the_size_is_that_of_the_upright_image(tmp_path: Path, suffix: str, orientation: int | None) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    if orientation is not None:
        exif[EXIF_ORIENTATION] = orientation
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    turned = orientation in (5, 6, 7, 8) and suffix != "bmp"
    assert upright_size(path) == ((20, 40) if turned else (40, 20))
    assert decode_image(path, upright_size(path)).size == upright_size(path)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jpg: image file is missing; restore it or remove it"):
        upright_size(tmp_path / "a.jpg")
    for content in (b"", b"text", b"\xff\xd8\xff\xe0"):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.jpg: is not an image that can be read \(\w+\); replace the file"):
            upright_size(tmp_path / "a.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(DataError, match=r"\(Is a directory\)"):
        upright_size(tmp_path / "folder.jpg")


def test_images_below_a_folder(tmp_path: Path) -> None:
    names = {"a.jpg", "b.JPEG", "sub/deep/c.png", "d.tiff"}
    for name in (*names, "._a.jpg", "a.txt", "sub/labels.cache"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    found = {path.relative_to(tmp_path).as_posix() for path in images_below(tmp_path)}
    assert found == {*names, "link.jpg"}
