"""Pascal VOC: a folder with Annotations, JPEGImages and ImageSets/Main, often one year of a VOCdevkit."""

from __future__ import annotations

from pathlib import Path

from ciod_core.data.formats.layouts.base import DatasetSource, SplitFiles
from ciod_core.data.formats.text_files import read_lines
from ciod_core.errors import DataError

LISTS = Path("ImageSets", "Main")
DEVKIT = "VOCdevkit"


def voc_in_folder(folder: Path, *, val_optional: bool = False) -> DatasetSource | None:
    """The dataset of a VOC folder, or of the only one in a VOCdevkit; None when there is none.

    Raises:
        DataError: there are several, or the lists do not give two halves.
    """
    for base in (folder, folder / DEVKIT):
        found = [base] if _is_voc(base) else sorted(path.parents[1] for path in base.glob(f"*/{LISTS.as_posix()}"))
        found = [path for path in found if _is_voc(path)]
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise DataError(f"{base}: holds several datasets ({names}); pass one of them, such as {found[0]}")
        if found:
            return _source(found[0], val_optional=val_optional)
    return None


def listed_names(path: Path) -> list[str]:
    """The image names, without suffix, in a list of ImageSets/Main; duplicates stay.

    Raises:
        DataError: the list cannot be read or is empty.
    """
    names = read_lines(path, "the list of image names")
    if not names:
        raise DataError(f"{path}: is empty; list one image name without suffix in each line")
    return names


def annotation_path(listing: Path, name: str) -> Path:
    """The XML file of an image that a list names."""
    return listing.parents[2] / "Annotations" / f"{name}.xml"


def _is_voc(folder: Path) -> bool:
    return (folder / "Annotations").is_dir() and (folder / LISTS).is_dir()


def _source(folder: Path, *, val_optional: bool) -> DatasetSource:
    lists = {name: folder / LISTS / f"{name}.txt" for name in ("trainval", "train", "val", "test")}
    present = {name for name, path in lists.items() if path.is_file()}
    if "test" in present and not _is_annotated(lists["test"]):
        present.remove("test")  # VOC2012 keeps the answers of its test images to itself.
    name, images = folder.resolve().name, folder / "JPEGImages"
    for train, val in (("trainval", "test"), ("train", "val"), ("train", "test")):
        if {train, val} <= present:
            return DatasetSource(name, SplitFiles(lists[train], images), SplitFiles(lists[val], images), format="voc")
    for train in ("trainval", "train"):
        if val_optional and train in present:
            return DatasetSource(name, SplitFiles(lists[train], images), None, format="voc")
    raise DataError(
        f"{folder / LISTS}: no pair of lists for training and validation; "
        "put train.txt and val.txt there, or trainval.txt and a test.txt whose images have annotations"
    )


def _is_annotated(listing: Path) -> bool:
    return annotation_path(listing, listed_names(listing)[0]).is_file()
