"""Who is asked about which images: weights of the experiment, or a teacher from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ciod_core.classes import ClassTable
from ciod_core.config.schema import Config, ResamplerConfig
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.images.unlabelled import unlabelled_images
from ciod_core.errors import ConfigError, listed
from ciod_core.experiment.folder import Experiment, Teacher
from ciod_core.experiment.step_data import read_step
from ciod_core.experiment.teacher import taught_by
from ciod_core.methods.registry import build_method
from ciod_core.model.checkpoint import load_detector
from ciod_core.runtime.device import pick_device
from ciod_core.teachers.bank import BankInfo
from ciod_core.teachers.build import Interview
from ciod_core.teachers.opening import is_foreign, open_foreign
from ciod_core.teachers.question import Question
from ciod_core.teachers.respondent import Respondent
from ciod_core.teachers.use import from_bank

FIRST_STEP_WITH_OLD_CLASSES = 2


@dataclass(frozen=True)
class Asking:
    """Whom to ask about what, as users say it.

    Attributes:
        teacher: run name or weights; None is the only run that no other continues. Or a teacher from elsewhere: the
            COCO results of any detector, or an ONNX model.
        step: for a teacher from elsewhere: whose images (default: 2); weights know which step comes next.
        teacher_classes: for a teacher from elsewhere that does not name its classes itself: a file that does.
        images: a folder of unlabelled images to ask about instead of those of a step.
        flip: average the answers of weights with those for the mirrored images.
        scales: further sizes to average, as multiples of the teacher's image size.
    """

    teacher: Path | str | None = None
    step: int | None = None
    teacher_classes: Path | None = None
    images: Path | None = None
    flip: bool = False
    scales: tuple[float, ...] = ()


class Witness(NamedTuple):
    """A teacher, and what it may be asked about.

    Attributes:
        teacher: verified weights; None for a teacher from elsewhere, whose file is `file`.
        file: the weights, results or model.
        step: the last step whose classes it knows.
        classes: the classes that it may name.
    """

    teacher: Teacher | None
    file: Path
    step: int
    classes: ClassTable


def find_witness(experiment: Experiment, asking: Asking) -> Witness:
    """Find and verify the teacher that is meant.

    Raises:
        ConfigError: no obvious teacher, options that do not belong to it, or a step without old classes.
        CheckpointError: weights that are not what was recorded.
    """
    named = asking.teacher if asking.teacher is not None else _only_leaf(experiment)
    if not is_foreign(named):
        if asking.step is not None or asking.teacher_classes is not None:
            option = "--step" if asking.step is not None else "--teacher-classes"
            raise ConfigError(f"{option}: ciod's weights say themselves what they know; leave it out")
        taught = taught_by(experiment, named)
        return Witness(taught.teacher, taught.teacher.path, taught.step, taught.classes)
    if asking.flip or asking.scales:
        option = "--flip" if asking.flip else "--scales"
        raise ConfigError(f"{option}: {named} answers once for every image; leave it out")
    if asking.images is not None and Path(named).suffix.lower() == ".json":
        raise ConfigError(f"--images: {named} knows images by their ids, not by their files; leave it out")
    following = FIRST_STEP_WITH_OLD_CLASSES if asking.step is None else asking.step
    if following < FIRST_STEP_WITH_OLD_CLASSES:
        raise ConfigError(f"--step {following}: no step comes before it, so that nothing is old; pass 2 or a later one")
    return Witness(None, Path(named), following - 1, experiment.manifest.classes.up_to(following - 1))


class Asked(NamedTuple):
    """A teacher that is ready to answer.

    Attributes:
        respondent: the teacher.
        table: the images, with what their step labels on them.
        notes: what a user should know about how a teacher from elsewhere fits.
    """

    respondent: Respondent
    table: AnnotationTable
    notes: tuple[str, ...]


def prepare(
    experiment: Experiment,
    config: Config,
    asking: Asking,
    witness: Witness,
    on_images: Callable[[int], None] | None = None,
) -> Asked:
    """Load images and teacher.

    Raises:
        ConfigError: no next step, or classes that do not fit.
        CheckpointError: weights or step files that are not what was recorded.
        DataError: images or results that cannot be read.
        ExportError: a model that cannot be loaded.
    """
    located = _images(experiment, asking, witness)
    if witness.teacher is None:
        question = Question(witness.step + 1, witness.classes, *located, _selection(config), on_images)
        respondent, notes = open_foreign(witness.file, asking.teacher_classes, question)
        return Asked(respondent, located.table, notes)
    device = pick_device(config.training.device)
    detector, info = load_detector(witness.file, device)
    interview = Interview(
        detector,
        info.classes,
        BankInfo(
            teacher_sha256=witness.teacher.sha256,
            classes=info.classes.names,
            image_size=info.preprocessing.image_size,
            flip=asking.flip,
            scales=asking.scales,
            resampler=_selection(config),
        ),
        located.images,
        device,
        batch_size=config.evaluation.batch_size,
        workers=config.data.workers,
        on_images=on_images,
    )
    return Asked(interview, located.table, ())


def _images(experiment: Experiment, asking: Asking, witness: Witness) -> LocatedTable:
    if asking.images is not None:
        return LocatedTable(unlabelled_images(asking.images), asking.images)
    following = witness.step + 1
    if witness.teacher is not None and following > len(experiment.manifest.steps):
        raise ConfigError(
            f"--teacher {witness.file}: it knows the classes of the last step; pass weights of an earlier one, "
            "or --into with a folder of --images"
        )
    return read_step(experiment, following)


def _selection(config: Config) -> ResamplerConfig:
    """How the method that is going to learn from the bank selects."""
    recall = build_method(from_bank(config)).recall
    if recall is None:
        raise ConfigError(f"method.name: '{config.method.name}' cannot learn from a bank; leave it out")
    return recall.resampler


def _only_leaf(experiment: Experiment) -> str:
    leaves = experiment.leaf_runs()
    if len(leaves) != 1:
        names = listed([run.name for run in leaves]) or "no finished run yet"
        raise ConfigError(f"{experiment.folder}: which teacher is not clear ({names}); pass --teacher")
    return leaves[0].name
