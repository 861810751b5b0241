"""One network again: distill a detector with branches into its own old path."""

from __future__ import annotations

from pathlib import Path

import torch

from ciod_core.config.schema import Config
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.errors import ConfigError
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import Experiment, check_run_name
from ciod_core.experiment.step_data import check_step_files, read_step
from ciod_core.experiment.teacher import taught_by
from ciod_core.methods.consolidation import Consolidation, ConsolidationConfig
from ciod_core.model.base import Detector
from ciod_core.model.checkpoint import load_detector, read_info
from ciod_core.runs.claim import claimed
from ciod_core.runs.execute import PreparedRun, execute
from ciod_core.runs.inherited import is_set, with_set
from ciod_core.runs.replay import TrainingData
from ciod_core.runs.spec import RunSpec, on_device, settle
from ciod_core.runs.train import with_unlabeled
from ciod_core.runtime.determinism import reproducible
from ciod_core.teachers.base import TeacherIdentity
from ciod_core.teachers.network import NetworkTeacher
from ciod_core.training.progress import TrainingListener

# Unless set; see `ConsolidationConfig`.
LEARNING_RATE = 6e-4
OF_IMPORTED_WEIGHTS = {"consolidation.trunk_rate": 0.04, "consolidation.head_decay": 50.0}


def consolidate(
    experiment: Experiment,
    config: Config,
    *,
    teacher: Path | str,
    run: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    listener: TrainingListener | None = None,
) -> RunRecord:
    """Train one network that predicts what a detector with branches does; no label of earlier steps takes part.

    The student is the teacher's oldest path with further class rows. It learns on the images of the teacher's last
    step, and on those of `data.unlabeled`; without them the backbone is frozen, because nothing else would hold it.

    Args:
        experiment: of the teacher and the run.
        config: settings of training; unless set, the learning rate is `LEARNING_RATE`, and what is left of imported
            weights is held by `OF_IMPORTED_WEIGHTS`.
        teacher: run name or weights with branches.
        run: a name other than the default one, the teacher's with `-one`.
        resume: continue an interrupted run after its last complete epoch.
        overwrite: replace a run of the same name.
        listener: told about the progress.

    Raises:
        ConfigError: a teacher without branches, or a run that exists already.
        CheckpointError: a teacher or a state that does not fit.
        DataError: images that cannot be read.
    """
    spec = _describe(experiment, config, teacher, run)
    with claimed(experiment, spec, resume=resume, overwrite=overwrite) as spec:
        spec, device = on_device(settle(spec))
        manifest, config = experiment.read(), spec.config
        check_step_files(experiment, manifest, spec.step)
        data = with_unlabeled(TrainingData(*read_step(experiment, manifest, spec.step)), config)
        with reproducible(config.training.seed, strict=config.training.deterministic):
            method = Consolidation(config.section(Consolidation.section, ConsolidationConfig), config.resampler)
            prepared = PreparedRun(
                spec=spec,
                method=method,
                student=_student(spec, method),
                teacher=_teacher(spec, method, data, device),
                data=data,
                device=device,
                notes=_notes(config),
            )
            return execute(experiment, prepared, resume=resume, listener=listener)


def _describe(experiment: Experiment, config: Config, teacher: Path | str, run: str | None) -> RunSpec:
    taught = taught_by(experiment, teacher)
    info = read_info(taught.teacher.path)
    if not info.branch_depths:
        raise ConfigError(f"`teacher` {teacher}: it has no branches; it is one network already")
    named = taught.teacher.run.name if taught.teacher.run else f"step{taught.step}"
    suited = {"training.lr": LEARNING_RATE} | (OF_IMPORTED_WEIGHTS if info.source is not None else {})
    config = with_set(config, {key: value for key, value in suited.items() if not is_set(config, key)})
    return RunSpec(
        name=check_run_name(run or f"{named}-one"),
        step=taught.step,
        kind="distilled",
        teacher=taught.teacher,
        classes=taught.classes,
        config=config,
        consolidates=True,
    )


def _student(spec: RunSpec, method: Consolidation) -> Detector:
    assert spec.teacher is not None
    student, _ = load_detector(spec.teacher.path)
    student.configure(spec.config.training)
    method.grow(student, len(spec.classes) - student.head_classes[0])
    if spec.config.data.unlabeled is None:
        student.backbone.requires_grad_(False)
    return student


def _teacher(spec: RunSpec, method: Consolidation, data: TrainingData, device: torch.device) -> NetworkTeacher:
    assert spec.teacher is not None
    detector, info = load_detector(spec.teacher.path)
    training = spec.config.training
    identity = TeacherIdentity(
        teacher_sha256=spec.teacher.sha256,
        classes=info.classes.names,
        **spec.config.data.sizes,
        resampler=spec.config.resampler,
    )
    images = LocatedTable(data.table, data.images)
    return NetworkTeacher.beside_student(detector, method, identity, images, device=device, training=training)


def _notes(config: Config) -> tuple[str, ...]:
    if config.data.unlabeled is not None:
        return ()
    return (
        "without `data.unlabeled` the backbone stays frozen: expect lower AP of all classes and more false alarms; "
        "photographs of what the detector sees are best, any others will do",
    )
