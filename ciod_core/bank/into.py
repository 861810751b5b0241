"""A student of another size that learns nothing but what its teacher knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ciod_core.bank.choice import check_same_bank
from ciod_core.bank.distil import distil, the_teacher
from ciod_core.bank.use import BankMemory, from_bank
from ciod_core.config import Config, ModelConfig
from ciod_core.data.unlabelled import without_labels
from ciod_core.device import pick_device
from ciod_core.errors import ConfigError
from ciod_core.execution import PreparedRun, execute
from ciod_core.experiment import Experiment, check_run_name
from ciod_core.manifest import RunRecord
from ciod_core.methods import build_method
from ciod_core.model.detector import build_detector
from ciod_core.model.pretrained import load_backbone_weights
from ciod_core.replay import TrainingData
from ciod_core.run_plan import RunPlan, Taught, check_free, resumed_config
from ciod_core.training.checkpoint import read_info
from ciod_core.training.progress import TrainingListener
from ciod_core.training.reproducible import reproducible


def distil_into(
    experiment: Experiment,
    config: Config,
    *,
    teacher: Path | str | None = None,
    images: Path | None = None,
    out: Path | None = None,
    flip: bool = False,
    scales: Sequence[float] = (),
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
        teacher: run name or weights; None is the only run that no other continues.
        images: a folder of unlabelled images; None takes those of the step after the teacher's.
        out: the bank; None is `stepN.knowledge.safetensors`, or the run's name in place of `stepN` for other images.
        flip: average the answers with those for the mirrored images.
        scales: further sizes to average, as multiples of the teacher's image size.
        run: a name other than the default one, which is made of teacher and model.
        resume: continue an interrupted run after its last complete epoch.
        overwrite: replace a run of the same name, and the bank.
        on_images: told how many images the teacher was asked about.
        listener: told about the progress of training.

    Raises:
        ConfigError: a combination that makes no sense, a run that exists already.
        CheckpointError: a teacher or a state that does not fit.
        DataError: images that cannot be read.
    """
    taught = the_teacher(experiment, teacher)
    plan = plan_student(taught, config.model, run)
    check_free(experiment, plan.name, resume=resume, overwrite=overwrite)
    begun = experiment.run(plan.name) if resume else None
    config = settle_student(config, taught)
    if begun is not None:
        config = resumed_config(begun, plan, config)
    method = build_method(config)
    if method.recall is None:
        raise ConfigError(f"method.name: '{config.method.name}' cannot learn from a teacher alone; leave it out")
    if out is None and images is not None:
        out = experiment.knowledge_path(plan.name)
    distilled = distil(
        experiment,
        config,
        teacher=taught.teacher.path,
        images=images,
        out=out,
        flip=flip,
        scales=scales,
        overwrite=overwrite,
        on_images=on_images,
    )
    if begun is not None:
        check_same_bank(begun, distilled.bank.path)
    with reproducible(config.training.seed, strict=config.training.deterministic):
        student = build_detector(config.model, len(plan.classes))
        load_backbone_weights(student, config.model)
        data = TrainingData(without_labels(distilled.table), distilled.images_root)
        memory = BankMemory(distilled.bank, distilled.hashes_I)
        notes = (f"learns from {distilled.bank.path.name} alone; no label takes part",)
        prepared = PreparedRun(
            plan, config, method, student, None, data, pick_device(config.training.device), memory, notes=notes
        )
        return execute(experiment, prepared, resume=resume, listener=listener)


def plan_student(taught: Taught, model: ModelConfig, run: str | None) -> RunPlan:
    """What the run is: the step and the classes are those of its teacher.

    Raises:
        ConfigError: a name that no run may have.
    """
    known_as = taught.teacher.run.name if taught.teacher.run else f"step{taught.step}"
    name = check_run_name(run or f"{known_as}-{model.name}")
    return RunPlan(name, taught.step, "distilled", taught.teacher, taught.classes.from_knowledge())


def settle_student(config: Config, taught: Taught) -> Config:
    """The settings of a student that begins from nothing: there is nothing yet that ought to be kept as it is."""
    data, distiller = config.data, from_bank(config).distiller
    if "image_size" not in data.model_fields_set:
        data = data.model_copy(update={"image_size": read_info(taught.teacher.path).preprocessing.image_size})
    distiller = distiller.model_copy(update={"batch_norm": "update", "trunk_balance": 0.0})
    return config.model_copy(update={"data": data, "distiller": distiller})
