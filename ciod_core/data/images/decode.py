"""Decoding images: every file an annotation table can name becomes 8-bit RGB of the annotated frame."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from ciod_core.data.images.files import there_is
from ciod_core.errors import DataError
from ciod_core.files import MostBytes, open_readable

EXIF_ORIENTATION = 0x0112
WHITE_16 = 65535
# What turns an image that was stored with this EXIF orientation upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ON_ITS_SIDE = (5, 6, 7, 8)
# Rows of a 16-bit image that are converted at a time.
BAND = 256

_quiet_lock = threading.Lock()
_quiet_threads = 0
_quiet = warnings.catch_warnings()


class ImageHeader(NamedTuple):
    """What the header of an image file says.

    Attributes:
        size: width and height in pixels of the upright image.
        orientation: EXIF orientation, 1 to 8; 1: the image is stored upright.
    """

    size: tuple[int, int]
    orientation: int

    @property
    def looks_the_same_turned(self) -> bool:
        """Whether the size alone does not tell the image as stored from the upright one, which differ."""
        return self.orientation != 1 and (self.orientation not in ON_ITS_SIDE or self.size[0] == self.size[1])


def decode_image(
    path: Path,
    expected_size: tuple[int, int] | None = None,
    *,
    longer_side: int | None = None,
    annotations: Path | None = None,
) -> Image.Image:
    """Read an image as 8-bit RGB, turned upright.

    The EXIF orientation is applied, unless only the image as stored has the annotated size: then the boxes
    speak of the stored frame. A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as its longer side
    stays at least `longer_side`, which saves most of the decoding time of large photographs. Gray levels of 16 bits
    are divided by 257, whatever the values in the image: a dark image stays dark.

    Args:
        path: the image file.
        expected_size: (width, height) that the annotations state; None skips the comparison.
        longer_side: the size in pixels that the image will be resized to; None decodes in full.
        annotations: the annotation file, for messages.

    Raises:
        DataError: the file is missing, is no image, is truncated, has floating-point pixels or differs in size from
            its annotation.
    """
    listed = f" (listed in {annotations})" if annotations else ""
    try:
        with _opened(path) as image:
            stored_size = image.size
            if longer_side is not None and image.format == "JPEG":
                image.draft(None, _draft_size(stored_size, longer_side))
            image.load()
            return _upright_rgb(image, stored_size, expected_size, path, annotations)
    except DataError:
        raise
    except FileNotFoundError:
        raise _missing(path, listed) from None
    except Image.DecompressionBombError as error:
        raise _too_large(path, error, listed) from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: is not an image that can be read{listed}; replace the file") from None
    except Exception as error:  # Pillow's decoders let out whatever a damaged file provokes.
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: image is truncated or damaged ({reason}){listed}; replace the file") from None


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of an image as `decode_image` turns it; see `read_header`."""
    return read_header(path).size


def read_header(path: Path) -> ImageHeader:
    """Size and orientation of an image, without decoding it.

    One core reads about 17,000 headers a second. Threads make that slower, since Pillow parses headers in Python.

    Raises:
        DataError: the file is missing, is no image or is too large.
    """
    try:
        with _opened(path) as image:
            width, height = image.size
            # TIFF has its orientation elsewhere, and Pillow has applied it to the size already.
            orientation = _orientation(image) if "exif" in image.info else 1
    except FileNotFoundError:
        raise _missing(path) from None
    except Image.DecompressionBombError as error:
        raise _too_large(path, error) from None
    except Exception as error:  # Pillow's parsers let out whatever a damaged file provokes.
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DataError(f"{path}: is not an image that can be read ({reason}); replace the file") from None
    return ImageHeader((height, width) if orientation in ON_ITS_SIDE else (width, height), orientation)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image of which the header is read; refuses what `open_readable` refuses."""
    with _pillow_quiet(), open_readable(path, MostBytes.IMAGE) as stream, Image.open(stream) as image:
        yield image


@contextmanager
def _pillow_quiet() -> Iterator[None]:
    """Without Pillow's warnings: of damaged metadata and large images, which are read all the same, naming no file.

    Filters belong to the process and not to a thread, so the first thread in sets one and the last one out removes it.
    """
    global _quiet, _quiet_threads
    with _quiet_lock:
        if not _quiet_threads:
            _quiet = warnings.catch_warnings()
            _quiet.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_threads += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_threads -= 1
            if not _quiet_threads:
                _quiet.__exit__(None, None, None)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 where there is none or none that can be read."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # Pillow lets out whatever damaged metadata provoke, while the pixels may be sound.
        return 1
    return orientation if orientation in UPRIGHT else 1


def _missing(path: Path, listed: str = "") -> DataError:
    return DataError(f"{path}: image file is missing{listed}; restore it or remove it from the list{there_is(path)}")


def _too_large(path: Path, error: Image.DecompressionBombError, listed: str = "") -> DataError:
    # "Image size (200000000 pixels) exceeds limit of 178956970 pixels, could be …"
    numbers = str(error).partition(",")[0].removeprefix("Image ")
    return DataError(
        f"{path}: is too large{listed}: {numbers}; scale it down or cut it into tiles, and its boxes with it"
    )


def _draft_size(size: tuple[int, int], longer_side: int) -> tuple[int, int]:
    ratio = min(1.0, longer_side / max(size))
    return max(1, int(size[0] * ratio)), max(1, int(size[1] * ratio))


def _upright_rgb(
    image: Image.Image,
    stored_size: tuple[int, int],
    expected_size: tuple[int, int] | None,
    path: Path,
    annotations: Path | None,
) -> Image.Image:
    orientation = _orientation(image)
    upright_size = stored_size[::-1] if orientation in ON_ITS_SIDE else stored_size
    if expected_size is not None and expected_size not in (upright_size, stored_size):
        raise DataError(
            f"{path}: image is {upright_size[0]}x{upright_size[1]} pixels, {annotations or 'its annotation'} says "
            f"{expected_size[0]}x{expected_size[1]}; correct width and height there or replace the image"
        )
    if orientation != 1 and expected_size in (None, upright_size):
        image = image.transpose(UPRIGHT[orientation])
    return to_rgb(image, path)


def to_rgb(image: Image.Image, where: object) -> Image.Image:
    """8-bit RGB; alpha is dropped, as other readers do, so that colors under transparent pixels show.

    Raises:
        DataError: floating-point pixels; the message begins with `where`.
    """
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise DataError(
            f"{where}: pixels are floating-point numbers without a defined white; save 8 or 16 bits a channel"
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _gray_of_16_bits(image)
    elif image.mode == "P" and "transparency" in image.info:
        # Pillow warns when it has to forget the transparency of a palette by itself.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _gray_of_16_bits(image: Image.Image) -> Image.Image:
    """The 8-bit image of one with 16 bits; Pillow's own conversion cuts everything above 255 to white."""
    gray_HW = np.empty((image.height, image.width), dtype=np.uint8)
    for top in range(0, image.height, BAND):
        # In bands: the numbers of a whole large image would take gigabytes.
        band = image.crop((0, top, image.width, min(top + BAND, image.height)))
        values_HW = np.asarray(band).clip(0, WHITE_16).astype(np.uint32)
        gray_HW[top : top + BAND] = (values_HW * 255 + WHITE_16 // 2) // WHITE_16
    return Image.fromarray(gray_HW)
