"""Label files without an image: of an image in a format that is not read, behind a broken link, or lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ciod_core.data.annotations.findings import Findings, Severity
from ciod_core.data.formats.base import is_folder
from ciod_core.data.images.files import files_below, is_image_name


def labels_without_image(folders: Mapping[Path, Path], known: Iterable[Path], suffix: str) -> list[Path]:
    """Label files whose image is not in the place where it would be looked for, in order of name.

    Args:
        folders: the folder of labels for each folder of images, subfolders alike.
        known: label files that are not in question.
        suffix: of label files.
    """
    found, seen, names_in = [], set(known), dict[Path, set[str]]()
    for image_dir, label_dir in folders.items():
        for path in files_below(label_dir):
            if path.suffix != suffix or path in seen:
                continue
            seen.add(path)
            beside = image_dir / path.relative_to(label_dir).parent
            if beside not in names_in:
                images = beside.iterdir() if is_folder(beside) else ()
                names_in[beside] = {image.stem for image in images if is_image_name(image.name)}
            if path.stem not in names_in[beside]:
                found.append(path)
    return sorted(found)


def report_unpaired(paths: list[Path], findings: Findings) -> None:
    """Add a finding for these label files, if there are any."""
    if paths:
        message = f"{paths[0]}: is a label file without an image; restore the image, or remove the file"
        findings.add("label-without-image", message, len(paths), Severity.WARNING)
