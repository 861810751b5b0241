"""The knowledge of a teacher about the images of an experiment's next step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ciod_core.classes import ClassTable
from ciod_core.config.schema import Config
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.experiment.folder import Experiment, run_name
from ciod_core.teachers.asking import Asking, find_witness, prepare
from ciod_core.teachers.bank import KnowledgeBank
from ciod_core.teachers.build import build_bank
from ciod_core.teachers.summary import BankSummary, summarise


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
        notes: what a user should know about how a teacher from elsewhere fits.
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
    notes: tuple[str, ...] = ()


def distil(
    experiment: Experiment,
    config: Config,
    asking: Asking,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    on_images: Callable[[int], None] | None = None,
) -> Distilled:
    """Ask a teacher about the images of the step after it, or about others, and keep what the resampler selects.

    Args:
        experiment: whose images and teacher.
        config: `resampler` selects; device, workers and the batch size of evaluation are taken as for evaluation.
        asking: whom, and about what.
        out: the bank; None is `stepN.knowledge.safetensors` in the experiment.
        overwrite: make the bank anew.
        on_images: told the number of images of each finished batch.

    Raises:
        ConfigError: no next step, no obvious teacher, classes that do not fit, or other knowledge in the way.
        CheckpointError: weights or step files that are not what was recorded.
        DataError: images or results that cannot be read.
        ExportError: a model that cannot be loaded.
    """
    if out is not None and out.is_dir():
        raise ConfigError(f"--out {out}: it is a folder; pass the name of a file")
    witness = find_witness(experiment, asking)
    asked = prepare(experiment, config, asking, witness, on_images)
    step = witness.step + 1
    path = out or experiment.knowledge_path(run_name(step))
    built = build_bank(path, asked.respondent, asked.table, overwrite=overwrite)
    hidden = _hidden_labels(experiment, step) if asking.images is None else None
    return Distilled(
        bank=built.bank,
        step=step,
        num_asked=built.num_asked,
        summary=summarise(built.bank, built.hashes_I, witness.classes, asked.table, hidden),
        table=asked.table,
        images_root=asked.respondent.images_root,
        hashes_I=built.hashes_I,
        classes=witness.classes,
        hidden=hidden,
        notes=asked.notes,
    )


def _hidden_labels(experiment: Experiment, step: int) -> AnnotationTable | None:
    """All labels of the dataset that a step was cut from; None where nobody has them or they have changed."""
    manifest = experiment.read()
    dataset = manifest.dataset
    if dataset is None or not manifest.step(step).planned:
        return None
    try:
        return read_coco(experiment.verified(dataset.train.annotations, "the split was made", "restore it"))
    except CheckpointError:
        return None
