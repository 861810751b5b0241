"""The knowledge of an experiment's teacher about the images of its next step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ciod_core.bank.bank import BankInfo, KnowledgeBank
from ciod_core.bank.build import Interview, build_bank
from ciod_core.bank.summary import BankSummary, summarise
from ciod_core.bank.use import from_bank
from ciod_core.classes import ClassTable
from ciod_core.config import Config, ResamplerConfig
from ciod_core.data.annotations import AnnotationTable
from ciod_core.data.coco import read_coco
from ciod_core.data.unlabelled import unlabelled_images
from ciod_core.device import pick_device
from ciod_core.errors import CheckpointError, ConfigError, listed
from ciod_core.experiment import Experiment, run_name
from ciod_core.methods import build_method
from ciod_core.run_plan import Taught, taught_by
from ciod_core.step_data import read_step
from ciod_core.training.checkpoint import load_detector


class Distilled(NamedTuple):
    """A finished bank and what it holds.

    Attributes:
        bank: the bank.
        step: the step whose images it knows, or that comes next.
        num_asked: images that the teacher was asked about now; the bank knew the others.
        summary: what it holds for the images.
        table: the images and the step's own labels on them.
        images_root: the folder that their file names are relative to.
        hashes_I: SHA-256 of every image.
        classes: the old classes.
        hidden: all labels of the dataset; None where nobody has them.
    """

    bank: KnowledgeBank
    step: int
    num_asked: int
    summary: BankSummary
    table: AnnotationTable
    images_root: Path
    hashes_I: tuple[str, ...]
    classes: ClassTable
    hidden: AnnotationTable | None


def distil(
    experiment: Experiment,
    config: Config,
    *,
    teacher: Path | str | None = None,
    images: Path | None = None,
    out: Path | None = None,
    flip: bool = False,
    scales: Sequence[float] = (),
    overwrite: bool = False,
    on_images: Callable[[int], None] | None = None,
) -> Distilled:
    """Ask a teacher about the images of the step after it, or about others, and keep what the resampler selects.

    Args:
        experiment: whose images and teacher.
        config: `resampler` selects; device, workers and the batch size of evaluation are taken as for evaluation.
        teacher: run name or weights; None is the only run that no other continues.
        images: a folder of unlabelled images to ask about instead.
        out: the bank; None is `stepN.knowledge.safetensors` in the experiment.
        flip: average the answers with those for the mirrored images.
        scales: further sizes to average, as multiples of the teacher's image size.
        overwrite: make the bank anew.
        on_images: told the number of images of each finished batch.

    Raises:
        ConfigError: no next step, no obvious teacher, or a bank of other knowledge in the way.
        CheckpointError: weights or step files that are not what was recorded.
        DataError: an image that cannot be read.
    """
    if out is not None and out.is_dir():
        raise ConfigError(f"--out {out}: it is a folder; pass the name of a file")
    verified, taught, _ = the_teacher(experiment, teacher)
    step = taught + 1
    if images is None and step > len(experiment.manifest.steps):
        raise ConfigError(
            f"--teacher {verified.path}: it knows the classes of the last step; pass weights of an earlier one, "
            "or --into with a folder of --images"
        )
    device = pick_device(config.training.device)
    detector, info = load_detector(verified.path, device)
    table, images_root = read_step(experiment, step) if images is None else (unlabelled_images(images), images)
    description = BankInfo(
        teacher_sha256=verified.sha256,
        classes=info.classes.names,
        image_size=info.preprocessing.image_size,
        flip=flip,
        scales=tuple(scales),
        resampler=_selection(config),
    )
    interview = Interview(
        detector,
        info.classes,
        description,
        images_root,
        device,
        batch_size=config.evaluation.batch_size,
        workers=config.data.workers,
        on_images=on_images,
    )
    path = out or experiment.knowledge_path(run_name(step))
    built = build_bank(path, interview, table, overwrite=overwrite)
    hidden = _hidden_labels(experiment, step) if images is None else None
    summary = summarise(built.bank, built.hashes_I, info.classes, table, hidden)
    return Distilled(
        built.bank, step, built.num_asked, summary, table, images_root, built.hashes_I, info.classes, hidden
    )


def the_teacher(experiment: Experiment, teacher: Path | str | None) -> Taught:
    """The teacher that is named, or the only one that can be meant; see `distil` for the errors."""
    return taught_by(experiment, teacher if teacher is not None else _only_leaf(experiment))


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


def _hidden_labels(experiment: Experiment, step: int) -> AnnotationTable | None:
    """All labels of the dataset that a step was cut from; None where nobody has them or they have changed."""
    dataset = experiment.manifest.dataset
    if dataset is None or not experiment.step(step).planned:
        return None
    try:
        return read_coco(experiment.verified(dataset.train.annotations, "the split was made", "restore it"))
    except CheckpointError:
        return None
