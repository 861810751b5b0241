"""From label files, one per image, to the raw columns that every format's reader ends in.

Legend: I images, N boxes of all images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ciod_core.data.annotations.findings import Finding, Severity
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import Category


class LabelledObject(NamedTuple):
    """One object of an image.

    Attributes:
        number: which line or element of the label file it is, from one.
        category_id: the class.
        box_xywh: left, top, width, height in pixels.
        ignored: whether neither training nor evaluation counts it.
    """

    number: int
    category_id: int
    box_xywh: tuple[float, float, float, float]
    ignored: bool = False


class LabelledImage(NamedTuple):
    """One image and what its label file says.

    Attributes:
        file_name: relative to the image folder.
        size: width and height in pixels.
        labels: the label file.
        digest: hash of the label file's content; empty where there is no label file.
        objects: what it shows.
    """

    file_name: str
    size: tuple[int, int]
    labels: Path
    digest: bytes
    objects: Sequence[LabelledObject]


class FaultLog:
    """Faults by code: the first case in words, the others counted."""

    def __init__(self) -> None:
        self._findings: dict[str, Finding] = {}

    def add(self, code: str, message: str, severity: Severity = Severity.ERROR) -> None:
        """Count a fault; the message is kept when it is the first of its code."""
        known = self._findings.get(code)
        self._findings[code] = Finding(
            severity, code, known.message if known else message, known.count + 1 if known else 1
        )

    def findings(self) -> tuple[Finding, ...]:
        """One finding for each code, in the order they were met."""
        return tuple(self._findings.values())


def digest_of(content: bytes) -> bytes:
    """The digest of a label file's content."""
    return hashlib.sha256(content).digest()


def raw_annotations(
    path: Path,
    images: Sequence[LabelledImage],
    categories: Sequence[Category],
    folder: Path,
    element: str,
    faults: FaultLog,
) -> RawAnnotations:
    """Columns of one half; images and annotations are numbered from one in the given order.

    Args:
        path: the file that lists the half.
        images: the images, sorted by file name.
        categories: the classes.
        folder: the image folder, for messages.
        element: what `LabelledObject.number` counts: `line` or `object`.
        faults: what the reader met with.
    """
    image_of_object = [image for image, labelled in enumerate(images) for _ in labelled.objects]
    objects = [item for labelled in images for item in labelled.objects]
    count_N = len(objects)
    return RawAnnotations(
        path=path,
        sha256=_fingerprint(images, categories),
        image_ids_I=np.arange(1, len(images) + 1, dtype=np.int64),
        file_names_I=[labelled.file_name for labelled in images],
        sizes_I2=np.array([labelled.size for labelled in images], dtype=np.int64).reshape(-1, 2),
        annotation_ids_N=np.arange(1, count_N + 1, dtype=np.int64),
        image_ids_N=np.array(image_of_object, dtype=np.int64) + 1,
        category_ids_N=np.array([item.category_id for item in objects], dtype=np.int64),
        boxes_xywh_N4=np.array([item.box_xywh for item in objects], dtype=np.float64).reshape(-1, 4),
        areas_N=np.full(count_N, np.nan),
        crowd_N=np.array([item.ignored for item in objects], dtype=np.bool_),
        categories=tuple(categories),
        image_place=lambda image: str(folder / images[image].file_name),
        box_place=lambda box: f"{images[image_of_object[box]].labels}: {element} {objects[box].number}",
        findings=faults.findings(),
    )


def _fingerprint(images: Sequence[LabelledImage], categories: Sequence[Category]) -> str:
    """Hash of names, sizes and label contents; where the dataset lies does not matter."""
    fingerprint = hashlib.sha256()
    for category in categories:
        fingerprint.update(f"class {category.id} {category.name}\0".encode())
    for labelled in images:
        width, height = labelled.size
        name = labelled.file_name.encode("utf-8", "surrogateescape")
        fingerprint.update(b"image %d %d %b\0%b\0" % (width, height, name, labelled.digest.hex().encode()))
    return fingerprint.hexdigest()
