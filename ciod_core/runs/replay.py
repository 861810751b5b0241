"""Exemplar replay: which images of earlier steps a run trains on again, and with which labels.

Memory is honest: a step may keep only what it was given. It chooses from the images of the step before it and from
those that the run before it had kept itself; an image that was let go never comes back, and an image carries the labels
of those steps alone that it was kept from. A teacher from outside the experiment brings no memory along, and then the
images of the step before are all there is.

Legend: I images, N boxes of all images.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ciod_core.arrays import BoolArray
from ciod_core.data.annotations.exemplars import choose_exemplars
from ciod_core.data.annotations.merging import LocatedTable, merge_located
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.images.files import image_path
from ciod_core.data.images.hashes import ImageHashes
from ciod_core.errors import CheckpointError
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.manifest import ReplayedImage, RunRecord
from ciod_core.experiment.step_data import images_of_run, read_step
from ciod_core.runs.spec import RunSpec


class TrainingData(NamedTuple):
    """What a run trains on.

    Attributes:
        table: images and boxes.
        images: the folder that file names are relative to.
        replayed_I: images of earlier steps, on which objects of the new classes carry no label; None without any.
    """

    table: AnnotationTable
    images: Path
    replayed_I: BoolArray | None = None


def choose_replayed(experiment: Experiment, spec: RunSpec) -> tuple[ReplayedImage, ...]:
    """Choose the images that a run replays; step 1 and joint runs replay none.

    Raises:
        ConfigError: the step before was taught before this experiment began, and left no images here.
        CheckpointError: a step's file, or an image that the run before replayed, is missing or was changed.
        DataError: an image cannot be read.
    """
    if spec.teacher is None or not spec.config.replay.on:
        return ()
    manifest = experiment.read()
    parent, last_step = spec.teacher.run, spec.step - 1
    held = {image.image_id: image for image in parent.replayed} if parent else {}
    last = read_step(experiment, manifest, last_step)
    memory, root = merge_located([last, replay_table(experiment, held.values())]) if held else last
    if parent is not None and parent.skipped_images and parent.kind != "distilled":
        # What the run before could not load it cannot have kept.
        skipped_root = images_of_run(experiment, manifest, parent)
        skipped = {skipped_root / name for name in parent.skipped_images}
        memory = _with_images(memory, np.array([root / name not in skipped for name in memory.file_names_I.tolist()]))
    chosen_I = choose_exemplars(
        memory,
        spec.classes.up_to(last_step),
        images=spec.config.replay.images,
        images_per_class=spec.config.replay.images_per_class,
        choice=spec.config.replay.choice,
        seed=spec.config.training.seed,
    )
    kept = _with_images(memory, chosen_I)
    kept_by = parent.name if parent else ""
    own_names = dict(zip(last.table.image_ids_I.tolist(), last.table.file_names_I.tolist(), strict=True))
    hashes, chosen = experiment.image_hashes(), []
    for number in kept.image_ids_I.tolist():
        image = None
        if number in held:
            image = held[number]
            _verify(experiment.folder / manifest.train_images(image.steps[0]), image, kept_by, hashes)
        if number in own_names:
            path = image_path(last.image_dir, own_names[number])
            image = _with_step(image, last_step, number, own_names[number], hashes.get(path))
        assert image is not None, "an image is of the last step or was kept"
        chosen.append(image)
    hashes.save()
    return tuple(chosen)


def resumed_replay(experiment: Experiment, run: RunRecord) -> tuple[ReplayedImage, ...]:
    """The images a run began with.

    Raises:
        CheckpointError: one of them is missing or was changed.
    """
    manifest, hashes = experiment.read(), experiment.image_hashes()
    for image in run.replayed:
        _verify(experiment.folder / manifest.train_images(image.steps[0]), image, run.name, hashes)
    return run.replayed


def replay_table(experiment: Experiment, images: Iterable[ReplayedImage]) -> LocatedTable:
    """The images with the labels that they carry, at least one of them, in the order of the steps' files.

    Raises:
        CheckpointError: a step's file is missing or was changed.
    """
    manifest = experiment.read()
    ids_of_step: dict[int, list[int]] = {}
    for image in images:
        for step in image.steps:
            ids_of_step.setdefault(step, []).append(image.image_id)
    parts = []
    for step, ids in sorted(ids_of_step.items()):
        table, folder = read_step(experiment, manifest, step)
        parts.append(LocatedTable(_with_images(table, np.isin(table.image_ids_I, ids)), folder))
    return merge_located(parts)


def add_replay(own: LocatedTable, replayed: LocatedTable) -> TrainingData:
    """A step's own table with the kept images; those of its own images that are among them gain their old labels."""
    merged, folder = merge_located([own, replayed])
    return TrainingData(merged, folder, ~np.isin(merged.image_ids_I, own.table.image_ids_I))


def _with_images(table: AnnotationTable, image_mask_I: BoolArray) -> AnnotationTable:
    return table.select(np.ones(table.num_boxes, dtype=np.bool_), image_mask_I)


def _with_step(before: ReplayedImage | None, step: int, image_id: int, file_name: str, sha256: str) -> ReplayedImage:
    """The record of an image of `step` with its labels, besides those it had when it was replayed before."""
    if before is not None:
        return before.model_copy(update={"steps": (*before.steps, step)})
    return ReplayedImage(image_id=image_id, file_name=file_name, sha256=sha256, steps=(step,))


def _verify(root: Path, image: ReplayedImage, run: str, hashes: ImageHashes) -> None:
    path = image_path(root, image.file_name)
    if not path.is_file():
        raise CheckpointError(f"{path}: the image that run '{run}' replayed is missing; restore it")
    if hashes.get(path) != image.sha256:
        raise CheckpointError(f"{path}: the image was changed since run '{run}' replayed it; restore it")
