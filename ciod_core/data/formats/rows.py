"""From label files, one per image, to the raw columns that every format's reader ends in.

Legend: I images, N boxes of all images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ciod_core.data.annotations.findings import Findings
from ciod_core.data.annotations.raw import BoxForm, RawAnnotations
from ciod_core.data.annotations.table import Category


class LabeledObject(NamedTuple):
    """One object of an image.

    Attributes:
        number: its line or element in the label file, from one.
        category: the class, by id or by name.
        box_xywh: left, top, width, height in pixels.
        ignored: True where neither training nor evaluation counts it.
    """

    number: int
    category: int | str
    box_xywh: tuple[float, float, float, float]
    ignored: bool = False


class LabeledImage(NamedTuple):
    """One image and its label file.

    Attributes:
        file_name: relative to the image folder.
        size: width and height in pixels.
        labels: the label file.
        digest: SHA-256 of the label file; empty where there is none.
        objects: the objects that it lists.
    """

    file_name: str
    size: tuple[int, int]
    labels: Path
    digest: bytes
    objects: Sequence[LabeledObject]


def raw_annotations(
    path: Path,
    image_dir: Path,
    images: Sequence[LabeledImage],
    categories: Sequence[Category],
    element: str,
    findings: Findings,
    box_form: BoxForm = "xywh",
) -> RawAnnotations:
    """Columns of one split; images and annotations are numbered from one in the given order.

    Args:
        path: the file that lists the split.
        image_dir: the image folder, for messages.
        images: sorted by file name.
        categories: the classes.
        element: the unit that `LabeledObject.number` counts: `line` or `object`.
        findings: those of the reader.
        box_form: the form in which the label files state boxes.
    """
    image_of_object = [image for image, labeled in enumerate(images) for _ in labeled.objects]
    objects = [item for labeled in images for item in labeled.objects]
    ids: dict[int | str, int] = {category.name: category.id for category in categories}
    return RawAnnotations(
        path=path,
        sha256=_fingerprint(images, categories),
        image_ids_I=np.arange(1, len(images) + 1, dtype=np.int64),
        file_names_I=[labeled.file_name for labeled in images],
        sizes_I2=np.array([labeled.size for labeled in images], dtype=np.int64).reshape(-1, 2),
        annotation_ids_N=np.arange(1, len(objects) + 1, dtype=np.int64),
        image_ids_N=np.array(image_of_object, dtype=np.int64) + 1,
        category_ids_N=np.array([ids.get(item.category, item.category) for item in objects], dtype=np.int64),
        boxes_xywh_N4=np.array([item.box_xywh for item in objects], dtype=np.float64).reshape(-1, 4),
        areas_N=np.full(len(objects), np.nan),
        crowd_N=np.array([item.ignored for item in objects], dtype=np.bool_),
        categories=tuple(categories),
        image_place=lambda image: str(image_dir / images[image].file_name),
        box_place=lambda box: f"{images[image_of_object[box]].labels}: {element} {objects[box].number}",
        box_form=box_form,
        findings=tuple(findings),
    )


def _fingerprint(images: Sequence[LabeledImage], categories: Sequence[Category]) -> str:
    """Hash of names, sizes and label contents; where the dataset lies does not matter."""
    fingerprint = hashlib.sha256()
    for category in categories:
        fingerprint.update(f"class {category.id} {category.name}\0".encode())
    for labeled in images:
        width, height = labeled.size
        name = labeled.file_name.encode("utf-8", "surrogateescape")
        fingerprint.update(b"image %d %d %b\0%b\0" % (width, height, name, labeled.digest.hex().encode()))
    return fingerprint.hexdigest()
