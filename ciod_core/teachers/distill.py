"""Make the knowledge bank of an experiment's next step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ciod_core.config.schema import Config
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.experiment.folder import Experiment, run_name
from ciod_core.teachers.build import build_bank
from ciod_core.teachers.report import StepBank
from ciod_core.teachers.sources import TeacherFile, TeacherOptions, find_teacher, open_teacher


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
    file = file or find_teacher(experiment, options)
    opened = open_teacher(experiment, config, options, file)
    step = file.step + 1
    path = out or experiment.knowledge_path(run_name(step))
    built = build_bank(path, opened.teacher, experiment.image_hashes(), overwrite=overwrite, on_images=on_images)
    hidden = _hidden_labels(experiment, step) if options.images is None else None
    return StepBank(built.teacher, step, file.classes, built.num_new, hidden, opened.notes)


def _hidden_labels(experiment: Experiment, step: int) -> AnnotationTable | None:
    """All labels of the dataset that a step was cut from; None where there are none or the file has changed."""
    manifest = experiment.read()
    if manifest.dataset is None or not manifest.step(step).planned:
        return None
    try:
        return read_coco(experiment.verified(manifest.dataset.train.annotations, "the split was made", "restore it"))
    except CheckpointError:
        return None
