"""A run whose parts are ready is trained, evaluated and recorded, its status always included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ciod_core.data.loading.dataset import DetectionDataset
from ciod_core.data.loading.loader import BatchLoader, make_loader
from ciod_core.data.loading.mixing import Mixing
from ciod_core.data.loading.transforms import TrainTransform
from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.evaluation.records import with_report
from ciod_core.experiment.entries import ReplayedImage, RunRecord
from ciod_core.experiment.folder import STATE_FILE, Experiment
from ciod_core.methods.base import Method
from ciod_core.methods.unlabeled import unlabeled_mask
from ciod_core.model.base import Detector, Predictions
from ciod_core.runs.record import start_record, status_recorded, write_settings
from ciod_core.runs.replay import TrainingData
from ciod_core.runs.spec import RunSpec
from ciod_core.runs.weights import RunWeights
from ciod_core.runtime.determinism import reproducible
from ciod_core.runtime.distributed import rank, world_size
from ciod_core.runtime.group import Everywhere
from ciod_core.teachers.base import Teacher
from ciod_core.training.ending import early_end
from ciod_core.training.metrics_log import METRICS_FILE, MetricsLog
from ciod_core.training.progress import TrainingListener
from ciod_core.training.resume import load_state, save_state
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
        resume: go on after the last complete epoch.
        listener: told about the progress.

    Raises:
        ConfigError: a batch too small for batch normalization.
        CheckpointError: a state that does not fit.
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
    folder, weights = experiment.run_folder(spec.name), RunWeights(experiment, spec, trainer)
    if resume:
        _restore(trainers, folder)
        weights.keep_best()
        weights.check_best()
    else:
        (folder / STATE_FILE).unlink(missing_ok=True)
        weights.remove()
    record = start_record(experiment, spec, prepared.device, prepared.replayed, prepared.teacher)
    experiment.put_run(record)
    write_settings(folder, config, record)
    log = MetricsLog(folder / METRICS_FILE, after_iteration=trainer.epochs_done * trainer.iterations_per_epoch)
    trainer.listeners = [log, listener or TrainingListener()]
    with status_recorded(experiment, record):
        _train(trainers, weights, record, folder, prepared.notes)
        return _finish(experiment, weights, trainer, record)


def build_trainer(prepared: PreparedRun) -> Trainer:
    """The trainer of a run in one process."""
    data, training, found = prepared.spec.config.data, prepared.spec.config.training, prepared.data
    dataset = DetectionDataset(
        found.table,
        found.images,
        prepared.spec.classes,
        TrainTransform(data.image_size, data.multi_scale, data.photometric, data.flip),
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


def _restore(trainers: Everywhere[Trainer], folder: Path) -> None:
    state = load_state(folder)
    try:
        trainers.mine.restore(state)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / STATE_FILE}: it does not belong to this run's detector; start the run again with `overwrite`"
        ) from error
    trainers.call(Trainer.restore, state)


def _train(
    trainers: Everywhere[Trainer],
    weights: RunWeights,
    record: RunRecord,
    folder: Path,
    about_knowledge: Sequence[str],
) -> None:
    trainer = trainers.mine
    notes = [str(trainer.skipped)] if trainer.skipped else []
    if record.replayed:
        notes.append(f"images of earlier steps that are trained on again: {len(record.replayed)}")
    notes += about_knowledge
    for listener in trainer.listeners:
        listener.begin(record.name, trainer.config.epochs, trainer.iterations, notes)
    while trainer.ended_by is None:
        trainers.call(_train_epoch)
        if trainer.evaluation_is_due:
            weights.measure()
        save_state(folder, trainer.state())
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
        }
    )
    if experiment.read().validation_steps(record.step):
        record = with_report(experiment, record, weights.report())
    experiment.put_run(record)
    (experiment.run_folder(record.name) / STATE_FILE).unlink(missing_ok=True)
    weights.remove_copies(outputs)
    return record
