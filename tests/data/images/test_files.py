"""Image files in folders and their sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ciod_core.data.images.decode import EXIF_ORIENTATION, decode_image, upright_size
from ciod_core.data.images.files import images_below, there_is
from ciod_core.errors import DataError


@pytest.mark.parametrize("orientation", [None, 1, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp", "gif"])
def test_the_size_is_that_of_the_upright_image(tmp_path: Path, suffix: str, orientation: int | None) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    if orientation is not None:
        exif[EXIF_ORIENTATION] = orientation
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    turned = orientation in (5, 6, 7, 8) and suffix not in ("bmp", "gif")
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
    names = {"a.jpg", "b.JPEG", "sub/deep/c.png", "d.tiff", "e.jfif", "f.avif", "g.JP2", "h.gif", "i.mpo", "j.jpe"}
    for name in (*names, "._a.jpg", ".cache/a.jpg", "Thumbs.db", "a.txt", "sub/labels.cache"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    found = {path.relative_to(tmp_path).as_posix() for path in images_below(tmp_path)}
    assert found == {*names, "link.jpg"}


def test_images_behind_linked_folders(tmp_path: Path) -> None:
    """Each once: a link may lead to a folder that is there anyhow, or around in a circle."""
    for name in ("images/own/a.jpg", "elsewhere/b.jpg", "elsewhere/deep/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for link, target in (("a-link", "elsewhere"), ("own-link", "images/own"), ("own/circle", "images")):
        (tmp_path / "images" / link).symlink_to(tmp_path / target)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "images")
    found = [path.relative_to(tmp_path / "images").as_posix() for path in images_below(tmp_path / "images")]
    assert sorted(found) == ["a-link/b.jpg", "a-link/deep/c.jpg", "own/a.jpg"]
    (tmp_path / "entry").symlink_to(tmp_path / "elsewhere")
    assert images_below(tmp_path / "entry")[0] == tmp_path / "entry" / "b.jpg"


@pytest.mark.parametrize(
    ("missing", "there", "named"),
    [
        ("x.jpg", "x.JPG", "x.JPG"),
        ("x.jpg", "x.png", "x.png"),
        ("sub/x.jpg", "Sub/X.jpg", "{}/Sub/X.jpg"),
        ("a b.jpg", "a%20b.jpg", "a%20b.jpg"),
        ("a%20b.jpg", "a b.jpg", "a b.jpg"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg", r"'cafe\u0301.jpg'"),
        ("cafe\u0301.jpg", "caf\u00e9.JPG", "caf\u00e9.JPG"),
        ("x.txt", "x.jpg", None),
        ("x.jpg", "x.txt", None),
        ("x.jpg", "._x.jpg", None),
        ("x.jpg", "y.jpg", None),
        ("none/x.jpg", "x.jpg", None),
    ],
)
def test_the_file_that_was_meant(tmp_path: Path, missing: str, there: str, named: str | None) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    assert there_is(tmp_path / missing) == ("" if named is None else f"; there is {named.format(tmp_path)}")


def test_a_link_that_leads_nowhere_is_not_what_was_meant(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").symlink_to(tmp_path / "none.jpg")
    assert there_is(tmp_path / "x.jpg") == ""


def test_names_that_no_file_system_has() -> None:
    assert there_is(Path("x" * 5000)) == there_is(Path("a\0b", "c")) == ""
