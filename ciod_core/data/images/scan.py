"""Scanning image files: those of a dataset for missing, damaged and repeated ones, those of a folder for their sizes.

Legend: I images.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ciod_core.data.annotations.findings import Finding, Findings, Severity
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.images.decode import decode_image, upright_size
from ciod_core.data.images.files import image_path, images_below
from ciod_core.errors import DataError


@dataclass(frozen=True)
class ScannedImage:
    """The result for one image file.

    Attributes:
        file_name: as the annotations write it.
        fault: a code such as `image-missing`; None when the image is sound.
        message: what is wrong; empty when the image is sound.
        digest: SHA-256 of the file's bytes; None when it could not be read.
    """

    file_name: str
    fault: str | None = None
    message: str = ""
    digest: bytes | None = None


def scan_images(
    table: AnnotationTable, image_dir: Path, *, progress: Callable[[int], None], workers: int | None = None
) -> list[ScannedImage]:
    """Decode and hash every image of a table.

    Args:
        table: the annotations.
        image_dir: the folder that file names are relative to.
        progress: called with the number of further images that are done.
        workers: threads; None takes one per core. Decoding and hashing leave Python's lock.
    """

    def scan(index: int) -> ScannedImage:
        scanned = _scan(image_dir, str(table.file_names_I[index]), table.size_of(index), table.path)
        progress(1)
        return scanned

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(scan, range(table.num_images)))


def image_findings(scanned: list[ScannedImage]) -> list[Finding]:
    """One finding per kind of fault, with the first image that has it, and one for repeated content."""
    findings = Findings()
    for image in sorted((image for image in scanned if image.fault), key=lambda image: str(image.fault)):
        findings.add(str(image.fault), image.message)
    first: dict[bytes, str] = {}
    for image in scanned:
        if image.digest and first.setdefault(image.digest, image.file_name) != image.file_name:
            earlier = first[image.digest]
            message = f"{image.file_name}: has the same content as {earlier}; remove one of them, or it counts twice"
            findings.add("image-repeated", message, severity=Severity.WARNING)
    return list(findings)


def leakage(train: list[ScannedImage], val: list[ScannedImage]) -> list[Finding]:
    """One finding for the validation images whose very content is among the training images too."""
    trained = {image.digest: image.file_name for image in train if image.digest}
    leaked = [(image.file_name, trained[image.digest]) for image in val if image.digest and image.digest in trained]
    if not leaked:
        return []
    name, same = leaked[0]
    message = f"{name}: is also the training image {same}; results on it measure memory, remove it from one split"
    return [Finding(Severity.WARNING, "leakage", message, len(leaked))]


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
        file_names_I=np.array(names, dtype=np.str_),
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


def _scan(image_dir: Path, file_name: str, size: tuple[int, int], annotations: Path | None) -> ScannedImage:
    path = image_path(image_dir, file_name, annotations)
    try:
        digest = hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        what = "image file is missing; restore it or remove it from the list" if missing else f"{error.strerror}"
        return ScannedImage(file_name, "image-missing" if missing else "image-unreadable", f"{path}: {what}")
    try:
        decode_image(path, size, annotations=annotations)
    except DataError as error:
        return ScannedImage(file_name, _fault_of(path), str(error), digest)
    return ScannedImage(file_name, digest=digest)


def _fault_of(path: Path) -> str:
    """Why an image was refused: it cannot be read at all, or only its size differs."""
    try:
        decode_image(path)
    except DataError:
        return "image-unreadable"
    return "image-size-differs"
