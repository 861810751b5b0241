"""Decoding images: every file an annotation table can name becomes 8-bit RGB of the annotated frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ciod_core.errors import DataError

EXIF_ORIENTATION = 0x0112
WHITE_16 = 65535


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
        with Image.open(path) as image:
            stored_size = image.size
            if longer_side is not None and image.format == "JPEG":
                image.draft(None, _draft_size(stored_size, longer_side))
            image.load()
            return _upright_rgb(image, stored_size, expected_size, path, annotations)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: image file is missing{listed}; restore it or remove it from the list") from None
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = "is not an image that can be read" if isinstance(error, UnidentifiedImageError) else "is too large"
        raise DataError(f"{path}: {reason}{listed}; replace the file") from None
    except Exception as error:  # Pillow's decoders let out whatever a damaged file provokes.
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: image is truncated or damaged ({reason}){listed}; replace the file") from None


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of an image as `decode_image` turns it, from its header alone.

    One core reads about 17,000 headers a second. Threads make that slower, since Pillow parses headers in Python.

    Raises:
        DataError: the file is missing or is no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # TIFF has its orientation elsewhere, and Pillow has applied it to the size already.
            turned = "exif" in image.info and image.getexif().get(EXIF_ORIENTATION) in (5, 6, 7, 8)
    except FileNotFoundError:
        raise DataError(f"{path}: image file is missing; restore it or remove it from the list") from None
    except Exception as error:  # Pillow's parsers let out whatever a damaged file provokes.
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DataError(f"{path}: is not an image that can be read ({reason}); replace the file") from None
    return (height, width) if turned else (width, height)


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
    orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    upright_size = stored_size[::-1] if orientation in (5, 6, 7, 8) else stored_size
    if expected_size is not None and expected_size not in (upright_size, stored_size):
        raise DataError(
            f"{path}: image is {upright_size[0]}x{upright_size[1]} pixels, {annotations or 'its annotation'} says "
            f"{expected_size[0]}x{expected_size[1]}; correct width and height there or replace the image"
        )
    if orientation != 1 and expected_size in (None, upright_size):
        image = ImageOps.exif_transpose(image)
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
        # Pillow's own conversion cuts everything above 255 to white.
        values_HW = np.clip(np.asarray(image).astype(np.int64), 0, WHITE_16)
        image = Image.fromarray(((values_HW * 255 + WHITE_16 // 2) // WHITE_16).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        # Pillow warns when it has to forget the transparency of a palette by itself.
        image = image.convert("RGBA")
    return image.convert("RGB")
