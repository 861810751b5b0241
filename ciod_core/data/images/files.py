"""Image files by name: which are there, which are missing, which paths are refused. None of them is opened."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.errors import DataError
from ciod_core.files import is_inside

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image; hidden files, such as those macOS leaves, are not."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def images_below(folder: Path) -> list[Path]:
    """All image files in a folder and its subfolders, in no particular order."""
    return [Path(parent, name) for parent, _, names in os.walk(folder) for name in names if is_image_name(name)]


def image_path(root: Path, file_name: str, annotations: Path | None = None) -> Path:
    """The path of an image, refused when it leaves the image folder.

    Raises:
        DataError: the name is absolute or climbs out of the folder.
    """
    if not is_inside(file_name):
        raise DataError(
            f"{annotations or root}: file_name {file_name!r} does not stay inside {root}; "
            "write it relative to that folder and without '..'"
        )
    return root / PurePosixPath(file_name)


def check_images_exist(table: AnnotationTable, root: Path) -> None:
    """Check that every image of a table is a file below `root`, listing each folder once.

    Raises:
        DataError: the folder or files are missing; the message names the first and counts the others.
    """
    listed_in = table.path or "the annotations"
    if not root.is_dir():
        raise DataError(f"{root}: no such image folder (for {listed_in}); restore it")
    missing = _missing(table.file_names_I.tolist(), root)
    if missing:
        raise DataError(
            f"{image_path(root, missing[0], table.path)}: image file is missing ({len(missing)} of {table.num_images} "
            f"images listed in {listed_in} are missing); restore them or remove them from the list"
        )


def _missing(names: list[str], root: Path) -> list[str]:
    """The names that are no files below `root`, found by listing every folder once."""
    nested = [name.rpartition("/")[0] for name in names if "/" in name]
    # A hundred thousand Path objects would cost more than all the rest.
    present = set(os.listdir(root))  # noqa: PTH208
    for folder in set(nested):
        path = image_path(root, f"{folder}/x").parent
        if path.is_dir():
            present.update(f"{folder}/{name}" for name in os.listdir(path))  # noqa: PTH208
    return [name for name in names if name not in present]
