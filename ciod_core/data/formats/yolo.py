"""YOLO datasets: a data.yaml, and one text file of normalized boxes for each image."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ciod_core.config.yaml import parse_yaml
from ciod_core.data.annotations.findings import Findings, Severity
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import Category
from ciod_core.data.formats.base import (
    HELD_OUT_NAMES,
    DatasetSource,
    FindOptions,
    SplitFiles,
    decode_text,
    exists,
    is_folder,
    read_lines,
    read_text,
)
from ciod_core.data.formats.rows import LabeledImage, LabeledObject, raw_annotations
from ciod_core.data.formats.unpaired import labels_without_image, report_unpaired
from ciod_core.data.formats.yolo_lines import LINE_FORMAT, KeypointRows, box_of, parse_label_line
from ciod_core.data.images.decode import upright_size
from ciod_core.data.images.files import images_below, there_is
from ciod_core.errors import DataError
from ciod_core.files import MostBytes, read_bytes

LAYOUT = "YOLO (data.yaml, or obj.data or classes.txt as in exports)"
ADD_VAL = "name the folder or list of its images under val in that file"
YAML_NAMES = ("data.yaml", "data.yml")
DARKNET_NAME, CLASSES_NAME = "obj.data", "classes.txt"


def find(path: Path, options: FindOptions) -> DatasetSource | None:
    """The dataset of a YAML file of any name, of CVAT's obj.data or of Label Studio's classes.txt; see `Format.find`.

    Relative entries are looked up below `path`, which itself is relative to the file, and then below the file's
    folder: exports often carry a `path` of the machine they were made on, or start entries with a `../` too many.
    """
    if path.is_dir():
        named = (path / name for name in (*YAML_NAMES, DARKNET_NAME, CLASSES_NAME))
        found = (find(file, options) for file in named if file.is_file())
        return next((source for source in found if source is not None), None)
    if path.name == CLASSES_NAME and all((path.parent / name).is_dir() for name in ("images", "labels")):
        content: dict[str, Any] = {"train": "images", "names": read_lines(path, "the list of class names")}
    elif path.name == DARKNET_NAME:
        content = _load_darknet(path)
    elif path.suffix.lower() in (".yaml", ".yml"):
        content = _load(path)
    else:
        return None
    if "kpt_shape" in content:
        raise DataError(f"{path}: kpt_shape: keypoint labels are not read; export the dataset for detection")
    roots = _roots(path, content)
    categories = _categories(path, content)
    val_key = next((key for key in HELD_OUT_NAMES if content.get(key)), None)
    train = _split(path, "train", content, roots)
    val = None if val_key is None else _split(path, val_key, content, roots)
    name = path.absolute().parent.name if path.name in (*YAML_NAMES, DARKNET_NAME, CLASSES_NAME) else path.stem
    options.refuse_files(name, f"its {path.name}")
    return DatasetSource(name, train, val, "yolo", categories)


def parse(source: DatasetSource) -> tuple[RawAnnotations, ...]:
    """Read the splits of a dataset.

    Category ids are YOLO's own indices; images count from one in the order of their names. Polygons become the box
    around them. Lines that cannot be read and images without a readable header are left out and become findings.
    """
    keypoints = KeypointRows()
    findings = [Findings() for _ in source.splits]
    images = [_read_split(*pair, keypoints) for pair in zip(source.splits, findings, strict=True)]
    if keypoints.found:
        findings[0].add(
            "keypoint-rows",
            f"{keypoints.first} reads as a box with keypoints or a track id behind it, like all such lines of the "
            "dataset, and not as a polygon; keep the first five numbers of every line, or repeat the last point of one "
            "line if they are polygons",
            keypoints.count,
        )
    return tuple(
        raw_annotations(split.annotations, split.image_dir, read, source.categories, "line", found, "cxcywh")
        for split, read, found in zip(source.splits, images, findings, strict=True)
    )


def _load(path: Path) -> dict[str, Any]:
    text = read_text(path, "the YAML file of a YOLO dataset", MostBytes.YAML)
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise DataError(f"{path}: is not valid YAML: {error}; correct the file") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no keys; a YOLO dataset's file has train, val and names")
    return content


def _load_darknet(path: Path) -> dict[str, Any]:
    """The keys of an obj.data, with the classes of the file that it names."""
    pairs = (line.partition("=") for line in read_lines(path, "the file that names the lists of images"))
    content: dict[str, Any] = {key.strip(): value.strip() for key, _, value in pairs}
    names = _existing(path, "names", content.get("names") or "obj.names", _roots(path, {}))
    return {"train": content.get("train"), "val": content.get("valid"), "names": read_lines(names, "the class names")}


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


def _roots(path: Path, content: dict[str, Any]) -> list[Path]:
    """The folders that relative entries may start from, the stated one first."""
    own = path.absolute().parent
    value = content.get("path")
    if value is None:
        return [own]
    if not isinstance(value, str):
        raise DataError(f"{path}: path: {value!r} is not a folder; write one folder or leave the key out")
    stated = _join(own, value)
    return [stated, own] if is_folder(stated) else [own]


def _join(base: Path, value: str) -> Path:
    # Written on Windows, read anywhere; `..` goes by name, so that links do not lead elsewhere.
    return Path(os.path.normpath(base / value.replace("\\", "/").strip()))


def _split(path: Path, key: str, content: dict[str, Any], roots: list[Path]) -> SplitFiles:
    """The images of a split, from its entries: folders of images and text lists of images."""
    value = content.get(key)
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(entry, str) and entry for entry in values):
        problem = "is missing" if value is None else f"{value!r} is neither a path nor a list of paths"
        raise DataError(f"{path}: {key}: {problem}; name the folder or the .txt list of the images of this split")
    entries = [_existing(path, key, entry, roots) for entry in values]
    images = [image for entry in entries for image in _images(entry, roots[0])]
    if not images:
        raise DataError(f"{path}: no images in {', '.join(map(str, entries))}; correct the entry or restore the images")
    folders = [entry for entry in entries if entry.is_dir()]
    if len(folders) < len(entries):
        folders += {image.parent for image in images}
    return SplitFiles(path, Path(os.path.commonpath(folders)), tuple(images))


def _existing(path: Path, key: str, entry: str, roots: list[Path]) -> Path:
    for candidate in (_join(root, variant) for variant in _variants(entry) for root in roots):
        if exists(candidate):
            return candidate
    wanted = _join(roots[0], entry)
    near = there_is(wanted)
    raise DataError(f"{path}: {key}: {wanted} does not exist; correct {key} or path in that file{near}")


def _images(entry: Path, root: Path) -> list[Path]:
    """The images of a folder or a text list; names in a list start from its own folder, or else from the dataset's."""
    if entry.is_dir():
        return images_below(entry)
    names = read_lines(entry, "the list of images")
    if any("\0" in name for name in names):
        raise DataError(f"{entry}: holds a zero byte, which no path has; list the path of one image in each line")
    first = names[0] if names else ""
    places = ((base, variant) for variant in _variants(first) for base in (entry.parent, root))
    base, variant = next((place for place in places if exists(_join(*place))), (entry.parent, first))
    left_out = first.replace("\\", "/").removesuffix(variant)
    return [_join(base, name.replace("\\", "/").removeprefix(left_out)) for name in names]


def _variants(entry: str) -> list[str]:
    """An entry as it is written, without `../` in front, and without the `data/` of CVAT's exports."""
    written = entry.replace("\\", "/").strip()
    shorter = re.sub(r"^(\.\./)+", "", written)
    return [written, shorter, shorter.removeprefix("data/")]


def _read_split(split: SplitFiles, findings: Findings, keypoints: KeypointRows) -> list[LabeledImage]:
    images: dict[str, Path] = {}
    for path in split.listed:
        name = path.relative_to(split.image_dir).as_posix()
        if name in images:
            findings.add("image-listed-twice", f"{path}: is listed twice and read once", severity=Severity.WARNING)
        images[name] = path
    label_dirs = {folder: _label_dir(folder) for folder in {path.parent for path in images.values()}}
    labeled, image_of = [], dict[Path, str]()
    for name, path in sorted(images.items()):
        labels = label_dirs[path.parent] / f"{path.stem}.txt"
        if image_of.setdefault(labels, name) != name:
            message = f"{path}: shares its labels ({labels.name}) with {image_of[labels]}; rename or remove one of them"
            findings.add("labels-shared", message, severity=Severity.WARNING)
        try:
            size = upright_size(path)
        except DataError as error:
            findings.add("image-unreadable", str(error))
            continue
        labeled.append(LabeledImage(name, size, labels, *_read_labels(labels, path, size, findings, keypoints)))
    if labeled and not any(image.digest for image in labeled):
        findings.add(
            "no-label-files",
            f"{labeled[0].labels}: no such file, nor one for any other image of {split.image_dir}; "
            "put the labels into a folder `labels` beside the folder `images`",
        )
    # Not those of missing images: a mistyped path may lead anywhere, and all that is below would be searched.
    read_from = {folder: label_dirs[folder] for folder in {images[image.file_name].parent for image in labeled}}
    unpaired = labels_without_image(read_from, image_of, ".txt")
    report_unpaired([path for path in unpaired if _holds_labels(path)], findings)
    return labeled


def label_dir(image_dir: Path) -> Path:
    """The folder of the labels of images in this folder: `labels` for the last `images` of the path."""
    parts = list(image_dir.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _label_dir(image_dir: Path) -> Path:
    """The same where that folder exists, or else the image folder itself."""
    labels = label_dir(image_dir)
    return labels if is_folder(labels) else image_dir


def _holds_labels(path: Path) -> bool:
    """True for a label file, false for lists of classes, notes and other text."""
    try:
        for line in read_lines(path, "the labels"):
            parse_label_line(line)
    except (DataError, ValueError):
        return False
    return True


def _read_labels(
    labels: Path, image: Path, size: tuple[int, int], findings: Findings, keypoints: KeypointRows
) -> tuple[bytes, list[LabeledObject]]:
    """Digest and objects of a label file; an empty digest where there is none."""
    try:
        data = read_bytes(labels, MostBytes.LABELS)
    except FileNotFoundError:
        message = f"{image}: has no label file and is read as an image without objects"
        findings.add("image-without-labels", message, severity=Severity.NOTE)
        if near := there_is(labels):
            message = f"{image}: has no label file {labels.name}{near}; rename one of them"
            findings.add("label-file-misnamed", message, severity=Severity.WARNING)
        return b"", []
    except OSError as error:
        findings.add("label-file-unreadable", f"{labels}: cannot be read ({error.strerror}); restore the file")
        return b"", []
    digest = hashlib.sha256(data).digest()
    try:
        return digest, list(_objects(decode_text(data, labels), labels, size, findings, keypoints))
    except DataError as error:
        findings.add("label-file-unreadable", str(error))
        return digest, []


def _objects(
    text: str, labels: Path, size: tuple[int, int], findings: Findings, keypoints: KeypointRows
) -> Iterator[LabeledObject]:
    width, height = size
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            index, values = parse_label_line(line)
        except ValueError as error:
            findings.add("label-line-malformed", f"{labels}: line {number} {error}; {LINE_FORMAT}")
            continue
        keypoints.add(values, f"{labels}: line {number}")
        x, y, w, h = box_of(values)
        yield LabeledObject(number, index, (x * width, y * height, w * width, h * height))
