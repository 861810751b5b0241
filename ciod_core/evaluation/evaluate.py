"""Evaluate weights on the validation images of their experiment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ciod_core.config import EvaluationConfig
from ciod_core.data.coco import read_coco
from ciod_core.data.dataset import DetectionDataset
from ciod_core.data.loader import make_loader
from ciod_core.data.transforms import EvalTransform
from ciod_core.device import pick_device
from ciod_core.evaluation import report
from ciod_core.evaluation.backends import BackendName
from ciod_core.evaluation.detections import Detections
from ciod_core.evaluation.inference import predict
from ciod_core.evaluation.report import EvaluationReport
from ciod_core.experiment import Experiment
from ciod_core.files import sha256_of_file
from ciod_core.training.checkpoint import load_detector


def evaluate_weights(
    experiment: Experiment,
    weights: Path,
    config: EvaluationConfig,
    *,
    device: torch.device | str = "auto",
    workers: int = 0,
    backend: BackendName = "hotcoco",
    on_batch: Callable[[int], None] | None = None,
) -> tuple[EvaluationReport, Detections]:
    """Evaluate on all validation images, over the classes that the weights know.

    Raises:
        CheckpointError: weights that cannot be read or whose classes are not this experiment's.
        DataError: validation data that cannot be read.
    """
    chosen = pick_device(device)
    detector, info = load_detector(weights, chosen)
    info.classes.require_prefix_of(experiment.manifest.classes, where=str(weights))
    experiment.check_step_files(info.step)
    table = read_coco(experiment.step_val_path(info.step))
    dataset = DetectionDataset(
        table, experiment.val_images(), info.classes, EvalTransform(info.preprocessing.image_size)
    )
    loader = make_loader(dataset, config.batch_size, shuffle=False, workers=workers)
    detections = predict(detector, loader, info.classes, config, chosen, on_batch)
    evaluated = report.evaluate_run(
        table, detections, info.classes, run=info.run, weights_sha256=sha256_of_file(weights), backend=backend
    )
    return evaluated, detections
