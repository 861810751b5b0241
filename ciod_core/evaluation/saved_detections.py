"""The detections of a run on its validation images, kept in its folder as COCO results with their ground truth.

They are a cache: what is missing or was changed is made again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
import torch

from ciod_core.config.schema import recorded_config
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.errors import CheckpointError, CiodError
from ciod_core.evaluation.detections import Detections, ground_truth_path
from ciod_core.evaluation.evaluate import evaluate_weights
from ciod_core.experiment.entries import FileRecord, RunRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.files import MostBytes, read_bytes

DETECTIONS_FILE = "detections.json"
# Keys of a run's outputs.
DETECTIONS_KEY, GROUND_TRUTH_KEY = "detections", "ground_truth"


class MeasuredDetections(NamedTuple):
    """Detections, and the boxes that they are measured on; both as far as they count."""

    ground_truth: AnnotationTable
    detections: Detections


class _Row(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


def saved_detections(experiment: Experiment, run: RunRecord) -> MeasuredDetections | None:
    """The detections that `detect_run` kept; None where there are none, or not those that it wrote."""
    records = [run.outputs.get(key) for key in (DETECTIONS_KEY, GROUND_TRUTH_KEY)]
    try:
        paths = [experiment.verified(record, "it was saved", "make it again") for record in records if record]
        if len(paths) < len(records):
            return None
        rows = msgspec.json.decode(read_bytes(paths[0], MostBytes.ANNOTATIONS), type=list[_Row])
        ground_truth = read_coco(paths[1])
    except (CiodError, OSError, ValueError):
        return None
    boxes_D4 = np.array([row.bbox for row in rows], dtype=np.float64).reshape(-1, 4)
    boxes_D4[:, 2:] += boxes_D4[:, :2]
    detections = Detections(
        np.array([row.image_id for row in rows], dtype=np.int64),
        np.array([row.category_id for row in rows], dtype=np.int64),
        boxes_D4,
        np.array([row.score for row in rows]),
    )
    return MeasuredDetections(ground_truth, detections)


def detect_run(
    experiment: Experiment,
    run: RunRecord,
    *,
    device: torch.device | str = "auto",
    on_batch: Callable[[int], None] | None = None,
) -> MeasuredDetections:
    """The detections of a run, with the settings of its evaluation: those that were saved, else made and saved now.

    Raises:
        ConfigError: no validation image labels a class of the run.
        CheckpointError: weights that cannot be used.
        DataError: validation images that cannot be read.
        OSError: the run's folder cannot be written.
    """
    found = saved_detections(experiment, run)
    if found is not None:
        return found
    path = experiment.run_folder(run.name) / DETECTIONS_FILE
    evaluate_weights(
        experiment,
        experiment.resolve_teacher(run.name).path,
        recorded_config(run.config).evaluation,
        device=device,
        on_batch=on_batch,
        save_detections=path,
    )
    for key, file in ((DETECTIONS_KEY, path), (GROUND_TRUTH_KEY, ground_truth_path(path))):
        experiment.record_output(run.name, key, FileRecord.of(file, experiment.folder))
    found = saved_detections(experiment, experiment.read().run(run.name))
    if found is None:
        raise CheckpointError(f"{path}: it was changed while it was written; try again")
    return found
