"""The teacher that a bank is made from, and its images, as users pass them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ciod_core.classes import ClassTable
from ciod_core.config.schema import Config
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.images.scan import unlabeled_images
from ciod_core.errors import ConfigError, listed
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.folder import Teacher as Weights
from ciod_core.experiment.step_data import read_step
from ciod_core.experiment.teacher import taught_by
from ciod_core.files import weights_file
from ciod_core.methods.registry import build_method
from ciod_core.model.checkpoint import load_detector, refuse_foreign
from ciod_core.runtime.device import pick_device
from ciod_core.teachers.base import Teacher, TeacherIdentity
from ciod_core.teachers.boxes import OldClassImages
from ciod_core.teachers.labels import LabelsTeacher, lists_labels
from ciod_core.teachers.network import NetworkTeacher
from ciod_core.teachers.onnx import OnnxTeacher
from ciod_core.teachers.resolve import bank_config
from ciod_core.teachers.results import ResultsTeacher

FIRST_STEP_WITH_OLD_CLASSES = 2
_WEIGHTS_SUFFIX = ".safetensors"
_FOREIGN_SUFFIXES = (".json", ".onnx")


@dataclass(frozen=True)
class TeacherOptions:
    """The teacher of a bank and its images, as users pass them.

    Attributes:
        teacher: run name or weights, default: the only leaf run; or COCO results (.json), a model (.onnx), or a dataset
            (folder or COCO file) in which people labeled the old classes.
        step: of all but weights: the step whose images they cover, default: 2.
        teacher_classes: of results and models that do not name their classes: a file that does.
        images: a folder of unlabeled images instead of those of a step.
        flip: of weights: average predictions with those for the mirrored images.
        scales: of weights: further sizes to average over, as multiples of the teacher's image size.
    """

    teacher: Path | str | None = None
    step: int | None = None
    teacher_classes: Path | None = None
    images: Path | None = None
    flip: bool = False
    scales: tuple[float, ...] = ()


class TeacherFile(NamedTuple):
    """The file of a teacher, not loaded yet.

    Attributes:
        path: weights, results, model or dataset.
        weights: the verified weights; None for other files.
        step: the last step whose classes the teacher knows.
        classes: the old classes.
    """

    path: Path
    weights: Weights | None
    step: int
    classes: ClassTable


def find_teacher(experiment: Experiment, options: TeacherOptions) -> TeacherFile:
    """Find and verify the file of a teacher.

    Raises:
        ConfigError: an ambiguous teacher, options that do not belong to it, or a step without old classes.
        CheckpointError: weights that are not what was recorded.
    """
    named = options.teacher if options.teacher is not None else _only_leaf(experiment)
    if not _is_foreign(experiment, named):
        for option in ("step", "teacher_classes"):
            if getattr(options, option) is not None:
                raise ConfigError(f"`{option}`: not needed, ciod checkpoints store their class list; leave it out")
        taught = taught_by(experiment, named)
        return TeacherFile(taught.teacher.path, taught.teacher, taught.step, taught.classes)
    for option in ("flip", "scales"):
        if getattr(options, option):
            raise ConfigError(f"`{option}`: only supported for ciod weights, not for {named}; leave it out")
    following = FIRST_STEP_WITH_OLD_CLASSES if options.step is None else options.step
    if following < FIRST_STEP_WITH_OLD_CLASSES:
        raise ConfigError(f"`step` {following}: step 1 has no old classes; pass 2 or later")
    return TeacherFile(Path(named), None, following - 1, experiment.read().classes.up_to(following - 1))


def open_teacher(experiment: Experiment, config: Config, options: TeacherOptions, file: TeacherFile) -> Teacher:
    """Load a teacher and its images.

    Raises:
        ConfigError: no next step, classes that do not fit, or a method that cannot learn from a bank.
        CheckpointError: weights or step files that are not what was recorded.
        DataError: images or results that cannot be read.
        ExportError: a model that cannot be loaded.
    """
    images = _images(experiment, options, file)
    method = build_method(bank_config(config))
    selection = method.selection or config.resampler
    if file.weights is None:
        is_model = file.path.suffix.lower() == ".onnx"
        if not file.path.exists():
            raise ConfigError(f"`teacher` {file.path}: no such file; pass COCO results (.json) or a model (.onnx)")
        if options.images is not None and not is_model:
            raise ConfigError(f"{options.images}: {file.path} lists images by id, not by file; leave this folder out")
        old = OldClassImages(file.step + 1, file.classes, images, selection)
        kind = OnnxTeacher if is_model else LabelsTeacher if lists_labels(file.path) else ResultsTeacher
        return kind(file.path, options.teacher_classes, old)
    detector, info = load_detector(file.path, pick_device(config.training.device))
    identity = TeacherIdentity(
        teacher_sha256=file.weights.sha256,
        classes=info.classes.names,
        **info.preprocessing.sizes,
        flip=options.flip,
        scales=options.scales,
        resampler=selection,
    )
    return NetworkTeacher(
        detector, method, identity, images, batch_size=config.evaluation.batch_size, workers=config.data.workers
    )


def _images(experiment: Experiment, options: TeacherOptions, file: TeacherFile) -> LocatedTable:
    if options.images is not None:
        return LocatedTable(unlabeled_images(options.images), options.images)
    manifest, following = experiment.read(), file.step + 1
    if file.weights is not None and following > len(manifest.steps):
        raise ConfigError(
            f"`teacher` {file.path}: it knows the classes of the last step; pass weights of an earlier one, or distill "
            "them into another model with a folder of `images`"
        )
    return read_step(experiment, manifest, following)


def _is_foreign(experiment: Experiment, teacher: Path | str) -> bool:
    """Whether this is no detector of ciod but a file or a dataset's folder; anything else is the name of a run.

    The folder of a run has the run's name.

    Raises:
        CheckpointError: weights of another program.
        ConfigError: a file of an unknown type.
    """
    path = weights_file(Path(teacher))
    if path.is_dir():
        return experiment.read().find_run(str(teacher)) is None
    suffix = path.suffix.lower()
    if path.is_file() and suffix not in (_WEIGHTS_SUFFIX, *_FOREIGN_SUFFIXES):
        refuse_foreign(path)
        raise ConfigError(
            f"`teacher` {path}: unsupported file type; pass ciod's weights (.safetensors), COCO results (.json) or a "
            "model (.onnx)"
        )
    return suffix in _FOREIGN_SUFFIXES


def _only_leaf(experiment: Experiment) -> str:
    leaves = experiment.read().leaf_runs()
    if len(leaves) != 1:
        names = listed([run.name for run in leaves]) or "no finished run yet"
        raise ConfigError(f"{experiment.folder}: ambiguous teacher: {names}; pass `teacher`")
    return leaves[0].name
