"""The images and boxes of an experiment's steps, each with the folder that its file names are relative to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ciod_core.data.annotations.merging import LocatedTable, common_folder, unite_images
from ciod_core.data.formats.coco import read_coco
from ciod_core.experiment.entries import FileRecord, RunRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.manifest import ExperimentManifest


def read_step(experiment: Experiment, manifest: ExperimentManifest, step: int) -> LocatedTable:
    """The training data of one step, once its file is known to be what was recorded.

    Raises:
        ConfigError: the step was trained before this experiment began.
        CheckpointError: the file is missing or was changed.
    """
    path = experiment.verified_split(manifest.train_file(step))
    return LocatedTable(read_coco(path), experiment.folder / manifest.train_images(step))


def read_validation(experiment: Experiment, manifest: ExperimentManifest, step: int) -> LocatedTable:
    """The validation file of one step.

    Raises:
        ConfigError: the step has none.
    """
    path = manifest.val_file(step).locate(experiment.folder)
    return LocatedTable(read_coco(path), experiment.folder / manifest.val_images(step))


def check_step_files(experiment: Experiment, manifest: ExperimentManifest, step: int) -> None:
    """Make sure that the files a step is trained and evaluated on are still what was written.

    Raises:
        CheckpointError: naming the file that is missing or was edited.
    """
    vals = (manifest.step(number).val for number in manifest.validation_steps(step))
    for record in (manifest.step(step).train, *vals):
        if record is not None:
            experiment.verified_split(record)


def all_labels(manifest: ExperimentManifest, last_step: int) -> dict[str, FileRecord]:
    """The files that hold all training labels of steps 1..`last_step`, by their name in a run's record.

    Those of planned steps are in the dataset itself, the only file that also has images which no step uses.

    Raises:
        ConfigError: a step was trained before this experiment began.
    """
    files: dict[str, FileRecord] = {}
    for step in manifest.steps[:last_step]:
        if step.planned and manifest.dataset is not None:
            files["train"] = manifest.dataset.train.annotations
        else:
            files[f"train{step.step}"] = manifest.train_file(step.step)
    return files


def read_all_labels(experiment: Experiment, manifest: ExperimentManifest, last_step: int) -> list[LocatedTable]:
    """The tables of `all_labels`, the dataset with all its classes.

    Raises:
        ConfigError: a step was trained before this experiment began.
        CheckpointError: a file is missing or was changed.
    """
    parts = []
    for key, record in all_labels(manifest, last_step).items():
        image_dir = experiment.folder / manifest.train_images(int(key.removeprefix("train") or 1))
        parts.append(LocatedTable(read_coco(experiment.verified_split(record), image_dir), image_dir))
    return parts


def unite_steps(
    experiment: Experiment, parts: Sequence[LocatedTable], *, skip_unreadable: bool = False
) -> list[LocatedTable]:
    """The same tables, where images of equal content have the same id; see `unite_images`.

    Args:
        experiment: keeps the hashes.
        parts: tables of several steps, without a common image id.
        skip_unreadable: take an image that cannot be read for one that no other table has.

    Raises:
        DataError: an image cannot be read.
    """
    hashes = experiment.image_hashes()
    return unite_images(parts, [hashes.for_table(*part, skip_unreadable=skip_unreadable) for part in parts])


def images_of_run(experiment: Experiment, manifest: ExperimentManifest, run: RunRecord) -> Path:
    """The folder that the file names of a run's training images are relative to: the one that its steps share."""
    if run.kind == "joint":
        steps = list(range(1, run.step + 1))
    else:
        steps = sorted({run.step, *(step for image in run.replayed for step in image.steps)})
    return common_folder([experiment.folder / manifest.train_images(step) for step in steps])
