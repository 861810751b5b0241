"""A student of another size that learns nothing but what its teacher knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ciod_core.config.schema import Config
from ciod_core.data.images.unlabelled import without_labels
from ciod_core.errors import ConfigError
from ciod_core.experiment.folder import Experiment, check_run_name
from ciod_core.experiment.manifest import RunRecord
from ciod_core.methods import build_method
from ciod_core.model.checkpoint import read_info
from ciod_core.model.detector import build_detector
from ciod_core.model.pretrained import load_backbone_weights
from ciod_core.runs.choose_knowledge import check_same_bank
from ciod_core.runs.execute import PreparedRun, execute
from ciod_core.runs.replay import TrainingData
from ciod_core.runs.spec import RunSpec, claim
from ciod_core.runtime.determinism import reproducible
from ciod_core.runtime.device import pick_device
from ciod_core.teachers.asking import Asking, Witness, find_witness
from ciod_core.teachers.distil import Distilled, distil
from ciod_core.teachers.use import BankMemory, from_bank
from ciod_core.training.progress import TrainingListener


def distil_into(
    experiment: Experiment,
    config: Config,
    asking: Asking,
    *,
    out: Path | None = None,
    run: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_images: Callable[[int], None] | None = None,
    listener: TrainingListener | None = None,
) -> RunRecord:
    """Train a fresh detector on images without labels: its teacher's answers, kept in a bank, are all it learns from.

    Args:
        experiment: whose teacher, and where the run belongs.
        config: settings of the selection, of the student and of its training; the image size is the teacher's where
            none is given.
        asking: the teacher and the images.
        out: the bank; None is `stepN.knowledge.safetensors`, or the run's name in place of `stepN` for other images.
        run: a name other than the default one, which is made of teacher and model.
        resume: continue an interrupted run after its last complete epoch.
        overwrite: replace a run of the same name, and the bank.
        on_images: told how many images the teacher was asked about.
        listener: told about the progress of training.

    Raises:
        ConfigError: a combination that makes no sense, a run that exists already.
        CheckpointError: a teacher or a state that does not fit.
        DataError: images or results that cannot be read.
        ExportError: a model that cannot be loaded.
    """
    witness = find_witness(experiment, asking)
    spec = plan_student(witness, settle_student(config, witness), run)
    spec = claim(experiment, spec, resume=resume, overwrite=overwrite)
    config = spec.config
    if out is None and asking.images is not None:
        out = experiment.knowledge_path(spec.name)
    distilled = distil(experiment, config, asking, out=out, overwrite=overwrite, on_images=on_images)
    if spec.begun is not None:
        check_same_bank(spec.begun, distilled.bank.path)
    with reproducible(config.training.seed, strict=config.training.deterministic):
        prepared = _prepared(spec, distilled)
        return execute(experiment, prepared, resume=resume, listener=listener)


def plan_student(witness: Witness, config: Config, run: str | None) -> RunSpec:
    """What the run is: step and classes are those that its teacher knows.

    Raises:
        ConfigError: a name that no run may have.
    """
    known_as = f"step{witness.step}"
    if witness.teacher is not None and witness.teacher.run is not None:
        known_as = witness.teacher.run.name
    name = check_run_name(run or f"{known_as}-{config.model.name}")
    return RunSpec(name, witness.step, "distilled", witness.teacher, witness.classes.from_knowledge(), config)


def settle_student(config: Config, witness: Witness) -> Config:
    """The settings of a student that begins from nothing: there is nothing yet that ought to be kept as it is.

    Raises:
        ConfigError: a method that learns from something else than selected answers.
    """
    data, distiller = config.data, from_bank(config).distiller
    if witness.teacher is not None and "image_size" not in data.model_fields_set:
        data = data.model_copy(update={"image_size": read_info(witness.file).preprocessing.image_size})
    distiller = distiller.model_copy(update={"batch_norm": "update", "trunk_balance": 0.0})
    settled = config.model_copy(update={"data": data, "distiller": distiller})
    if build_method(settled).recall is None:
        raise ConfigError(f"method.name: '{config.method.name}' cannot learn from a teacher alone; leave it out")
    return settled


def _prepared(spec: RunSpec, distilled: Distilled) -> PreparedRun:
    student = build_detector(spec.config.model, len(spec.classes))
    load_backbone_weights(student, spec.config.model)
    return PreparedRun(
        spec=spec,
        method=build_method(spec.config),
        student=student,
        teacher=None,
        data=TrainingData(without_labels(distilled.table), distilled.images_root),
        device=pick_device(spec.config.training.device),
        memory=BankMemory(distilled.bank, distilled.hashes_I),
        notes=(*distilled.notes, f"learns from {distilled.bank.path.name} alone; no label takes part"),
    )
