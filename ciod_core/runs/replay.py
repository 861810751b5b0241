"""Exemplar replay: which images of earlier steps a run trains on again, and with which labels.

A run chooses from the images of the step before it and from those that the run before it had kept: an image that was
not kept is never chosen again, and an image carries the labels of those steps alone from which it was kept. After a
teacher from outside the experiment only the images of the step before can be chosen.

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
from ciod_core.experiment.entries import ReplayedImage, RunRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.experiment.step_data import images_of_run, read_step
from ciod_core.runs.spec import RunSpec


class TrainingData(NamedTuple):
    """What a run trains on.

    Attributes:
        table: images and boxes.
        images: the folder that file names are relative to.
        missing_IC: classes that have no labels on an image, and that no teacher teaches there; None without any.
        beside_I: images without labels that fill half of every batch; None without any.
    """

    table: AnnotationTable
    images: Path
    missing_IC: BoolArray | None = None
    beside_I: BoolArray | None = None


def choose_replayed(experiment: Experiment, spec: RunSpec) -> tuple[ReplayedImage, ...]:
    """Choose the images that a run replays; step 1 and joint runs replay none.

    Raises:
        ConfigError: the step before was taught before this experiment began, and left no images here.
        CheckpointError: a step's file, or an image that the run before replayed, is missing or was changed.
        DataError: an image cannot be read.
    """
    replay = spec.config.replay
    if spec.teacher is None or not replay.on:
        return ()
    manifest, parent, last_step = experiment.read(), spec.teacher.run, spec.step - 1
    last = read_step(experiment, manifest, last_step)
    candidates = _candidates(experiment, manifest, last, parent)
    chosen_I = choose_exemplars(
        candidates,
        spec.classes.up_to(last_step),
        images=replay.images,
        images_per_class=replay.images_per_class,
        choice=replay.choice,
        seed=spec.config.training.seed,
    )
    kept_before = {image.image_id: image for image in parent.replayed} if parent else {}
    last_names = dict(zip(last.table.image_ids_I.tolist(), last.table.file_names_I.tolist(), strict=True))
    hashes, chosen = experiment.image_hashes(), []
    for number in candidates.image_ids_I[chosen_I].tolist():
        image, name = kept_before.get(number), last_names.get(number)
        if image is not None and parent is not None:
            _verify(experiment.folder / manifest.train_images(image.steps[0]), image, parent.name, hashes)
        if name is not None:
            sha256 = hashes.get(image_path(last.image_dir, name))
            new = ReplayedImage(image_id=number, file_name=name, sha256=sha256, steps=(last_step,))
            image = image.model_copy(update={"steps": (*image.steps, last_step)}) if image else new
        assert image is not None, "an image is of the last step or was kept"
        chosen.append(image)
    hashes.save()
    return tuple(chosen)


def _candidates(
    experiment: Experiment, manifest: ExperimentManifest, last: LocatedTable, parent: RunRecord | None
) -> AnnotationTable:
    """The images of the last step, and those that the run before had kept."""
    kept_before = parent.replayed if parent else ()
    merged, root = merge_located([last, replay_table(experiment, kept_before)]) if kept_before else last
    if parent is None or not parent.skipped_images or parent.kind == "distilled":
        return merged
    # What the run before could not load it cannot have kept.
    skipped_root = images_of_run(experiment, manifest, parent)
    skipped = {skipped_root / name for name in parent.skipped_images}
    return _with_images(merged, np.array([root / name not in skipped for name in merged.file_names_I.tolist()]))


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


def _with_images(table: AnnotationTable, image_mask_I: BoolArray) -> AnnotationTable:
    return table.select(np.ones(table.num_boxes, dtype=np.bool_), image_mask_I)


def _verify(root: Path, image: ReplayedImage, run: str, hashes: ImageHashes) -> None:
    path = image_path(root, image.file_name)
    if not path.is_file():
        raise CheckpointError(f"{path}: the image that run '{run}' replayed is missing; restore it")
    if hashes.get(path) != image.sha256:
        raise CheckpointError(f"{path}: the image was changed since run '{run}' replayed it; restore it")
