"""Train a fresh detector from a teacher's knowledge alone, without labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ciod_core.config.schema import Config
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import Experiment, check_run_name
from ciod_core.methods.registry import build_method
from ciod_core.model.checkpoint import read_info
from ciod_core.model.pretrained import load_backbone_weights
from ciod_core.model.registry import build_detector
from ciod_core.runs.claim import claimed
from ciod_core.runs.execute import PreparedRun, execute
from ciod_core.runs.replay import TrainingData
from ciod_core.runs.spec import RunSpec, on_device, seen_like
from ciod_core.runtime.determinism import reproducible
from ciod_core.teachers.distill import distill
from ciod_core.teachers.report import StepBank
from ciod_core.teachers.resolve import bank_config, require_same_bank
from ciod_core.teachers.sources import TeacherFile, TeacherOptions, find_teacher
from ciod_core.training.progress import TrainingListener


def distill_into(
    experiment: Experiment,
    config: Config,
    options: TeacherOptions,
    *,
    out: Path | None = None,
    name: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_images: Callable[[int], None] | None = None,
    listener: TrainingListener | None = None,
) -> RunRecord:
    """Train a fresh detector on images without labels, from a bank of its teacher's selected predictions.

    Args:
        experiment: of the teacher and the run.
        config: settings of the selection, of the student and of its training; the image size is the teacher's where
            none is given.
        options: the teacher and the images.
        out: the bank; None is `stepN.knowledge.safetensors`, or the run's name in place of `stepN` for other images.
        name: of the run; by default made of teacher and model.
        resume: continue an interrupted run after its last complete epoch.
        overwrite: replace a run of the same name, and the bank.
        on_images: told the number of images that the teacher finished.
        listener: told about the progress of training.

    Raises:
        ConfigError: a combination that makes no sense, a run that exists already.
        CheckpointError: a teacher or a state that does not fit.
        DataError: images or results that cannot be read.
        ExportError: a model that cannot be loaded.
    """
    file = find_teacher(experiment, options)
    spec = _describe_student(file, _settle_student(config, file), name)
    with claimed(experiment, spec, resume=resume, overwrite=overwrite) as spec:
        spec, device = on_device(spec)
        if out is None and options.images is not None:
            out = experiment.knowledge_path(spec.name)
        bank = distill(experiment, spec.config, options, file=file, out=out, overwrite=overwrite, on_images=on_images)
        if spec.begun is not None:
            require_same_bank(spec.begun, bank.path)
        training = spec.config.training
        with reproducible(training.seed, strict=training.deterministic):
            return execute(experiment, _prepare(spec, bank, device), resume=resume, listener=listener)


def _describe_student(file: TeacherFile, config: Config, name: str | None) -> RunSpec:
    """The run; its step and classes are those of the teacher.

    Raises:
        ConfigError: a name that no run may have.
    """
    teacher = f"step{file.step}"
    if file.weights is not None and file.weights.run is not None:
        teacher = file.weights.run.name
    checked = check_run_name(name or f"{teacher}-{config.model.name}")
    return RunSpec(checked, file.step, "distilled", file.weights, file.classes.from_knowledge(), config)


def _settle_student(config: Config, file: TeacherFile) -> Config:
    """The settings of a student with fresh weights, in which there is nothing yet to keep.

    Raises:
        ConfigError: a method that needs more than a bank.
    """
    config = bank_config(config)
    data = config.data if file.weights is None else seen_like(read_info(file.path).preprocessing, config.data)
    # Fresh weights hold nothing that should be kept.
    method = config.method.model_copy(update={"batch_norm": "update", "trunk_balance": 0.0})
    return config.model_copy(update={"data": data, "method": method})


def _prepare(spec: RunSpec, bank: StepBank, device: torch.device) -> PreparedRun:
    student = build_detector(spec.config.model, len(spec.classes))
    load_backbone_weights(student, spec.config.model)
    student.configure(spec.config.training)
    table, image_dir = bank.teacher.images
    return PreparedRun(
        spec=spec,
        method=build_method(spec.config),
        student=student,
        teacher=bank.teacher,
        data=TrainingData(table.without_boxes(), image_dir),
        device=device,
        notes=(*bank.notes, f"learns from {bank.path.name} alone; no label takes part"),
    )
