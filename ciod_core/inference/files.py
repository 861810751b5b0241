"""Detect objects in image files that belong to no dataset, and write what was found as files."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ciod_core.data.formats.yolo_lines import label_lines
from ciod_core.data.images.decode import decode_image
from ciod_core.data.images.files import IMAGE_SUFFIXES, images_below, is_image_name, there_is
from ciod_core.errors import ConfigError, DataError
from ciod_core.files import atomic_path, atomic_write_text
from ciod_core.inference.detector import BATCH_SIZE, SCORE, LoadedDetector
from ciod_core.inference.predictions import ImagePredictions
from ciod_core.temporaries import remove_dead


class ImageFile(NamedTuple):
    """An image file that a user named, alone or by its folder.

    Attributes:
        path: the file.
        name: its path below the folder or pattern that named it; what is written for it is called alike.
    """

    path: Path
    name: Path


def find_images(inputs: Sequence[str | Path], *, recursive: bool = False) -> list[ImageFile]:
    """The images that are named, each once: files, folders (in order of name) and patterns such as `photos/*.jpg`.

    Hidden files and folders are passed over, unless they are named themselves.

    Raises:
        DataError: a path that does not exist, or a folder or pattern without images.
    """
    found: dict[Path, ImageFile] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            files = _in_folder(path, recursive)
        elif path.exists():
            files = [ImageFile(path, Path(path.name))]
        elif glob.has_magic(str(given)):
            files = _matching(str(given))
        else:
            raise DataError(f"{path}: no such file or folder; check the path{there_is(path)}")
        for file in files:
            found.setdefault(file.path, file)
    return list(found.values())


def predict_files(
    detector: LoadedDetector,
    files: Sequence[ImageFile],
    *,
    score: float = SCORE,
    classes: Sequence[str] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[ImageFile, ImagePredictions | DataError]]:
    """The detections of each file, in order, or the reason why it cannot be read; a batch is in memory at a time.

    Raises:
        ConfigError: as `LoadedDetector.predict`.
    """
    for start in range(0, len(files), batch_size):
        batch = files[start : start + batch_size]
        yield from zip(batch, predict_batch(detector, batch, score, classes), strict=True)


def predict_batch(
    detector: LoadedDetector, batch: Sequence[ImageFile], score: float, classes: Sequence[str] | None
) -> list[ImagePredictions | DataError]:
    """The detections of each file, computed at once, or the reason why it cannot be read."""
    images: list[Image.Image] = []
    unreadable: dict[ImageFile, DataError] = {}
    for file in batch:
        try:
            images.append(decode_image(file.path))
        except DataError as error:
            unreadable[file] = error
    found = iter(detector.predict(images, score=score, classes=classes, batch_size=max(1, len(images))))
    return [unreadable[file] if file in unreadable else next(found) for file in batch]


class OutputFolder:
    """A folder for what is found: files that are named like their images."""

    def __init__(self, folder: Path, files: Sequence[ImageFile], parameter: str = "out") -> None:
        """Check that every image has a name of its own, and that none would be replaced by its picture.

        Args:
            folder: made when something is written.
            files: the images.
            parameter: that named the folder, for messages.

        Raises:
            ConfigError: naming the first image that stands in the way.
        """
        self._folder, self._parameter = folder, parameter
        self._images = {file.path.resolve() for file in files}
        self._clean = set[Path]()
        taken = set[Path]()
        for file in files:
            target = self._target(file.name.with_suffix(".jpg"))
            if target in taken:
                name = file.name.with_suffix("")
                raise ConfigError(
                    f"`{parameter}` {folder}: two input images are called {name}; pass them one at a time"
                )
            taken.add(target)

    def write_picture(self, file: ImageFile, found: ImagePredictions) -> None:
        """Draw boxes, class names and scores; raises OSError when that cannot be written."""
        _save_jpeg(found.draw(), self._target(file.name.with_suffix(".jpg")))

    def write_crops(self, file: ImageFile, found: ImagePredictions) -> None:
        """Cut the objects out, into a folder for each class, best first; raises OSError likewise.

        Raises:
            ConfigError: a cut-out would replace an input image.
        """
        image = found.image
        for number, (name, box) in enumerate(zip(found.names, found.boxes, strict=True), start=1):
            left, top = np.floor(box[:2]).clip(0, (image.width - 1, image.height - 1)).astype(int).tolist()
            right, bottom = np.ceil(box[2:]).clip((left + 1, top + 1), image.size).astype(int).tolist()
            target = self._target(_folder_name(name) / file.name.with_name(f"{file.name.stem}-{number}.jpg"))
            _save_jpeg(image.crop((left, top, right, bottom)), target)

    def write_yolo(self, file: ImageFile, found: ImagePredictions) -> None:
        """Write a YOLO label file below `labels`, empty without objects: class id, center x, y, width, height, 0..1."""
        text = label_lines(found.class_ids.tolist(), found.boxes, found.image.size)
        atomic_write_text(self._target("labels" / file.name.with_suffix(".txt")), text)

    def write_class_names(self, names: Sequence[str]) -> None:
        """Write what the class ids of the label files mean: a line per class."""
        atomic_write_text(self._folder / "classes.txt", "".join(f"{name}\n" for name in names))

    def _target(self, name: Path) -> Path:
        target = self._folder / name
        if target.parent not in self._clean:
            remove_dead(target.parent)
            self._clean.add(target.parent)
        if target.resolve() in self._images:
            raise ConfigError(
                f"`{self._parameter}` {self._folder}: {target} would replace an input image; pass another folder"
            )
        return target


def _in_folder(folder: Path, recursive: bool) -> list[ImageFile]:
    if recursive:
        names = [path.relative_to(folder) for path in images_below(folder)]
    else:
        names = [Path(path.name) for path in folder.iterdir() if is_image_name(path.name) and not path.is_dir()]
    if not names:
        where = "in this folder or below" if recursive else "in this folder; for its subfolders pass `recursive`"
        raise DataError(f"{folder}: no image {where}; images end in {', '.join(IMAGE_SUFFIXES)}")
    return [ImageFile(folder / name, name) for name in sorted(names)]


def _matching(pattern: str) -> list[ImageFile]:
    paths = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 - of a pattern as given
    paths = [path for path in paths if is_image_name(path.name) and path.is_file()]
    if not paths:
        raise DataError(f"{pattern}: no image matches; images end in {', '.join(IMAGE_SUFFIXES)}")
    fixed = Path(pattern)
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    return [ImageFile(path, path.relative_to(fixed)) for path in paths]


def _folder_name(class_name: str) -> Path:
    """A class name without what a folder's name may not hold."""
    return Path(re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", class_name).strip(". ") or "_")


def _save_jpeg(image: Image.Image, target: Path) -> None:
    with atomic_path(target, durable=False) as temporary:
        # Thin colored lines would blur at half the color resolution.
        image.save(temporary, quality=92, subsampling=0)
