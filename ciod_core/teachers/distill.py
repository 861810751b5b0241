"""Make a knowledge bank: run a teacher once on every image and keep its selected boxes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ciod_core.config.schema import Config
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.images.hashes import ImageHashes
from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.experiment.folder import Experiment, run_name
from ciod_core.experiment.transaction import recover
from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers.bank import BankTeacher, KnowledgeBank, write_bank
from ciod_core.teachers.base import Teacher
from ciod_core.teachers.report import StepBank
from ciod_core.teachers.sources import TeacherFile, TeacherOptions, find_teacher, open_teacher

# An interruption costs the predictions since the last write; writing costs little beside making them.
SECONDS_BETWEEN_WRITES = 60.0


def distill(
    experiment: Experiment,
    config: Config,
    options: TeacherOptions,
    *,
    file: TeacherFile | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    on_images: Callable[[int], None] | None = None,
) -> StepBank:
    """Run a teacher on the images of the step after it, or on others, and keep what the resampler selects in a bank.

    The images of `data.unlabeled`, where it is set, follow in the same bank.

    Args:
        experiment: of images and teacher.
        config: `resampler` selects; device, workers and the batch size of evaluation apply.
        options: the teacher and its images.
        file: the teacher's file where it was found already.
        out: the bank; None is `stepN.knowledge.safetensors` in the experiment.
        overwrite: make the bank anew.
        on_images: told the number of images that are finished.

    Raises:
        ConfigError: no next step, an ambiguous teacher, classes that do not fit, or another bank in the way.
        CheckpointError: weights or step files that are not what was recorded.
        DataError: images or results that cannot be read.
        ExportError: a model that cannot be loaded.
    """
    if out is not None and out.is_dir():
        raise ConfigError(f"`out` {out}: it is a folder; pass the name of a file")
    recover(experiment)
    file = file or find_teacher(experiment, options)
    teacher = open_teacher(experiment, config, options, file)
    step = file.step + 1
    beside = None
    if config.data.unlabeled is not None:
        beside = open_teacher(experiment, config, replace(options, images=Path(config.data.unlabeled)), file)
    path, hashes = out or experiment.knowledge_path(run_name(step)), experiment.image_hashes()
    built = build_bank(path, teacher, hashes, overwrite=overwrite, on_images=on_images)
    if beside is not None:
        complete = build_bank(path, beside, hashes, on_images=on_images)
        built = Built(BankTeacher(complete.teacher.bank, teacher.images, hashes), built.num_new + complete.num_new)
    hidden = _hidden_labels(experiment, step) if options.images is None else None
    return StepBank(built.teacher, step, file.classes, built.num_new, hidden, teacher.notes)


def _hidden_labels(experiment: Experiment, step: int) -> AnnotationTable | None:
    """All labels of the dataset that a step was cut from; None where there are none or the file has changed."""
    manifest = experiment.read()
    if manifest.dataset is None or not manifest.step(step).planned:
        return None
    try:
        return read_coco(experiment.verified_split(manifest.dataset.train.annotations))
    except CheckpointError:
        return None


class Built(NamedTuple):
    """A finished bank for the images of its teacher, and how many of them the teacher ran on now."""

    teacher: BankTeacher
    num_new: int


def build_bank(
    path: Path,
    teacher: Teacher,
    hashes: ImageHashes,
    *,
    overwrite: bool = False,
    on_images: Callable[[int], None] | None = None,
) -> Built:
    """Make a bank, or complete one: the teacher does not run again on images that the bank has by their hash.

    The bank is written about once a minute, each time complete in itself, so that an interrupted call continues where
    it stopped. `on_images` is told 0 before the first image, and 1 for each finished image.

    Raises:
        ConfigError: a bank of another teacher is there.
        DataError: an image that cannot be read.
    """
    known: dict[str, Knowledge] = {}
    if path.exists() and not overwrite:
        bank = KnowledgeBank(path)
        difference = teacher.identity.difference(bank.identity)
        if difference is not None:
            raise ConfigError(f"{path}: a bank is there whose {difference}; pass `overwrite` or another `out`")
        known = dict(bank.items())
    hashes_I = hashes.for_table(*teacher.images)
    # An image that occurs twice is read once.
    first_of = {sha256: index for index, sha256 in reversed(list(enumerate(hashes_I)))}
    missing = sorted(index for sha256, index in first_of.items() if sha256 not in known)
    if missing and on_images is not None:
        on_images(0)
    written = time.monotonic()
    for index, knowledge in zip(missing, teacher.annotate(missing), strict=True):
        known[hashes_I[index]] = knowledge
        if on_images is not None:
            on_images(1)
        if time.monotonic() - written > SECONDS_BETWEEN_WRITES:
            write_bank(path, teacher.identity, known)
            written = time.monotonic()
    if missing or not path.exists() or overwrite:
        write_bank(path, teacher.identity, known)
    return Built(BankTeacher(KnowledgeBank(path), teacher.images, hashes), len(missing))
