"""Run a detector over a dataset, and evaluate weights on the validation images of their experiment.

Legend: D detections of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ciod_core.classes import ClassTable
from ciod_core.config.schema import EvaluationConfig
from ciod_core.data.annotations.merging import merge_located
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.data.loading.dataset import Batch, DetectionDataset
from ciod_core.data.loading.loader import make_loader
from ciod_core.data.loading.transforms import EvalTransform
from ciod_core.errors import ConfigError
from ciod_core.evaluation.backends import BackendName
from ciod_core.evaluation.build_report import LabeledSets, build_report, labeled_part
from ciod_core.evaluation.detections import Detections, write_detections
from ciod_core.evaluation.report import EvaluationReport
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.images import check_images
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.experiment.step_data import check_step_files, read_validation, unite_steps
from ciod_core.files import sha256_of_file
from ciod_core.model.base import Detector
from ciod_core.model.checkpoint import load_detector
from ciod_core.model.common.nms import ImageDetections
from ciod_core.runtime.device import pick_device
from ciod_core.runtime.distributed import rank, world_size
from ciod_core.runtime.group import Everywhere


def evaluate_weights(
    experiment: Experiment,
    weights: Path,
    config: EvaluationConfig,
    *,
    device: torch.device | str = "auto",
    workers: int = 0,
    backend: BackendName = "hotcoco",
    on_batch: Callable[[int], None] | None = None,
    save_detections: Path | None = None,
) -> EvaluationReport:
    """Evaluate on the validation images of all steps so far, each class where it is labeled.

    With `save_detections`, what counts is kept: see `write_detections`.

    Raises:
        ConfigError: no validation image labels a class that the weights know.
        CheckpointError: weights that cannot be read or whose classes are not this experiment's.
        DataError: validation data that cannot be read.
    """
    chosen = pick_device(device)
    detector, info = load_detector(weights, chosen)
    manifest = experiment.read()
    info.classes.require_prefix_of(manifest.classes, where=str(weights))
    check_step_files(experiment, manifest, info.step)
    table, images, labeled = ground_truth_of(experiment, manifest, info.step, info.classes)
    dataset = DetectionDataset(table, images, info.classes, EvalTransform(**info.preprocessing.sizes))
    detections = _predict_everywhere(detector, dataset, info.classes, config, chosen, workers, on_batch)
    if save_detections is not None:
        counted = (table, detections) if labeled is None else labeled_part(table, detections, labeled)
        write_detections(save_detections, *counted)
    return build_report(
        table,
        detections,
        info.classes,
        run=info.run,
        weights_sha256=sha256_of_file(weights),
        backend=backend,
        step=info.step,
        labeled=labeled,
        negatives=config.negatives,
    )


def _predict_everywhere(
    detector: Detector,
    dataset: DetectionDataset,
    classes: ClassTable,
    config: EvaluationConfig,
    device: torch.device,
    workers: int,
    on_batch: Callable[[int], None] | None,
) -> Detections:
    """Detections of every image of a dataset; processes take turns batch by batch, so each computes what one would."""
    processes, seen = world_size(), 0

    def on_own_batch(count: int) -> None:
        nonlocal seen
        # The others are as far as this process.
        news = min(count * processes, len(dataset) - seen)
        seen += news
        if on_batch is not None:
            on_batch(news)

    with Everywhere(device, _Share, detector, dataset, classes, config, device, workers) as shares:
        parts = shares.call(_Share.predict, on_batch=on_own_batch)
    in_order = [part for of_turn in zip_longest(*parts) for part in of_turn if part is not None]
    return Detections.concatenate(in_order)


class _Share(NamedTuple):
    """What a process needs to detect in its share of the batches."""

    detector: Detector
    dataset: DetectionDataset
    classes: ClassTable
    config: EvaluationConfig
    device: torch.device
    workers: int

    def predict(self, *, on_batch: Callable[[int], None] | None = None) -> list[Detections]:
        loader = make_loader(
            self.dataset,
            self.config.batch_size,
            shuffle=False,
            workers=self.workers,
            rank=rank(),
            world_size=world_size(),
        )
        return list(_predict_batches(self.detector, loader, self.classes, self.config, self.device, on_batch))


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
    return Detections.concatenate(_predict_batches(detector, batches, classes, config, device, on_batch))


@torch.inference_mode()
def _predict_batches(
    detector: Detector,
    batches: Iterable[Batch],
    classes: ClassTable,
    config: EvaluationConfig,
    device: torch.device,
    on_batch: Callable[[int], None] | None,
) -> Iterator[Detections]:
    """The same, batch by batch."""
    category_ids = np.asarray(classes.category_ids)
    for batch in batches:
        found = detector.detect(
            detector(batch.images_B3HW.to(device, non_blocking=True)),
            score_threshold=config.score_threshold,
            nms_iou=config.nms_iou,
            max_detections=config.max_detections,
            yield_iou=config.yield_iou,
            multi_label=config.multi_label,
        )
        yield Detections.concatenate(
            _in_original_frame(batch, index, detections, category_ids) for index, detections in enumerate(found)
        )
        if on_batch is not None:
            on_batch(len(found))


def ground_truth_of(
    experiment: Experiment, manifest: ExperimentManifest, step: int, classes: ClassTable
) -> tuple[AnnotationTable, Path, LabeledSets | None]:
    """The validation images of a run of a step, each once, and their folder; None where all of them label all classes.

    Raises:
        ConfigError: no validation image labels one of the classes.
        DataError: images of several steps that cannot be read.
    """
    steps = manifest.validation_steps(step)
    if not steps:
        raise ConfigError(
            f"{experiment.folder}: no validation image labels a class of step {step} or an earlier one; add a step "
            "whose data has validation images (`val`)"
        )
    parts = [read_validation(experiment, manifest, number) for number in steps]
    check_images(experiment, parts)
    if len(parts) > 1:
        parts = unite_steps(experiment, parts)
    labeled = LabeledSets.of([part.table for part in parts], classes)
    table, images = merge_located(parts)
    if labeled.complete:
        return table, images, None
    categories = tuple(Category(entry.category_id, entry.name) for entry in classes.entries)
    return table.select(table.with_category(classes.category_ids), categories=categories), images, labeled


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
