"""Decoding: every fault of an image names the file; every format becomes 8-bit RGB of the annotated frame."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.images.decode import EXIF_ORIENTATION, decode_image, upright_size
from ciod_core.data.images.files import IMAGE_SUFFIXES, check_images_exist, image_path
from ciod_core.errors import DataError

LIST = Path("labels.json")
# Pillow does not write these, or not in every version and build that reads them.
READ_ONLY = {".qoi", ".pbm", ".pgm", *([] if features.check("avif") else [".avif"])}


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, so that a turned image is recognized."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, 0 * x], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("suffix", [suffix for suffix in IMAGE_SUFFIXES if suffix not in READ_ONLY])
def test_every_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    gradient(60, 40).save(tmp_path / f"a{suffix}", **({"format": "MPO"} if suffix == ".mpo" else {}))
    assert upright_size(tmp_path / f"a{suffix}") == (60, 40)
    assert decode_image(tmp_path / f"a{suffix}", (60, 40)).mode == "RGB"


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
    numbers = "size (2400 pixels) exceeds limit of 2000 pixels; scale it down or cut it into tiles"
    assert f"is too large (listed in labels.json): {numbers}" in error_of(tmp_path / "a.png")
    with pytest.raises(DataError, match=re.escape(f"a.png: is too large: {numbers}")):
        upright_size(tmp_path / "a.png")


def test_what_pillow_warns_of_is_read_without_a_word(tmp_path: Path) -> None:
    """In a process of its own, as pytest changes the filters of warnings."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION], exif[0x010F] = 6, "maker of cameras"
    gradient(60, 40).save(tmp_path / "a.jpg", exif=exif)
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    order = ">" if b"Exif\0\0MM" in content else "<"
    place = content.index(struct.pack(f"{order}HHI", 0x010F, 2, len("maker of cameras") + 1))
    content[place + 4 : place + 8] = struct.pack(f"{order}I", 10**6)  # more than there is
    (tmp_path / "a.jpg").write_bytes(content)
    script = (
        "import sys; from pathlib import Path; from PIL import Image; Image.MAX_IMAGE_PIXELS = 2000\n"
        "from ciod_core.data.images.decode import decode_image, upright_size\n"
        "print(upright_size(Path(sys.argv[1])), decode_image(Path(sys.argv[1])).size)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.jpg"], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("(40, 60) (40, 60)\n", "")


def test_damaged_metadata_turn_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(image: Image.Image) -> None:
        raise SyntaxError("not a TIFF file")

    gradient(60, 40).save(tmp_path / "a.jpg", exif=Image.Exif())
    monkeypatch.setattr(Image.Image, "getexif", broken)
    assert decode_image(tmp_path / "a.jpg").size == upright_size(tmp_path / "a.jpg") == (60, 40)


def test_wrong_size_names_both(tmp_path: Path) -> None:
    gradient(60, 40).save(tmp_path / "a.png")
    message = error_of(tmp_path / "a.png", (40, 61))
    assert "image is 60x40 pixels, labels.json says 40x61; correct width and height" in message


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def decoded(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    image = decode_image(path, size)
    assert image.mode == "RGB"
    return np.asarray(image)


def write_png(path: Path, pixels: np.ndarray, color_type: int, bits: int, extra: bytes = b"") -> None:
    """A PNG from raw samples, for what Pillow reads but cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in pixels)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 255, 4))], ids=["opaque", "one", "each"])
def test_a_palette_gives_its_colors_whatever_is_transparent(tmp_path: Path, transparency: int | bytes | None) -> None:
    palette_P3, indices_HW = noise(64, 3), noise(20, 30) % 64
    image = Image.frombytes("P", (30, 20), indices_HW.tobytes())
    image.putpalette(palette_P3.tobytes())
    image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    assert Image.open(tmp_path / "a.png").mode == "P"
    np.testing.assert_array_equal(decoded(tmp_path / "a.png", (30, 20)), palette_P3[indices_HW])


def test_gray_repeats_in_all_channels(tmp_path: Path) -> None:
    gray_HW = noise(20, 30)
    Image.fromarray(gray_HW).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), np.stack([gray_HW] * 3, axis=-1))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits_HW = noise(20, 30) > 127
    Image.fromarray(bits_HW).save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "1"
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), np.stack([bits_HW * 255] * 3, axis=-1))


@pytest.mark.parametrize(("channels", "name"), [(4, "a.png"), (4, "a.webp"), (2, "a.png")])
def test_alpha_is_dropped_not_blended(tmp_path: Path, channels: int, name: str) -> None:
    pixels = noise(20, 30, channels)
    pixels[:10, ..., -1] = 0
    Image.fromarray(pixels).save(tmp_path / name, lossless=True, exact=True)
    colors = pixels[..., :3] if channels == 4 else np.repeat(pixels[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(decoded(tmp_path / name), colors)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "big-endian.tif"])
@pytest.mark.parametrize("top", [65535, 4000, 200])
def test_sixteen_bit_gray_is_scaled_by_its_depth_not_its_values(tmp_path: Path, name: str, top: int) -> None:
    values_HW = np.linspace(0, top, 600).astype(np.uint16).reshape(20, 30)
    if name == "big-endian.tif":
        Image.frombytes("I;16B", (30, 20), values_HW.astype(">u2").tobytes()).save(tmp_path / name)
    else:
        Image.fromarray(values_HW).save(tmp_path / name)
    expected_HW = np.round(values_HW / 257.0)
    np.testing.assert_array_equal(decoded(tmp_path / name), np.stack([expected_HW] * 3, axis=-1))


@pytest.mark.parametrize(("channels", "color_type"), [(3, 2), (4, 6), (2, 4)])
def test_sixteen_bit_colors_keep_their_upper_half(tmp_path: Path, channels: int, color_type: int) -> None:
    pixels = noise(20, 30, channels, dtype=np.uint16)
    write_png(tmp_path / "a.png", pixels, color_type, bits=16)
    colors = pixels[..., :3] if channels > 2 else np.repeat(pixels[..., :1], 3, axis=-1)
    assert np.abs(decoded(tmp_path / "a.png") - colors / 257.0).max() <= 1.0


def test_a_transparent_color_stays_that_color(tmp_path: Path) -> None:
    pixels = noise(20, 30, 3)
    red_green_blue = struct.pack(">HHH", *pixels[4, 5].tolist())
    chunk = struct.pack(">I", 6) + b"tRNS" + red_green_blue + struct.pack(">I", zlib.crc32(b"tRNS" + red_green_blue))
    write_png(tmp_path / "a.png", pixels, color_type=2, bits=8, extra=chunk)
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), pixels)


def multiplied(ink_HW4: np.ndarray) -> np.ndarray:
    """RGB of printing inks: each color's ink and black take their share of white."""
    left = 255.0 - ink_HW4
    return left[..., :3] * left[..., 3:] / 255.0


def test_cmyk_tiff_is_ink(tmp_path: Path) -> None:
    ink_HW4 = noise(20, 30, 4)
    Image.frombytes("CMYK", (30, 20), ink_HW4.tobytes()).save(tmp_path / "a.tif")
    assert np.abs(decoded(tmp_path / "a.tif") - multiplied(ink_HW4)).max() <= 1.0


@pytest.mark.parametrize("longer_side", [None, 30])
def test_cmyk_jpeg_as_adobe_writes_it_is_inverted(tmp_path: Path, longer_side: int | None) -> None:
    """JPEG stores 255 − ink, with a marker by Adobe; Pillow writes it that way too."""
    ink_4 = np.array([200, 40, 90, 30], dtype=np.uint8)
    Image.frombytes("CMYK", (64, 48), np.tile(ink_4, 64 * 48).tobytes()).save(tmp_path / "a.jpg", quality=100)
    assert b"Adobe" in (tmp_path / "a.jpg").read_bytes()[:400]
    image = decode_image(tmp_path / "a.jpg", (64, 48), longer_side=longer_side)
    expected_3 = multiplied(ink_4[None, None])[0, 0]
    np.testing.assert_allclose(
        np.asarray(image).reshape(-1, 3), np.tile(expected_3, (image.width * image.height, 1)), atol=3
    )


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: pixels are floating-point numbers .*; save 8 or 16 bits a channel$"):
        decode_image(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, name: str) -> None:
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
    stored.save(tmp_path / name, exif=exif, **({"quality": 100, "subsampling": 0} if name == "a.jpg" else {}))
    found = decoded(tmp_path / name, (48, 32)).astype(int)
    assert np.abs(found - np.asarray(upright)).max() <= (4 if name == "a.jpg" else 0)


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
    image = decode_image(tmp_path / "a.jpg", (640, 480), longer_side=longer_side)
    assert image.size == size
    expected = np.asarray(gradient(640, 480).resize(size), dtype=int)
    assert np.abs(np.asarray(image, dtype=int) - expected).mean() < 3


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


def test_the_warnings_of_others_stay_as_they_are(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode_image, [tmp_path / "a.png"] * 200))
    assert list(warnings.filters) == before
