"""Reading YOLO datasets: one text file of normalised boxes for each image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from ciod_core.data.annotations.findings import Severity
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.formats.labelled import FaultLog, LabelledImage, LabelledObject, digest_of, raw_annotations
from ciod_core.data.formats.layouts.base import DatasetSource, SplitFiles
from ciod_core.data.formats.layouts.yolo import YoloConfig, listed_images, read_yolo_config
from ciod_core.data.formats.text_files import decode_text
from ciod_core.data.images.decode import upright_size
from ciod_core.errors import DataError

LINE_FORMAT = "a line is `class cx cy width height` or `class x1 y1 x2 y2 x3 y3 …`, relative to the image"
LARGEST_INDEX = 2**53


def parse_yolo(source: DatasetSource) -> tuple[RawAnnotations, ...]:
    """Read the halves of a YOLO dataset.

    Category ids are YOLO's own indices; images count from one in the order of their names. Polygons become the box
    around them. Lines that cannot be read and images without a readable header are left out and become findings.

    Raises:
        DataError: the YAML file is broken or a half holds no images.
    """
    config = read_yolo_config(source.train.annotations, val_optional=source.val is None)
    return tuple(
        _parse_half(config, entries, half)
        for entries, half in zip((config.train, config.val), source.splits, strict=False)
    )


def parse_label_line(text: str) -> tuple[int, tuple[float, float, float, float]]:
    """Class index and box (left, top, width, height; relative to the image) of one line.

    Raises:
        ValueError: the line is none of the two forms; the message says why.
    """
    try:
        index, *values = map(float, text.split())
    except ValueError:
        raise ValueError("holds something that is no number") from None
    if not (index.is_integer() and abs(index) < LARGEST_INDEX):
        raise ValueError(f"{index:g} is not a class index")
    if len(values) == 4:
        x, y, width, height = values
        return int(index), (x - width / 2, y - height / 2, width, height)
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"holds {len(values) + 1} numbers")
    if not all(map(math.isfinite, values)):  # min and max would pass over some NaN
        raise ValueError("holds a coordinate that is not finite")
    left, top = min(values[::2]), min(values[1::2])
    return int(index), (left, top, max(values[::2]) - left, max(values[1::2]) - top)


def _parse_half(config: YoloConfig, entries: tuple[Path, ...], half: SplitFiles) -> RawAnnotations:
    faults = FaultLog()
    images = _sorted_once(listed_images(entries, config), half.image_dir, faults)
    label_folders = {folder: _label_folder(folder) for folder in {path.parent for path in images.values()}}
    labelled = []
    for name, path in images.items():
        labels = label_folders[path.parent] / f"{path.stem}.txt"
        try:
            size = upright_size(path)
        except DataError as error:
            faults.add("image-unreadable", str(error))
            continue
        digest, objects = _read_labels(labels, path, size, faults)
        labelled.append(LabelledImage(name, size, labels, digest, objects))
    if labelled and not any(image.digest for image in labelled):
        faults.add(
            "no-label-files",
            f"{labelled[0].labels}: no such file, nor one for any other image of {half.image_dir}; "
            "put the labels into a folder `labels` beside the folder `images`",
        )
    return raw_annotations(config.path, labelled, config.categories, half.image_dir, "line", faults)


def _sorted_once(paths: list[Path], folder: Path, faults: FaultLog) -> dict[str, Path]:
    """Images by their name relative to the folder, in its order, each once."""
    images: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if name in images:
            faults.add("image-listed-twice", f"{path}: is listed twice and read once", Severity.WARNING)
        images[name] = path
    return dict(sorted(images.items()))


def _label_folder(image_folder: Path) -> Path:
    """`labels` for the last `images` of the path, where that folder exists, or else the image folder itself."""
    parts = list(image_folder.parts)
    if "images" not in parts:
        return image_folder
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    labels = Path(*parts)
    return labels if labels.is_dir() else image_folder


def _read_labels(
    labels: Path, image: Path, size: tuple[int, int], faults: FaultLog
) -> tuple[bytes, list[LabelledObject]]:
    """Digest and objects of a label file; an empty digest where there is none."""
    try:
        data = labels.read_bytes()
    except FileNotFoundError:
        faults.add(
            "image-without-labels", f"{image}: has no label file and is read as an image without objects", Severity.NOTE
        )
        return b"", []
    except OSError as error:
        faults.add("label-file-unreadable", f"{labels}: cannot be read ({error.strerror}); restore the file")
        return b"", []
    try:
        return digest_of(data), list(_objects(decode_text(data, labels), labels, size, faults))
    except DataError as error:
        faults.add("label-file-unreadable", str(error))
        return digest_of(data), []


def _objects(text: str, labels: Path, size: tuple[int, int], faults: FaultLog) -> Iterator[LabelledObject]:
    width, height = size
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            index, (x, y, w, h) = parse_label_line(line)
        except ValueError as error:
            faults.add("label-line-malformed", f"{labels}: line {number} {error}; {LINE_FORMAT}")
            continue
        yield LabelledObject(number, index, (x * width, y * height, w * width, h * height))
