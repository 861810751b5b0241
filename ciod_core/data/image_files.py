"""Image files in folders, and their sizes without decoding them."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from ciod_core.data.images import EXIF_ORIENTATION
from ciod_core.errors import DataError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image; hidden files, such as those macOS leaves, are not."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def images_below(folder: Path) -> list[Path]:
    """All image files in a folder and its subfolders, in no particular order."""
    return [Path(parent, name) for parent, _, names in os.walk(folder) for name in names if is_image_name(name)]


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
