"""Exemplar replay: which images of earlier steps a run trains on again, and with which labels.

Memory is honest: a step may keep only what it was given. It chooses from the images of the step before it and from
those that the run before it had kept itself; an image that was let go never comes back, and an image carries the labels
of those steps alone that it was kept from. A teacher from outside the experiment brings no memory along, and then the
images of the step before are all there is.

Legend: I images, N boxes of all images.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ciod_core.config import Config
from ciod_core.data.annotations import AnnotationTable, BoolArray
from ciod_core.data.coco import read_coco
from ciod_core.data.exemplars import choose_exemplars
from ciod_core.data.image_files import image_path
from ciod_core.data.merging import merge
from ciod_core.errors import CheckpointError, DataError
from ciod_core.experiment import Experiment
from ciod_core.files import sha256_of_file
from ciod_core.manifest import ReplayedImage, RunRecord
from ciod_core.run_plan import RunPlan


class TrainingData(NamedTuple):
    """What a run trains on.

    Attributes:
        table: images and boxes.
        replayed_I: images of earlier steps, on which objects of the new classes carry no label; None without any.
    """

    table: AnnotationTable
    replayed_I: BoolArray | None = None


def choose_replayed(experiment: Experiment, plan: RunPlan, config: Config) -> tuple[ReplayedImage, ...]:
    """Choose the images that a run replays; step 1 and joint runs replay none.

    Raises:
        CheckpointError: a step's file, or an image that the run before replayed, is missing or was changed.
        DataError: an image cannot be read.
    """
    if plan.teacher is None or not config.replay.on:
        return ()
    parent, last_step = plan.teacher.run, plan.step - 1
    held = {image.image_id: image for image in parent.replayed} if parent else {}
    last = _read_step(experiment, last_step)
    memory = merge(last, replay_table(experiment, held.values())) if held else last
    if parent is not None:
        # What the run before could not load it cannot have kept.
        memory = _with_images(memory, ~np.isin(memory.file_names_I, np.array(parent.skipped_images, dtype=np.str_)))
    chosen_I = choose_exemplars(
        memory,
        plan.classes.up_to(last_step),
        images=config.replay.images,
        images_per_class=config.replay.images_per_class,
        choice=config.replay.choice,
        seed=config.training.seed,
    )
    kept = _with_images(memory, chosen_I)
    in_last_I = np.isin(kept.image_ids_I, last.image_ids_I)
    root, kept_by = experiment.train_images(), parent.name if parent else ""
    return tuple(
        _keep(root, number, name, (last_step,) if in_last else (), held.get(number), kept_by)
        for number, name, in_last in zip(
            kept.image_ids_I.tolist(), kept.file_names_I.tolist(), in_last_I.tolist(), strict=True
        )
    )


def resumed_replay(experiment: Experiment, run: RunRecord) -> tuple[ReplayedImage, ...]:
    """The images a run began with.

    Raises:
        CheckpointError: one of them is missing or was changed.
    """
    for image in run.replayed:
        _verify(experiment.train_images(), image, run.name)
    return run.replayed


def replay_table(experiment: Experiment, images: Iterable[ReplayedImage]) -> AnnotationTable:
    """The images with the labels that they carry, at least one of them, in the order of the steps' files.

    Raises:
        CheckpointError: a step's file is missing or was changed.
    """
    ids_of_step: dict[int, list[int]] = {}
    for image in images:
        for step in image.steps:
            ids_of_step.setdefault(step, []).append(image.image_id)
    tables = []
    for step, ids in sorted(ids_of_step.items()):
        table = _read_step(experiment, step)
        tables.append(_with_images(table, np.isin(table.image_ids_I, ids)))
    return reduce(merge, tables)


def add_replay(table: AnnotationTable, replayed: AnnotationTable) -> TrainingData:
    """A step's own table with the kept images; those of its own images that are among them gain their old labels."""
    merged = merge(table, replayed)
    return TrainingData(merged, ~np.isin(merged.image_ids_I, table.image_ids_I))


def _with_images(table: AnnotationTable, image_mask_I: BoolArray) -> AnnotationTable:
    return table.select(np.ones(table.num_boxes, dtype=np.bool_), image_mask_I)


def _read_step(experiment: Experiment, step: int) -> AnnotationTable:
    record = experiment.step(step).train
    remedy = "restore it or split the dataset into a new experiment"
    return read_coco(experiment.verified(record, "the split was made", remedy))


def _keep(
    root: Path, image_id: int, file_name: str, new_steps: tuple[int, ...], before: ReplayedImage | None, kept_by: str
) -> ReplayedImage:
    """The record of an image with the labels of `new_steps`, besides those it had when `kept_by` replayed it."""
    if before is None:
        sha256 = _hash(image_path(root, file_name))
        return ReplayedImage(image_id=image_id, file_name=file_name, sha256=sha256, steps=new_steps)
    _verify(root, before, kept_by)
    return before.model_copy(update={"steps": (*before.steps, *new_steps)})


def _verify(root: Path, image: ReplayedImage, run: str) -> None:
    path = image_path(root, image.file_name)
    if not path.is_file():
        raise CheckpointError(f"{path}: the image that run '{run}' replayed is missing; restore it")
    if _hash(path) != image.sha256:
        raise CheckpointError(f"{path}: the image was changed since run '{run}' replayed it; restore it")


def _hash(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise DataError(f"{path}: the image cannot be kept for replay ({error.strerror}); restore it") from None
