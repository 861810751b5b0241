"""A detector that is ready for use: from images to what it finds in them. Torch is not needed here.

Legend: B images, D detections, H height, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from ciod_core.arrays import Float32Array, Int64Array
from ciod_core.classes import ClassTable
from ciod_core.data.images.decode import decode_image, to_rgb
from ciod_core.data.loading.placement import resized, scale_to
from ciod_core.data.loading.transforms import letterbox
from ciod_core.errors import ConfigError, DataError, did_you_mean
from ciod_core.evaluation.detections import Detections
from ciod_core.inference.predictions import ImagePredictions
from ciod_core.model.preprocessing import Preprocessing

ImageInput = str | Path | Image.Image | npt.NDArray[np.uint8]
"""An image file, a Pillow image, or an RGB array of height × width × 3."""

SCORE, BATCH_SIZE = 0.3, 8

_SINGLE = (str, Path, Image.Image, np.ndarray)


class FrameDetections(NamedTuple):
    """Detections of one image in pixels of the input frame, best first.

    Attributes:
        boxes_D4: xyxy.
        scores_D: 0..1.
        labels_D: positions in the class table.
    """

    boxes_D4: Float32Array
    scores_D: Float32Array
    labels_D: Int64Array


class LoadedDetector(ABC):
    """A detector of weights or of an exported model, whatever runs it.

    Attributes:
        path: the file it was loaded from.
        class_table: its classes, with the dataset's category ids.
        preprocessing: from images to input.
    """

    def __init__(self, path: Path, class_table: ClassTable, preprocessing: Preprocessing, least_score: float) -> None:
        """Describe the detector.

        Args:
            path, class_table, preprocessing: see the attributes.
            least_score: it gives no detections below.
        """
        self.path, self.class_table, self.preprocessing = path, class_table, preprocessing
        self._least_score = least_score

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}: {len(self.classes)} classes, {self.image_size} pixels>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by class id, in the order in which they were learned."""
        return self.class_table.names

    @property
    def image_size(self) -> int:
        """The longer side that images are resized to, in pixels."""
        return self.preprocessing.image_size

    @overload
    def predict(  # type: ignore[overload-overlap] # a str is also an iterable of str; the first signature is meant
        self,
        images: ImageInput,
        *,
        score: float = SCORE,
        classes: Sequence[str] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> ImagePredictions: ...

    @overload
    def predict(
        self,
        images: Iterable[ImageInput],
        *,
        score: float = SCORE,
        classes: Sequence[str] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> list[ImagePredictions]: ...

    def predict(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        score: float = SCORE,
        classes: Sequence[str] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> ImagePredictions | list[ImagePredictions]:
        """Detect objects in one image or several, of any sizes.

        Args:
            images: an image or an iterable of them, which is read a batch at a time. Files are turned upright as
                their EXIF data says; Pillow images and arrays (uint8, RGB, height × width × 3) are taken as they are.
            score: lowest score of a detection, 0..1.
            classes: names of the classes to report; None reports all.
            batch_size: images that are computed at once, as far as their shapes agree. It changes no result beyond
                rounding.

        Returns:
            The detections of the image, or a list with those of each.

        Raises:
            ConfigError: a setting that cannot be used.
            DataError: an image that cannot be read, or something that is no image.
        """
        wanted = self.check_settings(score=score, classes=classes, batch_size=batch_size)
        if isinstance(images, _SINGLE):
            return next(self._predict(iter([images]), score, wanted, batch_size))
        if not isinstance(images, Iterable):
            raise _no_image(images)
        return list(self._predict(iter(images), score, wanted, batch_size))

    def check_settings(
        self, *, score: float = SCORE, classes: Sequence[str] | None = None, batch_size: int = BATCH_SIZE
    ) -> Int64Array:
        """Check the settings of `predict`.

        Returns:
            The ids of the classes to report.

        Raises:
            ConfigError: naming what cannot be used.
        """
        if not 0 <= score <= 1:
            raise ConfigError(f"`score`: {score} is not from 0 to 1")
        if score < self._least_score:
            raise ConfigError(
                f"`score`: {self.path} was exported with score {self._least_score:g} and gives nothing below; pass at "
                "least that, or export it again with a lower one"
            )
        if batch_size < 1:
            raise ConfigError(f"`batch_size`: {batch_size} is not at least 1")
        if isinstance(classes, str):
            classes = [classes]
        for name in classes or ():
            if name not in self.classes:
                raise ConfigError(f"`classes`: no class '{name}' in {self.path}; {did_you_mean(name, self.classes)}")
        names = self.classes if classes is None else classes
        return np.array([self.classes.index(name) for name in names], dtype=np.int64)

    def detect(self, images: Sequence[Image.Image], *, score: float = 0.0) -> Detections:
        """Find objects, of all images at once as far as their input frames agree; no image changes another's result.

        Args:
            images: converted to RGB if they are not.
            score: lowest score.

        Returns:
            Boxes in pixels of the original images, with the dataset's category ids, best first within each image;
            image ids are positions in `images`.
        """
        frames: dict[tuple[int, int], list[int]] = {}
        for position, image in enumerate(images):
            frames.setdefault(self._frame_size(image), []).append(position)
        parts = []
        category_ids = np.asarray(self.class_table.category_ids, dtype=np.int64)
        for (width, height), positions in frames.items():
            shape = (len(positions), 3, height, width)
            images_B3HW = np.full(shape, self.preprocessing.pad_value, dtype=np.uint8)
            visible = []
            for frame_3HW, position in zip(images_B3HW, positions, strict=True):
                pixels_HW3, scale = letterbox(images[position].convert("RGB"), **self.preprocessing.sizes)
                seen_height, seen_width = pixels_HW3.shape[:2]
                frame_3HW[:, :seen_height, :seen_width] = pixels_HW3.transpose(2, 0, 1)
                visible.append((np.array([seen_width, seen_height] * 2, dtype=np.float32), scale))
            outputs = self._infer(images_B3HW, score)
            for position, (limits, scale), found in zip(positions, visible, outputs, strict=True):
                # In single precision, as evaluation does, so that both give the same numbers.
                boxes_D4 = found.boxes_D4.clip(0, limits) / np.float32(scale)
                ids_D = np.full(len(boxes_D4), position)
                parts.append(Detections(ids_D, category_ids[found.labels_D], boxes_D4, found.scores_D))
        return Detections.concatenate(parts)

    @abstractmethod
    def _infer(self, images_B3HW: npt.NDArray[np.uint8], score: float) -> list[FrameDetections]:
        """Detections of each image from this score on."""

    def _predict(
        self, images: Iterator[ImageInput], score: float, wanted: Int64Array, batch_size: int
    ) -> Iterator[ImagePredictions]:
        while batch := list(islice(images, batch_size)):
            decoded = [_decoded(image) for image in batch]
            found = self.detect(decoded, score=score)
            labels_D = self.class_table.labels_of(found.category_ids_D)
            for position, (given, image) in enumerate(zip(batch, decoded, strict=True)):
                own_D = (found.image_ids_D == position) & np.isin(labels_D, wanted)
                yield ImagePredictions(
                    boxes=found.boxes_D4[own_D],
                    scores=found.scores_D[own_D],
                    class_ids=labels_D[own_D],
                    class_table=self.class_table,
                    source=Path(given) if isinstance(given, str | Path) else image,
                )

    def _frame_size(self, image: Image.Image) -> tuple[int, int]:
        multiple = self.preprocessing.stride_multiple
        width, height = resized(image.size, scale_to(image.size, self.image_size, self.preprocessing.shorter_side))
        return -(-width // multiple) * multiple, -(-height // multiple) * multiple


def _decoded(image: object) -> Image.Image:
    if isinstance(image, str | Path):
        if Path(image).is_dir():
            raise DataError(f"{image}: is a folder; pass its images, such as sorted(Path('{image}').glob('*.jpg'))")
        return decode_image(Path(image))
    if isinstance(image, Image.Image):
        return to_rgb(image, "`images`")
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,) and image.size:
        return Image.fromarray(image)
    raise _no_image(image)


def _no_image(given: object) -> DataError:
    kind = f"an array of {given.dtype} {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__
    return DataError(f"`images`: {kind} is no image; pass a path, a PIL image or a uint8 RGB array (height, width, 3)")
