"""One training run of an experiment, from its inputs to a finished record in the manifest.

`run_plan` decides what a run is; the engine sets up student, teacher, data and trainer, and keeps the manifest true at
every moment: running, interrupted, failed or finished.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ciod_core.bank.bank import KNOWLEDGE_KEY
from ciod_core.bank.use import BankMemory, check_same_knowledge, from_bank, open_bank
from ciod_core.classes import ClassTable
from ciod_core.config import Config
from ciod_core.data.annotations import AnnotationTable
from ciod_core.data.dataset import DetectionDataset, Memory
from ciod_core.data.loader import BatchLoader, make_loader
from ciod_core.data.merging import LocatedTable, merge_located
from ciod_core.data.mixing import Mixing
from ciod_core.data.transforms import TrainTransform
from ciod_core.device import pick_device
from ciod_core.errors import CheckpointError
from ciod_core.evaluation.evaluate import evaluate_weights
from ciod_core.evaluation.records import with_report
from ciod_core.experiment import WEIGHTS_KEY, Experiment
from ciod_core.manifest import FileRecord, ReplayedImage, RunRecord
from ciod_core.methods import build_method
from ciod_core.methods.base import Method
from ciod_core.methods.unlabelled import suspected_objects
from ciod_core.model.detector import Detector, build_detector
from ciod_core.model.pretrained import load_backbone_weights
from ciod_core.preprocessing import Preprocessing
from ciod_core.replay import TrainingData, add_replay, choose_replayed, replay_table, resumed_replay
from ciod_core.run_plan import RunPlan, check_free, plan_run, resumed_config, settle_config
from ciod_core.run_record import honest_status, start_record, write_settings
from ciod_core.step_data import read_all_labels, read_step
from ciod_core.training.checkpoint import CheckpointInfo, load_detector, save_detector
from ciod_core.training.distributed import rank, world_size
from ciod_core.training.metrics_log import MetricsLog
from ciod_core.training.progress import Listeners, SilentListener, TrainingListener
from ciod_core.training.reproducible import reproducible
from ciod_core.training.resume import STATE_FILE, load_state, save_state
from ciod_core.training.trainer import Trainer


def train_step(
    experiment: Experiment,
    config: Config,
    *,
    teacher: Path | str | None = None,
    step: int | None = None,
    run: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    knowledge: Path | None = None,
    listener: TrainingListener | None = None,
) -> RunRecord:
    """Train one run, evaluate it where there is validation data, and record both.

    Args:
        experiment: where the run belongs.
        config: all settings; `model` is taken from the teacher where there is one.
        teacher: run name or weights of the previous step; without it the run is step 1.
        step: for `joint` only: the last step whose classes are learned (default: the plan's last).
        run: a name other than the default one.
        resume: continue an interrupted run after its last complete epoch.
        overwrite: replace a run of the same name.
        knowledge: a bank to learn from instead of asking the teacher.
        listener: told about the progress.

    Raises:
        ConfigError: a combination that makes no sense, a run that exists already.
        CheckpointError: a teacher or a state that does not fit.
        DataError: training data that cannot be read.
    """
    plan = plan_run(experiment, config, teacher=teacher, step=step, run=run)
    check_free(experiment, plan.name, resume=resume, overwrite=overwrite)
    begun = experiment.run(plan.name) if resume else None
    if begun is not None:
        check_same_knowledge(begun, knowledge)
        config = resumed_config(begun, plan, config)
    config = settle_config(plan, config)
    bank = None
    if knowledge is not None:
        config = from_bank(config)
        bank = open_bank(knowledge, config, plan.teacher)
    experiment.check_step_files(plan.step)
    device = pick_device(config.training.device)
    replayed = resumed_replay(experiment, begun) if begun else choose_replayed(experiment, plan, config)
    with reproducible(config.training.seed, strict=config.training.deterministic):
        method = build_method(config)
        student, teacher_model = _build_models(plan, config, method)
        data = training_data(experiment, plan, replayed)
        memory = None
        if bank is not None:
            memory, teacher_model = BankMemory.of(bank, data.table, data.images), None
        trainer = _build_trainer(plan, config, method, student, teacher_model, data, device, memory)
        folder = experiment.run_folder(plan.name)
        if resume:
            _restore(trainer, folder)
        elif (folder / STATE_FILE).exists():
            (folder / STATE_FILE).unlink()
        record = start_record(experiment, plan, config, device, replayed, bank)
        experiment.put_run(record)
        write_settings(folder, config, record)
        log = MetricsLog(folder / "metrics.csv", after_iteration=trainer.epochs_done * trainer.iterations_per_epoch)
        trainer.listener = Listeners((log, listener or SilentListener()))
        with honest_status(experiment, record):
            _train(trainer, record, folder)
            return _finish(experiment, plan, config, trainer, record)


def training_table(experiment: Experiment, plan: RunPlan) -> LocatedTable:
    """The images and boxes a run may see: its step's file, or for a joint run all labels of the steps so far."""
    if not plan.joint:
        return read_step(experiment, plan.step)
    parts = read_all_labels(experiment, plan.step)
    return merge_located([LocatedTable(_labelled_part(part.table, plan.classes), part.images) for part in parts])


def _labelled_part(table: AnnotationTable, classes: ClassTable) -> AnnotationTable:
    wanted_N = classes.labels_of(table.category_ids_N) >= 0
    return table.select(wanted_N, table.images_with(wanted_N & ~table.crowd_N))


def training_data(experiment: Experiment, plan: RunPlan, replayed: tuple[ReplayedImage, ...]) -> TrainingData:
    """The images and boxes of a run, those that it replays included."""
    own = training_table(experiment, plan)
    return add_replay(own, replay_table(experiment, replayed)) if replayed else TrainingData(*own)


def _build_models(plan: RunPlan, config: Config, method: Method) -> tuple[Detector, Detector | None]:
    """The student, a copy of its teacher with room for the new classes or a fresh detector, and the teacher."""
    if plan.teacher is None:
        student = build_detector(config.model, len(plan.classes))
        load_backbone_weights(student, config.model)
        return student, None
    teacher, _ = load_detector(plan.teacher.path)
    student, _ = load_detector(plan.teacher.path)
    method.grow(student, plan.num_new)
    return student, teacher


def _build_trainer(
    plan: RunPlan,
    config: Config,
    method: Method,
    student: Detector,
    teacher: Detector | None,
    found: TrainingData,
    device: torch.device,
    memory: Memory | None,
) -> Trainer:
    data, training = config.data, config.training
    dataset = DetectionDataset(
        found.table,
        found.images,
        plan.classes,
        TrainTransform(data.image_size, data.multi_scale, data.photometric, data.flip),
        seed=training.seed,
        mixing=Mixing(data.mosaic, data.mixup) if data.mosaic or data.mixup else None,
        skip_corrupt=data.corrupt_images == "skip",
        replayed_I=found.replayed_I,
        memory=memory,
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
        )

    suspects = None
    if found.replayed_I is not None and plan.num_new and config.replay.unlabelled == "ignore":
        first_new_class = len(plan.classes) - plan.num_new
        suspects = suspected_objects(first_new_class=first_new_class, min_score=config.replay.suspect_score)
    return Trainer(student, teacher, method, load_epoch, training, device, SilentListener(), suspects)


def _restore(trainer: Trainer, folder: Path) -> None:
    epochs_done, state = load_state(folder)
    try:
        trainer.restore(epochs_done, state)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / STATE_FILE}: it does not belong to this run's detector; start the run again with --overwrite"
        ) from error


def _train(trainer: Trainer, record: RunRecord, folder: Path) -> None:
    notes = [str(trainer.skipped)] if trainer.skipped else []
    if record.replayed:
        notes.append(f"images of earlier steps that are trained on again: {len(record.replayed)}")
    if KNOWLEDGE_KEY in record.inputs:
        notes.append(f"learns from {record.inputs[KNOWLEDGE_KEY].path} instead of asking the teacher")
    trainer.listener.begin(record.name, trainer.config.epochs, trainer.iterations, notes)
    while trainer.epochs_done < trainer.config.epochs:
        trainer.train_epoch()
        save_state(folder, epochs_done=trainer.epochs_done, parts=trainer.state())
    trainer.listener.end(trainer.seconds)


def _finish(experiment: Experiment, plan: RunPlan, config: Config, trainer: Trainer, record: RunRecord) -> RunRecord:
    weights = experiment.weights_path(plan.name)
    info = CheckpointInfo(
        model=config.model,
        classes=plan.classes,
        head_classes=trainer.student.head_classes,
        preprocessing=Preprocessing(image_size=config.data.image_size),
        run=plan.name,
        step=plan.step,
        method=record.method,
        parent_sha256=plan.teacher.sha256 if plan.teacher else None,
    )
    save_detector(weights, trainer.weights, info)
    written = record.model_copy(
        update={
            "status": "finished",
            "seconds": round(trainer.seconds, 3),
            "skipped_images": trainer.skipped.names,
            "outputs": {WEIGHTS_KEY: FileRecord.of(weights, experiment.folder)},
        }
    )
    if experiment.manifest.validation_steps(plan.step):
        trainer.listener.evaluating(plan.name)
        report, _ = evaluate_weights(
            experiment, weights, config.evaluation, device=trainer.device, workers=config.data.workers
        )
        finished = with_report(experiment, written, report)
    else:
        finished = written
    experiment.put_run(finished)
    (experiment.run_folder(plan.name) / STATE_FILE).unlink(missing_ok=True)
    return finished
