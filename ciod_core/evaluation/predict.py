"""Detect objects in image files that belong to no dataset, and draw the detections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ciod_core.arrays import Float32Array
from ciod_core.config.schema import EvaluationConfig
from ciod_core.data.images.decode import decode_image
from ciod_core.data.images.files import IMAGE_SUFFIXES, is_image_name, there_is
from ciod_core.data.loading.dataset import Batch, Sample, collate
from ciod_core.data.loading.transforms import letterbox
from ciod_core.drawing.detections import draw_detections
from ciod_core.errors import DataError
from ciod_core.evaluation.evaluate import predict
from ciod_core.files import atomic_path
from ciod_core.model.checkpoint import load_detector
from ciod_core.runtime.device import pick_device


class ImagePredictions(NamedTuple):
    """Detections of one image file, best first.

    Attributes:
        image: the image file.
        names: class name of each detection.
        category_ids: the dataset's category id of each detection.
        scores: confidence of each detection.
        boxes_D4: boxes, xyxy, pixels of the upright image.
    """

    image: Path
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    scores: tuple[float, ...]
    boxes_D4: Float32Array


def find_images(inputs: Sequence[Path]) -> list[Path]:
    """The image files that are named, and those of folders that are named, in order of name.

    Raises:
        DataError: a path that does not exist, or a folder without images.
    """
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            inside = sorted(entry for entry in path.iterdir() if is_image_name(entry.name))
            if not inside:
                raise DataError(f"{path}: no image in this folder; images end in {', '.join(IMAGE_SUFFIXES)}")
            found.extend(inside)
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder; check the path{there_is(path)}")
    return found


def detect_in_images(
    weights: Path,
    images: Sequence[Path],
    config: EvaluationConfig,
    *,
    device: torch.device | str = "auto",
    on_image: Callable[[int], None] | None = None,
) -> Iterator[ImagePredictions]:
    """Run a detector over image files, one at a time.

    Raises:
        CheckpointError: weights that cannot be read.
        DataError: an image that cannot be read.
    """
    chosen = pick_device(device)
    detector, info = load_detector(weights, str(chosen))
    names = {entry.category_id: entry.name for entry in info.classes.entries}
    for path in images:
        batch = _single_image_batch(path, info.preprocessing.image_size)
        detections = predict(detector, [batch], info.classes, config, chosen, on_image)
        category_ids = tuple(detections.category_ids_D.tolist())
        yield ImagePredictions(
            image=path,
            names=tuple(names[category_id] for category_id in category_ids),
            category_ids=category_ids,
            scores=tuple(detections.scores_D.tolist()),
            boxes_D4=detections.boxes_D4,
        )


def draw(predictions: ImagePredictions, target: Path) -> None:
    """Write the image with its boxes, class names and scores; the format follows the suffix of `target`.

    Raises:
        DataError: the image cannot be read.
        OSError: `target` cannot be written.
    """
    image = decode_image(predictions.image)
    drawn = draw_detections(image, predictions.boxes_D4, predictions.names, predictions.scores)
    with atomic_path(target) as temporary:
        drawn.save(temporary)


def _single_image_batch(path: Path, image_size: int) -> Batch:
    image_HW3, scale = letterbox(decode_image(path), image_size)
    height, width = image_HW3.shape[:2]
    sample = Sample(
        image_3HW=torch.from_numpy(np.ascontiguousarray(image_HW3.transpose(2, 0, 1))),
        boxes_G4=torch.zeros(0, 4),
        labels_G=torch.zeros(0, dtype=torch.int64),
        image_id=0,
        scale=scale,
        size_hw=(height, width),
    )
    return collate([sample])
