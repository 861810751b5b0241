"""Scanning image files: those of a dataset for missing, damaged and repeated ones, those of a folder for their sizes.

Legend: I images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ciod_core.arrays import Int64Array, UInt8Array, text_array
from ciod_core.data.annotations.findings import Finding, Findings, Severity
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.images.decode import decode_image, read_header, upright_size
from ciod_core.data.images.files import image_path, images_below, there_is
from ciod_core.data.images.similarity import THUMBNAIL_SIZE, join_look_alikes, similar_pairs, thumbnail
from ciod_core.errors import DataError
from ciod_core.files import MostBytes, sha256_of_file

_MEMORY = "results on it measure memory, remove it from one split"


@dataclass(frozen=True)
class ScannedImage:
    """The result for one image file.

    Attributes:
        file_name: as the annotations write it.
        fault: a code such as `image-missing`; None when the image is sound.
        message: what is wrong; empty when the image is sound.
        digest: SHA-256 of the file's bytes; None when it could not be read.
        orientation_unsettled: whether the boxes may speak of the image as stored or of the upright one.
        thumbnail: see `ciod_core.data.images.similarity`; None when the image is not sound.
    """

    file_name: str
    fault: str | None = None
    message: str = ""
    digest: bytes | None = None
    orientation_unsettled: bool = False
    thumbnail: UInt8Array | None = None


def scan_images(
    table: AnnotationTable,
    image_dir: Path,
    *,
    sizes_stated: bool = True,
    progress: Callable[[int], None],
    workers: int | None = None,
) -> list[ScannedImage]:
    """Decode and hash every image of a table.

    Args:
        table: the annotations.
        image_dir: the folder that file names are relative to.
        sizes_stated: whether the annotations state the sizes, and so which way up the images are.
        progress: called with the number of further images that are done.
        workers: threads; None takes one per core. Decoding and hashing leave Python's lock.
    """

    def scan(index: int) -> ScannedImage:
        scanned = _scan(image_dir, str(table.file_names_I[index]), table.size_of(index), table.path, sizes_stated)
        progress(1)
        return scanned

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(scan, range(table.num_images)))


def image_findings(scanned: list[ScannedImage]) -> list[Finding]:
    """One finding per kind of fault, with the first image that has it, for repeated content and for orientations."""
    findings = Findings()
    for image in sorted((image for image in scanned if image.fault), key=lambda image: str(image.fault)):
        findings.add(str(image.fault), image.message)
    first: dict[bytes, str] = {}
    for image in scanned:
        if image.digest and first.setdefault(image.digest, image.file_name) != image.file_name:
            earlier = first[image.digest]
            message = f"{image.file_name}: has the same content as {earlier}; remove one of them, or it counts twice"
            findings.add("image-repeated", message, severity=Severity.WARNING)
        if image.orientation_unsettled:
            message = (
                f"{image.file_name}: is to be turned or mirrored by its EXIF orientation, and no stated size tells "
                "whether its boxes speak of the image as stored; they are taken to speak of the upright one"
            )
            findings.add("image-orientation", message, severity=Severity.NOTE)
    return list(findings)


def leakage(train: list[ScannedImage], val: list[ScannedImage]) -> Findings:
    """Findings for the validation images whose very content is among the training images, and for their look-alikes."""
    findings, others = Findings(), []
    trained = {image.digest: image.file_name for image in train if image.digest}
    for image in val:
        if image.digest in trained:
            name = trained[image.digest]
            message = f"{image.file_name}: is also the training image {name}; {_MEMORY}"
            findings.add("leakage", message, severity=Severity.WARNING)
        elif image.thumbnail is not None:
            others.append(image)
    shown = [image for image in train if image.thumbnail is not None]
    for one, other in similar_pairs(
        [image.thumbnail for image in others if image.thumbnail is not None],
        [image.thumbnail for image in shown if image.thumbnail is not None],
    ):
        message = f"{others[one].file_name}: looks like the training image {shown[other].file_name}; {_MEMORY}"
        findings.add("near-duplicate", message, severity=Severity.WARNING)
    return findings


def content_groups(scanned: Sequence[ScannedImage]) -> Int64Array:
    """Shape (I,): a number for every image, the same for images of equal content and for look-alikes.

    An image that could not be decoded has no look-alikes.
    """
    first: dict[object, int] = {}
    group_I = [first.setdefault(image.digest or index, index) for index, image in enumerate(scanned)]
    # An image of one color has no look-alikes.
    plain = np.zeros(THUMBNAIL_SIZE[::-1], dtype=np.uint8)
    thumbnails = [plain if image.thumbnail is None else image.thumbnail for image in scanned]
    return join_look_alikes(thumbnails, np.array(group_I, dtype=np.int64))


def unlabeled_images(image_dir: Path) -> AnnotationTable:
    """All images of a folder and its subfolders in order of name, numbered from 1, without boxes and classes.

    Raises:
        DataError: no such folder, no image in it, or one that cannot be read.
    """
    if not image_dir.is_dir():
        raise DataError(f"{image_dir}: no such image folder; check the path")
    names = sorted(path.relative_to(image_dir).as_posix() for path in images_below(image_dir))
    if not names:
        raise DataError(f"{image_dir}: no image in this folder; pass a folder of images")
    sizes_I2 = np.array([upright_size(image_dir / name) for name in names], dtype=np.int32)
    none = np.zeros(0, dtype=np.int64)
    return AnnotationTable(
        image_ids_I=np.arange(1, len(names) + 1, dtype=np.int64),
        file_names_I=text_array(names),
        widths_I=sizes_I2[:, 0],
        heights_I=sizes_I2[:, 1],
        offsets=np.zeros(len(names) + 1, dtype=np.int64),
        annotation_ids_N=none,
        category_ids_N=none,
        boxes_N4=np.zeros((0, 4), dtype=np.float32),
        areas_N=np.zeros(0, dtype=np.float32),
        crowd_N=np.zeros(0, dtype=np.bool_),
        categories=(),
        path=image_dir,
    )


def _scan(
    image_dir: Path, file_name: str, size: tuple[int, int], annotations: Path | None, sizes_stated: bool
) -> ScannedImage:
    path = image_path(image_dir, file_name, annotations)
    try:
        digest = bytes.fromhex(sha256_of_file(path, MostBytes.IMAGE))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        remedy = f"restore it or remove it from the list{there_is(path)}"
        what = f"image file is missing; {remedy}" if missing else f"{error.strerror}"
        return ScannedImage(file_name, "image-missing" if missing else "image-unreadable", f"{path}: {what}")
    try:
        header = read_header(path)
        image = decode_image(path, size, annotations=annotations)
    except DataError as error:
        return ScannedImage(file_name, _fault_of(path), str(error), digest)
    unsettled = header.looks_the_same_turned if sizes_stated else header.orientation != 1
    return ScannedImage(file_name, digest=digest, orientation_unsettled=unsettled, thumbnail=thumbnail(image))


def _fault_of(path: Path) -> str:
    """Why an image was refused: it cannot be read at all, or only its size differs."""
    try:
        decode_image(path)
    except DataError:
        return "image-unreadable"
    return "image-size-differs"
