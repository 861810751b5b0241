"""YOLO's data.yaml: where the images of each half lie and what the classes are called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ciod_core.data.annotations.table import Category
from ciod_core.data.formats.layouts.base import HELD_OUT_NAMES, DatasetSource, SplitFiles, exists
from ciod_core.data.formats.text_files import read_lines, read_text
from ciod_core.data.images.files import images_below
from ciod_core.errors import DataError

YAML_NAMES = ("data.yaml", "data.yml")


@dataclass(frozen=True)
class YoloConfig:
    """A data.yaml, understood.

    Attributes:
        path: the file.
        root: folder that lists fall back on for relative names.
        categories: the classes with YOLO's own indices, which start from 0.
        train: folders of images and text lists of images.
        val: the same for the validation half; empty where there is none and none is needed.
    """

    path: Path
    root: Path
    categories: tuple[Category, ...]
    train: tuple[Path, ...]
    val: tuple[Path, ...]


def yolo_in_folder(folder: Path, *, val_optional: bool = False) -> DatasetSource | None:
    """The dataset of a folder with a data.yaml; None when there is none.

    Raises:
        DataError: the file or what it names cannot be used.
    """
    path = next((folder / name for name in YAML_NAMES if (folder / name).is_file()), None)
    return None if path is None else yolo_from_file(path, val_optional=val_optional)


def yolo_from_file(path: Path, *, val_optional: bool = False) -> DatasetSource:
    """The dataset that a YAML file describes.

    Raises:
        DataError: the file is broken, or a half holds no images.
    """
    config = read_yolo_config(path, val_optional=val_optional)
    name = path.absolute().parent.name if path.name in YAML_NAMES else path.stem
    train = SplitFiles(path, _common_folder(config.train, config))
    val = SplitFiles(path, _common_folder(config.val, config)) if config.val else None
    return DatasetSource(name, train, val, format="yolo")


def read_yolo_config(path: Path, *, val_optional: bool = False) -> YoloConfig:
    """Read a data.yaml and find what its train and val entries name.

    Relative entries are looked up below `path`, which itself is relative to the file, and then below the file's
    folder: exports often carry a `path` of the machine they were made on, or start entries with a `../` too many.

    Raises:
        DataError: the file is broken, misses a key or names folders that do not exist.
    """
    content = _load(path)
    if "kpt_shape" in content:
        raise DataError(f"{path}: kpt_shape: keypoint labels are not read; export the dataset for detection")
    roots = _roots(path, content)
    val_key = next((key for key in HELD_OUT_NAMES if content.get(key)), "val")
    has_val = content.get(val_key) is not None or not val_optional
    return YoloConfig(
        path=path,
        root=roots[0],
        categories=_categories(path, content),
        train=_entries(path, "train", content.get("train"), roots),
        val=_entries(path, val_key, content.get(val_key), roots) if has_val else (),
    )


def listed_images(entries: Sequence[Path], config: YoloConfig) -> list[Path]:
    """The images of a half as absolute paths, whether they exist or not; duplicates stay.

    Raises:
        DataError: a list cannot be read, or there is no image at all.
    """
    images = [image for entry in entries for image in _images_of(entry, config)]
    if not images:
        raise DataError(
            f"{config.path}: no images in {', '.join(map(str, entries))}; correct the entry or restore the images"
        )
    return images


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_text(path, "the YAML file of a YOLO dataset"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, for example
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" at line {mark.line + 1}"
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise DataError(f"{path}: is not valid YAML: {reason}{place}; correct the file") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no keys; a YOLO dataset's file has train, val and names")
    return content


def _roots(path: Path, content: dict[str, Any]) -> list[Path]:
    own = path.absolute().parent
    value = content.get("path")
    if value is None:
        return [own]
    if not isinstance(value, str):
        raise DataError(f"{path}: path: {value!r} is not a folder; write one folder or leave the key out")
    stated = _join(own, value)
    return [stated, own] if stated.is_dir() else [own]


def _join(base: Path, value: str) -> Path:
    # Written on Windows, read anywhere; `..` goes by name, so that links do not lead elsewhere.
    return Path(os.path.normpath(base / value.replace("\\", "/").strip()))


def _entries(path: Path, key: str, value: Any, roots: list[Path]) -> tuple[Path, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(entry, str) and entry for entry in values):
        problem = "is missing" if value is None else f"{value!r} is neither a path nor a list of paths"
        raise DataError(f"{path}: {key}: {problem}; name the folder or the .txt list of the images of this half")
    return tuple(_existing(path, key, entry, roots) for entry in values)


def _existing(path: Path, key: str, entry: str, roots: list[Path]) -> Path:
    shorter = entry.replace("\\", "/")
    while shorter.startswith("../"):
        shorter = shorter.removeprefix("../")
    for variant in (entry, shorter):
        for root in roots:
            candidate = _join(root, variant)
            if exists(candidate):
                return candidate
    raise DataError(f"{path}: {key}: {_join(roots[0], entry)} does not exist; correct {key} or path in that file")


def _categories(path: Path, content: dict[str, Any]) -> tuple[Category, ...]:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    items = list(names.items()) if isinstance(names, dict) else []
    if not items:
        raise DataError(f"{path}: names: is missing or empty; list the names of the classes by their index")
    nc = content.get("nc", len(items))
    if nc != len(items):
        raise DataError(f"{path}: nc: {nc!r}, but names holds {len(items)}; correct one of them")
    categories = tuple(sorted(_category(path, index, name) for index, name in items))
    first: dict[str, int] = {}
    for index, name in categories:
        if first.setdefault(name, index) != index:
            raise DataError(f"{path}: names: {name!r} is the name of classes {first[name]} and {index}; rename one")
    return categories


def _category(path: Path, index: Any, name: Any) -> Category:
    if type(index) is not int or index < 0:
        raise DataError(f"{path}: names: {index!r} is not a class index; number the classes 0, 1, 2 …")
    # YAML reads a bare 7 as a number, which is a fine name, but a bare yes or no as a truth value.
    if type(name) not in (str, int) or not str(name).strip():
        raise DataError(f"{path}: names[{index}]: {name!r} is not a name; write it in quotes")
    return Category(index, str(name).strip())


def _images_of(entry: Path, config: YoloConfig) -> list[Path]:
    return images_below(entry) if entry.is_dir() else _images_in_list(entry, config)


def _images_in_list(path: Path, config: YoloConfig) -> list[Path]:
    """The images of a text list; relative names start from the list's folder, or else from the dataset's."""
    names = read_lines(path, "the list of images")
    base = path.parent
    if names and not exists(_join(base, names[0])) and exists(_join(config.root, names[0])):
        base = config.root
    return [_join(base, name) for name in names]


def _common_folder(entries: Sequence[Path], config: YoloConfig) -> Path:
    images = listed_images(entries, config)
    folders = [entry for entry in entries if entry.is_dir()]
    if len(folders) < len(entries):
        folders += {image.parent for image in images}
    return Path(os.path.commonpath(folders))
