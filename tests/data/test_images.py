"""Decoding: every fault of an image names the file; every format becomes 8-bit RGB of the annotated frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ciod_core.data.annotations import AnnotationTable
from ciod_core.data.coco import read_coco
from ciod_core.data.images import EXIF_ORIENTATION, check_images_exist, decode_image, image_path
from ciod_core.errors import DataError

LIST = Path("labels.json")


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, so that a turned image is recognised."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, 0 * x], axis=-1).astype(np.uint8))


def error_of(path: Path, size: tuple[int, int] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        decode_image(path, size, annotations=LIST)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert "labels.json" in message
    return message


def test_missing_image_is_named_with_its_list(tmp_path: Path) -> None:
    assert "image file is missing (listed in labels.json)" in error_of(tmp_path / "none.jpg")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tif"])
def test_truncated_image_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = error_of(path, (60, 40))
    assert "image is truncated or damaged" in message or "is not an image that can be read" in message


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_images_are_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert "replace the file" in error_of(path)


def test_folder_in_place_of_an_image_is_named(tmp_path: Path) -> None:
    assert "Is a directory" in error_of(tmp_path)


def test_oversized_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradient(60, 40).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "is too large" in error_of(tmp_path / "a.png")


def test_wrong_size_names_both(tmp_path: Path) -> None:
    gradient(60, 40).save(tmp_path / "a.png")
    message = error_of(tmp_path / "a.png", (40, 61))
    assert "image is 60x40 pixels, labels.json says 40x61; correct width and height" in message


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    source = gradient(30, 20).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    source.save(path)
    decoded = decode_image(path, (30, 20))
    assert (decoded.mode, decoded.size) == ("RGB", (30, 20))
    expected = np.asarray(source.convert("RGB"), dtype=int)
    assert np.abs(np.asarray(decoded, dtype=int) - expected).max() <= 1


def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    decoded = np.asarray(decode_image(tmp_path / "a.png", (8, 8)))
    np.testing.assert_allclose(decoded[..., 0], values / 257.0, atol=1.0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = gradient(48, 32)
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(decode_image(tmp_path / "a.png", (48, 32))), np.asarray(upright))


def test_boxes_of_the_stored_frame_keep_the_stored_frame(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    gradient(48, 32).save(tmp_path / "a.png", exif=exif)
    assert decode_image(tmp_path / "a.png", (48, 32)).size == (48, 32)
    assert decode_image(tmp_path / "a.png", (32, 48)).size == (32, 48)
    assert "image is 32x48 pixels" in error_of(tmp_path / "a.png", (47, 32))


@pytest.mark.parametrize(
    ("longer_side", "size"),
    [(None, (640, 480)), (640, (640, 480)), (320, (320, 240)), (200, (320, 240)), (96, (160, 120))],
)
def test_large_jpegs_are_decoded_reduced_but_never_below_the_wanted_size(
    tmp_path: Path, longer_side: int | None, size: tuple[int, int]
) -> None:
    gradient(640, 480).save(tmp_path / "a.jpg", quality=95)
    decoded = decode_image(tmp_path / "a.jpg", (640, 480), longer_side=longer_side)
    assert decoded.size == size
    expected = np.asarray(gradient(640, 480).resize(size), dtype=int)
    assert np.abs(np.asarray(decoded, dtype=int) - expected).mean() < 3


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "a/../../b.jpg", "C:/a.jpg", "a\\..\\..\\b.jpg", "", ".."])
def test_names_that_climb_out_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"labels\.json: file_name .* does not stay inside"):
        image_path(Path("images"), name, LIST)


@pytest.mark.parametrize("name", ["a.jpg", "sub/a.jpg", "./a.jpg", "..a.jpg", "a..jpg", "ü ö.jpg", "-a.jpg"])
def test_names_that_stay_inside_are_joined(name: str) -> None:
    assert image_path(Path("images"), name) == Path("images") / name


@pytest.fixture
def listed(coco_file: Callable[..., Path], tmp_path: Path) -> tuple[AnnotationTable, Path]:
    table = read_coco(coco_file())
    root = tmp_path / "images"
    for name in table.file_names_I.tolist():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return table, root


def test_existing_images_pass(listed: tuple[AnnotationTable, Path]) -> None:
    check_images_exist(*listed)


def test_missing_images_are_counted_and_the_first_named(listed: tuple[AnnotationTable, Path]) -> None:
    table, root = listed
    (root / "sub" / "a.jpg").unlink()
    (root / "sub").rmdir()
    (root / "b.jpg").unlink()
    with pytest.raises(DataError) as caught:
        check_images_exist(table, root)
    assert str(caught.value).startswith(f"{root / 'sub' / 'a.jpg'}: image file is missing (2 of 3 images listed in ")


def test_missing_folder_is_named(listed: tuple[AnnotationTable, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none: no such image folder \(for .*instances\.json\)"):
        check_images_exist(listed[0], tmp_path / "none")


@pytest.mark.parametrize(("name", "suffix"), [("bccd", ""), ("neu-det", ""), ("coco-tiny", "2017")])
def test_real_images_exist_and_have_their_annotated_size(real_data: Path, name: str, suffix: str) -> None:
    table = read_coco(real_data / name / "annotations" / f"instances_val{suffix}.json")
    root = real_data / name / f"val{suffix}"
    check_images_exist(table, root)
    for image in range(0, table.num_images, 8):
        size = int(table.widths_I[image]), int(table.heights_I[image])
        assert decode_image(root / str(table.file_names_I[image]), size).size == size
