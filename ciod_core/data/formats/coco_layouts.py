"""COCO layouts: the standard root, exports of annotation programs, or the JSON file alone."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath

from ciod_core.data.formats.base import (
    HELD_OUT_NAMES,
    VAL_NAMES,
    DatasetSource,
    FindOptions,
    SplitFiles,
    exists,
    portable_name,
)
from ciod_core.data.images.files import near_miss
from ciod_core.errors import ConfigError, DataError
from ciod_core.files import LONGEST_PATH, MostBytes, is_inside, open_readable

ROBOFLOW_NAME = "_annotations.coco.json"
# What programs call the only file of an export: CVAT, Label Studio, FiftyOne, supervision and labelme, labelme2coco.
ONLY_NAMES = (
    "annotations/instances_default.json",
    "instances_default.json",
    "result.json",
    "labels.json",
    "annotations.json",
    "annotations/annotations.json",
    "dataset.json",
    ROBOFLOW_NAME,
)
ROOT_PATTERNS = ("instances_{}*.json", "{}*.json")
FIRST_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]++|\\.)*+")')
LAST_TRAIN = re.compile(r"(.*)train(?:ing)?", re.IGNORECASE)
SPLIT_WORD = re.compile(r"train(?:ing)?|val(?:id(?:ation)?)?|test", re.IGNORECASE)


def find(path: Path, options: FindOptions) -> DatasetSource | None:
    """The dataset of a COCO root, a Roboflow export or a JSON file with the training split; see `Format.find`."""
    if path.suffix.lower() == ".json" and path.is_file():
        return _around_file(path, options)
    return _in_folder(path, options) if path.is_dir() else None


def _in_folder(folder: Path, options: FindOptions) -> DatasetSource | None:
    train = _file_in(folder, ("train",)) or _only_file(folder)
    if train is None:
        return None
    return _source(folder, train, options.val or _file_in(folder, VAL_NAMES) or _file_in(folder, ("test",)), options)


def _around_file(train: Path, options: FindOptions) -> DatasetSource:
    folder = train.absolute().parent
    if folder.name == "annotations" or (train.name == ROBOFLOW_NAME and folder.name == "train"):
        folder = folder.parent
    return _source(folder, train, options.val or _sibling(train), options)


def first_file_name(path: Path) -> str | None:
    """The first `file_name` of a COCO file, found without parsing hundreds of megabytes; None when there is none.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with (
            open_readable(path, MostBytes.ANNOTATIONS) as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            match = FIRST_FILE_NAME.search(content)
            return None if match is None else str(json.loads(match[1]))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); pass the path of a COCO annotation file") from None
    except ValueError:  # An empty file or broken text: the reader says what is wrong with it.
        return None


def _source(folder: Path, train: Path, val: Path | None, options: FindOptions) -> DatasetSource:
    if val is None and options.val_images is not None:
        raise ConfigError("`val_images`: there is no validation file for these images; pass it with `val`")
    return DatasetSource(
        name=folder.resolve().name,
        train=SplitFiles(train, _image_dir(train, options.images, "images")),
        val=None if val is None else SplitFiles(val, _image_dir(val, options.val_images, "val_images")),
    )


def _file_in(folder: Path, words: tuple[str, ...]) -> Path | None:
    """The annotation file of a split in a root or an export."""
    for pattern in ROOT_PATTERNS:
        # CVAT writes the names of its subsets, which are often Train and Validation.
        found = {
            path
            for path in (folder / "annotations").glob("*.json")
            if any(fnmatchcase(path.name.lower(), pattern.format(word)) for word in words)
        }
        if found:
            return _only(found, folder / "annotations", words[0])
    exported = {folder / word / ROBOFLOW_NAME for word in words}
    return _only({path for path in exported if path.is_file()}, folder, words[0])


def _only_file(folder: Path) -> Path | None:
    """The file of an export that has no splits; other programs have files of these names, too."""
    named = {folder / name for name in ONLY_NAMES if (folder / name).is_file()}
    return _only({path for path in named if first_file_name(path)}, folder, "train")


def _sibling(train: Path) -> Path | None:
    """The validation file that is named, or whose folder is named, as the training file with val for train, if any."""
    folder = train.absolute().parent
    base = folder
    named: dict[str, Path] = {}
    if LAST_TRAIN.match(train.stem):
        present = {path.name.lower(): path for path in train.parent.glob("*.json")}
        named = {word: train.with_stem(_renamed(train.stem, word)) for word in HELD_OUT_NAMES}
        named = {word: present.get(path.name.lower(), path) for word, path in named.items()}
        base = train.parent
    elif LAST_TRAIN.match(folder.name):
        named = {word: folder.with_name(_renamed(folder.name, word)) / train.name for word in HELD_OUT_NAMES}
        base = folder.parent
    found = {word: path for word, path in named.items() if path.is_file()}
    if len(found) > 1:
        found.pop("test", None)
    return _only(set(found.values()), base, "val")


def _renamed(name: str, word: str) -> str:
    return LAST_TRAIN.sub(rf"\g<1>{word}", name, count=1)


def _only(found: set[Path], folder: Path, split: str) -> Path | None:
    if len(found) > 1:
        names = ", ".join(sorted(path.relative_to(folder).as_posix() for path in found))
        place = "as `dataset`" if split == "train" else "with `val`"
        raise DataError(f"{folder}: several files for {split} ({names}); pass the one that counts {place}")
    return next(iter(found), None)


def _image_dir(annotations: Path, override: Path | None, option: str) -> Path:
    if override is not None:
        if not override.is_dir():
            raise DataError(f"`{option}`: {override}: no such folder; pass the folder that file_name is relative to")
        return override
    named = [folder for folder in _named_folders(annotations) if folder.is_dir()]
    parent = annotations.absolute().parent
    others = [parent, parent / "images", parent / "data", parent.parent / "images", parent.parent]
    first = first_file_name(annotations)
    if first and Path(first).is_absolute():
        others.append(Path(first).parent)
    holding = _holding([*named, *others], first) if first else [*named, *others][0]
    # A folder of the split's name is the right one even when its images are gone: what is missing is counted later.
    found = holding or next(iter(named), None)
    if found is None:
        near = next(filter(None, (near_miss(folder / str(first)) for folder in (*named, *others))), None)
        raise DataError(
            f"{annotations}: its first image {first!r} is in no folder near it; "
            f"pass the folder that file_name is relative to with `{option}`"
            f"{f'; there is {near}' if near else ''}"
        )
    return found


def _holding(folders: Sequence[Path], first: str) -> Path | None:
    """The folder that holds the image of this name, if need be without folders of another machine in front of it."""
    plain = (folder for folder in folders if is_inside(first) and exists(folder / portable_name(folder, first)))
    shortened = (folder for folder in folders if _foreign_parts(folder, first))
    return next(chain(plain, shortened), None)


def names_below(image_dir: Path, names: Sequence[str]) -> list[str]:
    """The file names of a COCO file relative to the image folder.

    Exports made on Windows have backslashes; others have the folders of the machine they were made on in front, as many
    for every image as for the first one, whose file tells how many.
    """
    portable = [portable_name(image_dir, name) for name in names]
    foreign = _foreign_parts(image_dir, portable[0]) if portable else 0
    if not foreign:
        return portable
    paths = [PurePosixPath(name) for name in portable]
    shortened = [PurePosixPath(*path.parts[foreign:]).as_posix() if len(path.parts) > foreign else "" for path in paths]
    return shortened if "" not in shortened and len(set(shortened)) == len(set(portable)) else portable


def _foreign_parts(folder: Path, name: str) -> int:
    """How many leading parts of a file name to leave out so that the file is in this folder; 0 where none helps."""
    parts = PureWindowsPath(name).parts
    if ".." in parts or len(name) > LONGEST_PATH or (exists(folder / name) and is_inside(name)):
        return 0
    return next((count for count in range(1, len(parts)) if exists(folder.joinpath(*parts[count:]))), 0)


def _named_folders(annotations: Path) -> Iterator[Path]:
    """Folders that hold the images of this split in the usual layouts, the most usual first."""
    if annotations.name == ROBOFLOW_NAME:
        yield annotations.parent
        return
    suffix = annotations.stem.removeprefix("instances_")
    split = SPLIT_WORD.search(suffix)
    names = (suffix,) if split is None else (suffix, split[0])
    parent = annotations.absolute().parent
    for base in (parent.parent, parent):
        yield from (base / name for name in names)
        yield from (base / "images" / name for name in names)
