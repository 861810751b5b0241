"""Image files by name: listing folders, missing files, refused paths. No file is opened."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.errors import DataError
from ciod_core.files import LONGEST_PATH, is_inside

# Those that Pillow decodes and that photographs and scans have.
IMAGE_SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx"),
    *(".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp"),
)

# Nobody looks further for a file that was meant.
MOST_FOLDERS = 100


def is_hidden(name: str) -> bool:
    """True for a file or folder that only a program is to see, such as the `._a.jpg` that macOS leaves."""
    return name.startswith(".")


def is_image_name(name: str) -> bool:
    """True where a file of this name is taken for an image."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)


def images_below(folder: Path) -> list[Path]:
    """All image files in a folder and its subfolders, in no particular order."""
    return [path for path in files_below(folder) if is_image_name(path.name)]


def files_below(folder: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders, hidden ones apart.

    Links to folders are followed; a folder that is there twice, or within itself, counts once, under its own name if it
    has one there.
    """
    starts, seen = [folder], set[str]()
    for start in starts:
        for parent, folders, names in os.walk(start):
            real = os.path.realpath(parent)
            folders[:] = sorted(name for name in folders if not is_hidden(name) and real not in seen)
            if real not in seen:
                seen.add(real)
                # Their turn comes after all that is here in person.
                starts += [path for path in (Path(parent, name) for name in folders) if path.is_symlink()]
                yield from (Path(parent, name) for name in names if not is_hidden(name))


def there_is(path: Path) -> str:
    """For the end of a message: the file that was probably meant by one that is missing, or nothing.

    Its name, or that of a folder on the way, differs by case, Unicode form or `%20` for a space; that of an image also
    by its suffix.
    """
    found = near_miss(path)
    if found is None:
        return ""
    name = found.name if found.parent == path.parent else str(found)
    same_on_screen = unicodedata.normalize("NFKC", found.name) == unicodedata.normalize("NFKC", path.name)
    return f"; there is {ascii(name) if same_on_screen and found.name != path.name else name}"


def near_miss(path: Path) -> Path | None:
    """The file that was probably meant by one that is missing; see `there_is`."""
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for names longer than file systems allow.
        return path
    if len(str(path)) > LONGEST_PATH or len(path.parts) > MOST_FOLDERS:
        return None
    folder = near_miss(path.parent) if path.parent != path else None
    if folder is None:
        return None
    try:
        names = _names_by_spelling(folder, folder.stat().st_mtime_ns)
    except OSError:
        return None
    name = names.get(_spelling(path.name))
    if name is None and is_image_name(path.name):
        name = names.get(_spelling(path.stem))
    # A link may have the very name and lead nowhere.
    return None if name is None or folder / name == path else folder / name


def image_path(image_dir: Path, file_name: str, annotations: Path | None = None) -> Path:
    """The path of an image, refused when it leaves the image folder.

    Raises:
        DataError: the name is absolute or climbs out of the folder.
    """
    if not is_inside(file_name):
        raise DataError(
            f"{annotations or image_dir}: file_name {file_name!r} does not stay inside {image_dir}; "
            "write it relative to that folder and without '..'"
        )
    return image_dir / PurePosixPath(file_name)


def check_images_exist(table: AnnotationTable, image_dir: Path) -> None:
    """Check that every image of a table is a file below `image_dir`, listing each folder once.

    Raises:
        DataError: the folder or files are missing; the message names the first and counts the others.
    """
    listed_in = table.path or "the annotations"
    if not image_dir.is_dir():
        raise DataError(f"{image_dir}: no such image folder (for {listed_in}); restore it")
    missing = _missing(table.file_names_I.tolist(), image_dir)
    if missing:
        first = image_path(image_dir, missing[0], table.path)
        raise DataError(
            f"{first}: image file is missing ({len(missing)} of {table.num_images} images listed in {listed_in} are "
            f"missing); restore them or remove them from the list{there_is(first)}"
        )


def _missing(names: list[str], image_dir: Path) -> list[str]:
    """The names that are no files below `image_dir`, found by listing every folder once."""
    nested = [name.rpartition("/")[0] for name in names if "/" in name]
    # A hundred thousand Path objects would cost more than all the rest.
    present = set(os.listdir(image_dir))  # noqa: PTH208
    for folder in set(nested):
        path = image_path(image_dir, f"{folder}/x").parent
        if os.path.isdir(path):  # noqa: PTH112 - as above
            present.update(f"{folder}/{name}" for name in os.listdir(path))  # noqa: PTH208
    return [name for name in names if name not in present]


@lru_cache(maxsize=64)
def _names_by_spelling(folder: Path, _changed: int) -> dict[str, str]:
    """The names in a folder by what is compared of them; images also without their suffix."""
    names = sorted(name for name in os.listdir(folder) if not is_hidden(name))  # noqa: PTH208
    without_suffix = {_spelling(PurePosixPath(name).stem): name for name in names if is_image_name(name)}
    return without_suffix | {_spelling(name): name for name in names}


def _spelling(name: str) -> str:
    return unicodedata.normalize("NFKC", unquote(name)).casefold()
