"""Scanning every image file of a dataset: missing, damaged, of another size, repeated.

Legend: I images.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ciod_core.data.annotations.findings import Finding, Severity
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.images.decode import decode_image
from ciod_core.data.images.files import image_path
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
    counts = Counter(image.fault for image in scanned if image.fault)
    first = {image.fault: image for image in reversed(scanned)}
    found = [Finding(Severity.ERROR, code, first[code].message, count) for code, count in sorted(counts.items())]
    of_digest: dict[bytes, str] = {}
    repeated = [
        (image.file_name, earlier)
        for image in scanned
        if image.digest and (earlier := of_digest.setdefault(image.digest, image.file_name)) != image.file_name
    ]
    if repeated:
        name, earlier = repeated[0]
        message = f"{name}: has the same content as {earlier}; remove one of them, or it counts twice"
        found.append(Finding(Severity.WARNING, "image-repeated", message, len(repeated)))
    return found


def leakage(train: list[ScannedImage], val: list[ScannedImage]) -> list[Finding]:
    """One finding for the validation images whose very content is among the training images too."""
    trained = {image.digest: image.file_name for image in train if image.digest}
    leaked = [(image.file_name, trained[image.digest]) for image in val if image.digest and image.digest in trained]
    if not leaked:
        return []
    name, same = leaked[0]
    message = f"{name}: is also the training image {same}; results on it measure memory, remove it from one split"
    return [Finding(Severity.WARNING, "leakage", message, len(leaked))]


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
