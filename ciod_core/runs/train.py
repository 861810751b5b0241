"""One training run of an experiment: `spec` describes it, this module prepares its student, teacher and data,
`execute` trains, evaluates and records it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ciod_core.arrays import BoolArray
from ciod_core.classes import ClassTable
from ciod_core.config.schema import Config
from ciod_core.data.annotations.merging import LocatedTable, merge_located
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.images.scan import unlabeled_images
from ciod_core.errors import ConfigError
from ciod_core.experiment.entries import ReplayedImage, RunRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.step_data import check_step_files, read_all_labels, read_step, unite_steps
from ciod_core.methods.base import Method
from ciod_core.methods.registry import AUTO, build_method
from ciod_core.model.base import Detector
from ciod_core.model.checkpoint import load_detector
from ciod_core.model.common.cost import num_operations, num_parameters
from ciod_core.model.pretrained import load_backbone_weights
from ciod_core.model.registry import build_detector
from ciod_core.runs.choice import choose_method
from ciod_core.runs.claim import claimed
from ciod_core.runs.execute import PreparedRun, execute
from ciod_core.runs.inherited import describe_inherited
from ciod_core.runs.replay import TrainingData, choose_replayed, replay_table, resumed_replay
from ciod_core.runs.spec import RunSpec, on_device, plan_run, settle
from ciod_core.runtime.determinism import reproducible
from ciod_core.teachers.resolve import names_bank, resolve_teacher
from ciod_core.training.progress import TrainingListener


def train_step(
    experiment: Experiment,
    config: Config,
    *,
    teacher: Path | str | None = None,
    step: int | None = None,
    run: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    knowledge: Path | str | None = None,
    listener: TrainingListener | None = None,
) -> RunRecord:
    """Train one run, evaluate it where there is validation data, and record both.

    Args:
        experiment: where the run belongs.
        config: all settings. Of a teacher, `model` is taken, and from its run the settings of
            `ciod_core.runs.inherited` that are not set.
        teacher: run name or weights of the previous step; without it the run is step 1.
        step: for `joint` only: the last step whose classes are learned (default: the plan's last).
        run: a name other than the default one.
        resume: continue an interrupted run after its last complete epoch.
        overwrite: replace a run of the same name.
        knowledge: a bank to learn from instead of the live teacher; `auto` for the step's own where it equals the live
            teacher, `none` or None for none (None: a resumed run continues with what it began with).
        listener: told about the progress.

    Raises:
        ConfigError: a combination that makes no sense, a run that exists already.
        CheckpointError: a teacher or a state that does not fit.
        DataError: training data that cannot be read.
    """
    spec = plan_run(experiment, config, teacher=teacher, step=step, run=run)
    with (
        claimed(experiment, spec, resume=resume, overwrite=overwrite) as spec,
        prepared_run(experiment, spec, knowledge) as prepared,
    ):
        return execute(experiment, prepared, resume=resume, listener=listener)


@contextmanager
def prepared_run(experiment: Experiment, spec: RunSpec, knowledge: Path | str | None = None) -> Iterator[PreparedRun]:
    """Everything that a run needs, as long as its random numbers are drawn; writes nothing.

    Args:
        experiment: where the run belongs.
        spec: the run.
        knowledge: as for `train_step`.

    Raises:
        ConfigError, CheckpointError, DataError: as `train_step`.
    """
    spec = settle(spec)
    check_step_files(experiment, experiment.read(), spec.step)
    spec, device = on_device(spec)
    replayed = resumed_replay(experiment, spec.begun) if spec.begun else choose_replayed(experiment, spec)
    data = training_data(experiment, spec, replayed)
    images = LocatedTable(data.table, data.images)
    if spec.teacher is not None and spec.config.method.name == AUTO:
        spec = settle(choose_method(spec, _labeled_images(data), device, from_bank=names_bank(knowledge)))
    chosen = resolve_teacher(
        experiment, spec.config, images, step=spec.step, weights=spec.teacher, knowledge=knowledge, begun=spec.begun
    )
    spec = replace(spec, config=chosen.config)
    training = spec.config.training
    with reproducible(training.seed, strict=training.deterministic):
        method = build_method(spec.config)
        student, network = _build_models(spec, method)
        notes = _notes(spec, student, network)
        yield PreparedRun(
            spec=spec,
            method=method,
            student=student,
            teacher=chosen.open(network, method, images, device),
            data=data,
            device=device,
            replayed=replayed,
            notes=(*notes, *chosen.notes),
        )


def _labeled_images(data: TrainingData) -> LocatedTable:
    """The images of a run without those of `data.unlabeled`."""
    table = data.table
    if data.beside_I is not None:
        table = table.select(np.ones(table.num_boxes, dtype=np.bool_), ~data.beside_I)
    return LocatedTable(table, data.images)


def _notes(spec: RunSpec, student: Detector, teacher: Detector | None) -> list[str]:
    """What was decided about a run, and what a branch costs."""
    notes = [] if spec.choice is None else [spec.choice]
    if spec.teacher is not None and spec.teacher.run is not None and spec.begun is None:
        line = describe_inherited(spec.config, spec.inherited, spec.teacher.run.name)
        notes += [line] if line is not None else []
    if teacher is not None and len(student.head_classes) > len(teacher.head_classes):
        parameters = num_parameters(student) / num_parameters(teacher) - 1
        side = spec.config.data.image_size
        operations = num_operations(student, side) / num_operations(teacher, side) - 1
        notes.append(
            f"branches: {len(student.branch_depths)}, the last adds {parameters:.0%} of parameters and "
            f"{operations:.0%} of operations per image"
        )
    return notes


def training_table(experiment: Experiment, spec: RunSpec) -> LocatedTable:
    """The images and boxes a run may see: its step's file, or for a joint run all labels of the steps so far."""
    return _own_data(experiment, spec)[0]


def _own_data(experiment: Experiment, spec: RunSpec) -> tuple[LocatedTable, BoolArray | None]:
    """The same, each image of a joint run once with the labels of all steps, and the mask of `_missing_labels`."""
    if spec.kind != "joint":
        return read_step(experiment, experiment.read(), spec.step), None
    parts = read_all_labels(experiment, experiment.read(), spec.step)
    if len(parts) > 1:
        parts = unite_steps(experiment, parts, skip_unreadable=spec.config.data.corrupt_images == "skip")
    parts = [
        LocatedTable(table.select(spec.classes.labels_of(table.category_ids_N) >= 0), folder) for table, folder in parts
    ]
    # Only now: an image without an object may have labels in another part, and then it is known what it does not show.
    table, images = merge_located(parts)
    table = table.select(np.ones(table.num_boxes, dtype=np.bool_), table.images_with(~table.crowd_N))
    return LocatedTable(table, images), _missing_labels(parts, table, spec.classes)


def training_data(experiment: Experiment, spec: RunSpec, replayed: tuple[ReplayedImage, ...]) -> TrainingData:
    """The images and boxes of a run, those that it replays included."""
    own, missing_IC = _own_data(experiment, spec)
    data = TrainingData(*own, missing_IC)
    if replayed:
        # Those of the step's own images that are replayed, too, gain their old labels.
        merged, folder = merge_located([own, replay_table(experiment, replayed)])
        of_earlier_I = ~np.isin(merged.image_ids_I, own.table.image_ids_I)
        is_new_C = np.arange(len(spec.classes)) >= len(spec.classes) - spec.num_new
        data = TrainingData(merged, folder, of_earlier_I[:, None] & is_new_C)
    return with_unlabeled(data, spec.config)


def _missing_labels(parts: Sequence[LocatedTable], table: AnnotationTable, classes: ClassTable) -> BoolArray | None:
    """(I, C) mask of the classes that no part labels on an image; None where every image has all labels."""
    missing_IC = np.ones((table.num_images, len(classes)), dtype=np.bool_)
    for part, _ in parts:
        labels = classes.labels_of(np.array([category.id for category in part.categories]))
        missing_IC[np.ix_(np.isin(table.image_ids_I, part.image_ids_I), labels[labels >= 0])] = False
    return missing_IC if missing_IC.any() else None


def with_unlabeled(data: TrainingData, config: Config) -> TrainingData:
    """The same data with all images of `data.unlabeled` beside it, if it is set; none of them is labeled.

    Raises:
        ConfigError: batches of one image, of which they cannot fill half.
        DataError: no such folder, no image in it, or one that cannot be read.
    """
    if config.data.unlabeled is None:
        return data
    if config.training.batch_size == 1:
        raise ConfigError("`training.batch_size` 1: `data.unlabeled` fills half of every batch; pass 2 or more")
    folder = Path(config.data.unlabeled)
    further = unlabeled_images(folder)
    further = replace(further, image_ids_I=further.image_ids_I + data.table.image_ids_I.max())
    table, images = merge_located([LocatedTable(data.table, data.images), LocatedTable(further, folder)])
    beside_I = np.isin(table.image_ids_I, further.image_ids_I)
    missing_IC = data.missing_IC
    if missing_IC is not None:
        missing_IC = np.pad(missing_IC, ((0, further.num_images), (0, 0)))
    return TrainingData(table, images, missing_IC, beside_I)


def _build_models(spec: RunSpec, method: Method) -> tuple[Detector, Detector | None]:
    """The student and its teacher: a copy with room for the new classes, or else a detector with fresh class rows.

    Both are built even where a bank teaches: building draws random numbers, and the head grows after it.
    """
    teacher = None
    if spec.init is not None:
        student, _ = load_detector(spec.init)
        student.restart_classes(len(spec.classes))
    elif spec.teacher is None:
        student = build_detector(spec.config.model, len(spec.classes))
        load_backbone_weights(student, spec.config.model)
    else:
        teacher, _ = load_detector(spec.teacher.path)
        student, _ = load_detector(spec.teacher.path)
    student.configure(spec.config.training)
    if teacher is not None:
        method.grow(student, spec.num_new)
    return student, teacher
