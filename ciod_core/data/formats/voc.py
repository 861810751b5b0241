"""Reading Pascal VOC datasets: one XML file of boxes for each image."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ciod_core.data.annotations.findings import Severity
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import Category
from ciod_core.data.formats.labelled import FaultLog, LabelledImage, LabelledObject, digest_of, raw_annotations
from ciod_core.data.formats.layouts.base import DatasetSource, SplitFiles
from ciod_core.data.formats.layouts.voc import annotation_path, listed_names
from ciod_core.data.formats.voc_xml import VocObject, parse_voc_xml
from ciod_core.data.images.decode import upright_size
from ciod_core.data.images.files import images_below
from ciod_core.errors import DataError


class _VocImage(NamedTuple):
    """An image whose classes have no ids yet."""

    labelled: LabelledImage
    objects: tuple[VocObject, ...]


def parse_voc(source: DatasetSource) -> tuple[RawAnnotations, ...]:
    """Read the halves of a Pascal VOC dataset.

    Category ids count from one in alphabetical order of the names of all halves; images count from one in the order of
    their file names. Boxes become zero-based and `difficult` objects are ignored, as in VOC's own evaluation.
    Annotation files and objects that cannot be read are left out and become findings.

    Raises:
        DataError: a list of images cannot be read or is empty.
    """
    logs = [FaultLog() for _ in source.splits]
    read = [_read_half(half, faults) for half, faults in zip(source.splits, logs, strict=True)]
    names = sorted({item.name for images in read for image in images for item in image.objects})
    ids = {name: index for index, name in enumerate(names, start=1)}
    return tuple(
        _columns(half, images, ids, faults) for half, images, faults in zip(source.splits, read, logs, strict=True)
    )


def _columns(half: SplitFiles, images: list[_VocImage], ids: Mapping[str, int], faults: FaultLog) -> RawAnnotations:
    labelled = []
    for image in images:
        objects = [LabelledObject(item.number, ids[item.name], item.box_xywh, item.difficult) for item in image.objects]
        labelled.append(image.labelled._replace(objects=objects))
    categories = [Category(index, name) for name, index in ids.items()]
    return raw_annotations(half.annotations, labelled, categories, half.image_dir, "object", faults)


def _read_half(half: SplitFiles, faults: FaultLog) -> list[_VocImage]:
    names = listed_names(half.annotations)
    for _ in range(len(names) - len(set(names))):
        faults.add("image-listed-twice", f"{half.annotations}: lists images twice, read once", Severity.WARNING)
    # Sorted backwards, so that a.jpg and not a.png ends up as the file of `a`.
    found = sorted((path.relative_to(half.image_dir) for path in images_below(half.image_dir)), reverse=True)
    files = {path.with_suffix("").as_posix(): path.as_posix() for path in found}
    # A listed image that is not there keeps its name, so that the check of the image files reports it.
    by_file = sorted((files.get(name, f"{name}.jpg"), name) for name in set(names))
    images = (_read_image(half, file_name, name, faults) for file_name, name in by_file)
    return [image for image in images if image is not None]


def _read_image(half: SplitFiles, file_name: str, name: str, faults: FaultLog) -> _VocImage | None:
    """One image; None, and a fault, when its annotation or size cannot be read."""
    path = annotation_path(half.annotations, name)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that holds a zero byte
        reason = getattr(error, "strerror", None) or error
        faults.add(
            "annotation-missing",
            f"{path}: cannot be read ({reason}); restore it or remove {name!r} from {half.annotations}",
        )
        return None
    try:
        annotation = parse_voc_xml(data, partial(_add_object_fault, path, faults))
    except ValueError as error:
        faults.add("annotation-malformed", f"{path}: {error}; export or download the file again")
        return None
    try:
        size = annotation.size or upright_size(half.image_dir / file_name)
    except DataError as error:
        faults.add("image-unreadable", f"{path}: states no size, and {error}")
        return None
    return _VocImage(LabelledImage(file_name, size, path, digest_of(data), ()), annotation.objects)


def _add_object_fault(path: Path, faults: FaultLog, number: int, reason: str) -> None:
    faults.add("object-malformed", f"{path}: object {number} {reason}; correct or remove it")
