"""The images and boxes of an experiment's steps, each with the folder that its file names are relative to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ciod_core.data.annotations.merging import LocatedTable, common_folder
from ciod_core.data.formats.coco import read_coco
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.manifest import FileRecord, RunRecord


def read_step(experiment: Experiment, step: int) -> LocatedTable:
    """The training data of one step, once its file is known to be what was recorded.

    Raises:
        ConfigError: the step was taught before this experiment began.
        CheckpointError: the file is missing or was changed.
    """
    record = experiment.step_train_file(step)
    return LocatedTable(read_coco(experiment.verified_split(record)), experiment.train_images(step))


def read_validation(experiment: Experiment, step: int) -> LocatedTable:
    """The validation file of one step.

    Raises:
        ConfigError: the step has none.
    """
    return LocatedTable(read_coco(experiment.step_val_path(step)), experiment.val_images(step))


def all_labels(experiment: Experiment, last_step: int) -> dict[str, FileRecord]:
    """The files that hold all training labels of steps 1..`last_step`, by what a run's record calls them.

    Those of planned steps are in the dataset itself, the only file that also has images which no step uses.

    Raises:
        ConfigError: a step was taught before this experiment began.
    """
    manifest = experiment.manifest
    files: dict[str, FileRecord] = {}
    for step in manifest.steps[:last_step]:
        if step.planned and manifest.dataset is not None:
            files["train"] = manifest.dataset.train.annotations
        else:
            files[f"train{step.step}"] = experiment.step_train_file(step.step)
    return files


def read_all_labels(experiment: Experiment, last_step: int) -> list[LocatedTable]:
    """The tables of `all_labels`, the dataset with all its classes.

    Raises:
        ConfigError: a step was taught before this experiment began.
        CheckpointError: a file is missing or was changed.
    """
    tables = []
    for key, record in all_labels(experiment, last_step).items():
        if key == "train":
            path = experiment.verified(record, "the split was made", "restore it or split the dataset again")
            tables.append(LocatedTable(read_coco(path), experiment.train_images()))
        else:
            tables.append(read_step(experiment, int(key.removeprefix("train"))))
    return tables


def images_of_run(experiment: Experiment, run: RunRecord) -> Path:
    """The folder that the file names of a run's training images are relative to: the one that its steps share."""
    steps = range(1, run.step + 1) if run.kind == "joint" else _steps_of(run)
    return common_folder([experiment.train_images(step) for step in steps])


def _steps_of(run: RunRecord) -> Iterable[int]:
    return sorted({run.step, *(step for image in run.replayed for step in image.steps)})
