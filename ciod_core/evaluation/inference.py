"""Run a detector over a dataset. Legend: D detections of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from ciod_core.classes import ClassTable
from ciod_core.config.schema import EvaluationConfig
from ciod_core.data.loading.dataset import Batch
from ciod_core.evaluation.detections import Detections
from ciod_core.model.base import Detector
from ciod_core.model.common.nms import ImageDetections


@torch.inference_mode()
def predict(
    detector: Detector,
    batches: Iterable[Batch],
    classes: ClassTable,
    config: EvaluationConfig,
    device: torch.device,
    on_batch: Callable[[int], None] | None = None,
) -> Detections:
    """Detections of every image of a loader, in pixels of the original images.

    Args:
        detector: in evaluation mode, on `device`.
        batches: images as an evaluation transform prepared them.
        classes: what the detector's labels mean.
        config: thresholds.
        device: where to compute.
        on_batch: called with the number of images of each finished batch.
    """
    category_ids = np.asarray(classes.category_ids)
    parts = []
    for batch in batches:
        found = detector.detect(
            detector(batch.images_B3HW.to(device, non_blocking=True)),
            score_threshold=config.score_threshold,
            nms_iou=config.nms_iou,
            max_detections=config.max_detections,
            yield_iou=config.yield_iou,
        )
        for index, detections in enumerate(found):
            parts.append(_in_original_frame(batch, index, detections, category_ids))
        if on_batch is not None:
            on_batch(len(found))
    return Detections.concatenate(parts)


def _in_original_frame(batch: Batch, index: int, found: ImageDetections, category_ids: np.ndarray) -> Detections:
    height, width = batch.sizes_B2[index].tolist()
    limits = np.array([width, height, width, height], dtype=np.float32)
    boxes_D4 = found.boxes_D4.cpu().numpy().clip(0, limits) / float(batch.scales_B[index])
    return Detections(
        image_ids_D=np.full(len(boxes_D4), int(batch.image_ids_B[index])),
        category_ids_D=category_ids[found.labels_D.cpu().numpy()],
        boxes_D4=boxes_D4,
        scores_D=found.scores_D.cpu().numpy(),
    )
