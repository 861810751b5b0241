"""A run whose parts are ready is trained, evaluated and recorded, its status always included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.loading.dataset import DetectionDataset
from ciod_core.data.loading.loader import BatchLoader, make_loader
from ciod_core.data.loading.mixing import Mixing
from ciod_core.data.loading.transforms import TrainTransform
from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.evaluation.records import with_report
from ciod_core.experiment.entries import ReplayedImage, RunRecord
from ciod_core.experiment.folder import STATE_FILE, Experiment
from ciod_core.experiment.images import check_images
from ciod_core.experiment.step_data import read_validation
from ciod_core.methods.base import Method
from ciod_core.methods.unlabeled import unlabeled_mask
from ciod_core.model.base import Detector, Predictions
from ciod_core.runs.record import (
    check_owner,
    describe_changes,
    files_of_run,
    owner_of,
    start_record,
    status_recorded,
    write_settings,
)
from ciod_core.runs.replay import TrainingData
from ciod_core.runs.spec import RunSpec
from ciod_core.runs.weights import RunWeights
from ciod_core.runtime.determinism import reproducible
from ciod_core.runtime.distributed import rank, world_size
from ciod_core.runtime.group import Everywhere
from ciod_core.teachers.base import Teacher
from ciod_core.training.ending import early_end
from ciod_core.training.keeping import StateKeeper
from ciod_core.training.metrics_log import METRICS_FILE, MetricsLog
from ciod_core.training.progress import TrainingListener
from ciod_core.training.resume import load_state, make_newest, remove_states
from ciod_core.training.tensorboard_log import TENSORBOARD_FOLDER, TensorBoardLog
from ciod_core.training.trainer import Trainer


@dataclass(frozen=True)
class PreparedRun:
    """Everything that a run needs.

    Attributes:
        spec: the run.
        method: how the student learns.
        student: as it begins.
        teacher: a network or a bank; None where the method needs none.
        data: the images and boxes to train on.
        device: where to train.
        replayed: images of earlier steps among them.
        notes: lines to show when the run begins.
    """

    spec: RunSpec
    method: Method
    student: Detector
    teacher: Teacher | None
    data: TrainingData
    device: torch.device
    replayed: tuple[ReplayedImage, ...] = ()
    notes: tuple[str, ...] = ()


def execute(
    experiment: Experiment, prepared: PreparedRun, *, resume: bool, listener: TrainingListener | None
) -> RunRecord:
    """Train, evaluate where there is validation data, and record both.

    Args:
        experiment: where the run belongs.
        prepared: the run.
        resume: go on after the last complete epoch, if there is one.
        listener: told about the progress.

    Raises:
        ConfigError: a batch too small for batch normalization, or a log that cannot be written here.
        CheckpointError: a state that does not fit, or images that were changed.
        DataError: an image that cannot be read.
    """
    with Everywhere(prepared.device, build_trainer, prepared) as trainers:
        return _execute(experiment, prepared, trainers, resume=resume, listener=listener)


def _execute(
    experiment: Experiment,
    prepared: PreparedRun,
    trainers: Everywhere[Trainer],
    *,
    resume: bool,
    listener: TrainingListener | None,
) -> RunRecord:
    spec, config, trainer = prepared.spec, prepared.spec.config, trainers.mine
    _check_smallest_batch(trainer, config.data.image_size)
    check_images(experiment, _all_images(experiment, prepared))
    folder, weights = experiment.run_folder(spec.name), RunWeights(experiment, spec, trainer)
    record = start_record(experiment, spec, prepared.device, prepared.replayed, prepared.teacher)
    notes = [*prepared.notes]
    if resume and spec.begun is not None and experiment.has_state(spec.name):
        notes += _restore(trainers, weights, folder, spec.begun)
        notes += describe_changes(spec.begun, record)
    else:
        notes += [f"run '{spec.name}' has no completed epoch: it starts from the beginning"] if resume else []
        remove_states(folder)
    logs = _logs(prepared, folder, trainer.epochs_done * trainer.iterations_per_epoch)
    experiment.put_run(record)
    if trainer.epochs_done == 0:
        weights.remove()
    write_settings(folder, config, record)
    trainer.listeners = [*logs, listener or TrainingListener()]
    with status_recorded(experiment, record):
        with StateKeeper(folder, owner_of(record)) as keeper:
            _train(trainers, weights, record, keeper, notes)
            keeper.require_folder()
        return _finish(experiment, weights, trainer, record)


def _all_images(experiment: Experiment, prepared: PreparedRun) -> list[LocatedTable]:
    """Those that the run trains and is evaluated on."""
    manifest, data = experiment.read(), prepared.data
    steps = manifest.validation_steps(prepared.spec.step)
    val = [read_validation(experiment, manifest, step) for step in steps]
    return [LocatedTable(data.table, data.images), *val]


def _logs(prepared: PreparedRun, folder: Path, after_iteration: int) -> list[TrainingListener]:
    """The logs of a run; those of a resumed one go on after an iteration."""
    logs: list[TrainingListener] = [MetricsLog(folder / METRICS_FILE, after_iteration=after_iteration)]
    if prepared.spec.config.training.log == "tensorboard":
        logs.append(TensorBoardLog(folder / TENSORBOARD_FOLDER, after_iteration=after_iteration))
    return logs


def build_trainer(prepared: PreparedRun) -> Trainer:
    """The trainer of a run in one process."""
    data, training, found = prepared.spec.config.data, prepared.spec.config.training, prepared.data
    dataset = DetectionDataset(
        found.table,
        found.images,
        prepared.spec.classes,
        TrainTransform(
            data.image_size, data.multi_scale, data.photometric, data.flip, data.shorter_side, data.scale_pairs
        ),
        seed=training.seed,
        mixing=Mixing(data.mosaic, data.mixup) if data.mosaic or data.mixup else None,
        skip_corrupt=data.corrupt_images == "skip",
        missing_IC=found.missing_IC,
    )

    def load_epoch(epoch: int) -> BatchLoader:
        return make_loader(
            dataset,
            training.batch_size,
            shuffle=True,
            seed=training.seed,
            epoch=epoch,
            workers=data.workers,
            rank=rank(),
            world_size=world_size(),
            beside_I=found.beside_I,
        )

    return Trainer(
        student=prepared.student,
        teacher=prepared.teacher,
        method=prepared.method,
        load_epoch=load_epoch,
        config=training,
        device=prepared.device,
        suspects=_suspects(prepared),
    )


def _check_smallest_batch(trainer: Trainer, image_size: int) -> None:
    """Refuse a batch that gives batch normalization one value of its coarsest level, which has no deviation."""
    size_multiple = trainer.student.size_multiple
    if image_size > size_multiple or trainer.load_epoch(0).smallest_batch > 1:
        return
    if any(isinstance(part, nn.BatchNorm2d) and part.training for part in trainer.student.train().modules()):
        raise ConfigError(
            f"`data.image_size` {image_size}: a batch of a single image is too small to train on at this size; pass "
            f"{2 * size_multiple}, or a `training.batch_size` that leaves no image alone"
        )


def _suspects(prepared: PreparedRun) -> Callable[[Predictions, Tensor], Tensor] | None:
    """Where images may show objects of classes that are not labeled there."""
    data = prepared.spec.config.data
    if prepared.data.missing_IC is None or data.missing_labels != "ignore":
        return None
    return partial(unlabeled_mask, min_score=data.missing_score)


def _restore(trainers: Everywhere[Trainer], weights: RunWeights, folder: Path, begun: RunRecord) -> list[str]:
    """Go on from the newest sound state; lines to show."""
    path, state = folder / STATE_FILE, load_state(folder)
    check_owner(state.owner, begun, path)
    try:
        # Here first: where it does not fit, no other process is told.
        trainers.mine.restore(state)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: it does not belong to this run's detector; start the run again with `overwrite`"
        ) from error
    trainers.call(Trainer.restore, state)
    make_newest(folder, state)
    weights.keep_best()
    if state.stands_in_for is None:
        weights.check_best()
        return []
    weights.forget_lost_best()
    return [
        f"{state.stands_in_for.partition(';')[0]}; the run goes on from the state before, of epoch {state.epochs_done}"
    ]


def _train(
    trainers: Everywhere[Trainer],
    weights: RunWeights,
    record: RunRecord,
    keeper: StateKeeper,
    about: Sequence[str],
) -> None:
    trainer = trainers.mine
    notes = [str(trainer.skipped)] if trainer.skipped else []
    if record.replayed:
        notes.append(f"images of earlier steps that are trained on again: {len(record.replayed)}")
    notes += about
    for listener in trainer.listeners:
        listener.begin(record.name, trainer.config.epochs, trainer.iterations, notes)
    while trainer.ended_by is None:
        trainers.call(_train_epoch)
        if trainer.evaluation_is_due:
            weights.measure()
        # The best weights follow the state that says so.
        keeper.keep(trainer.state(), write=weights.are_best or trainer.ended_by is not None)
        weights.keep_best()
    early = early_end(trainer.config, trainer.epochs_done, trainer.ended_by)
    for listener in trainer.listeners:
        if early is not None:
            listener.ended_early(early)
        listener.end(trainer.seconds)


def _train_epoch(trainer: Trainer) -> None:
    # Once more in the main process: helpers have no switches set yet.
    with reproducible(trainer.config.seed, strict=trainer.config.deterministic):
        trainer.train_epoch()


def _finish(experiment: Experiment, weights: RunWeights, trainer: Trainer, record: RunRecord) -> RunRecord:
    outputs = weights.hand_on()
    record = record.model_copy(
        update={
            "status": "finished",
            "seconds": round(trainer.seconds, 3),
            "epochs": trainer.epochs_done,
            "ended_by": trainer.ended_by,
            "skipped_images": trainer.skipped.names,
            "outputs": outputs,
            "files": files_of_run(experiment, record.name),
        }
    )
    if experiment.read().validation_steps(record.step):
        record = with_report(experiment, record, weights.report())
    experiment.put_run(record)
    remove_states(experiment.run_folder(record.name))
    weights.remove_copies(outputs)
    return record
