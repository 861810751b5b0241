"""Adding a step to a chain, with whatever classes its data has: no plan is needed, and none has to exist.

The step becomes one like any other: plain COCO files in `splits`, recorded by hash. The chain may be an experiment with
a plan that is finished, one that was begun this way, or a folder without any, around trained weights or from nothing.
What was added goes again when the command fails before a run of the step has begun.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ciod_core.classes import ClassEntry
from ciod_core.data.annotations.fitting import fit_step, objects_per_class
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.annotations.split import StepStatistics
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource
from ciod_core.data.hold_out import Earlier, HoldOut, ReadDataset, read_halves
from ciod_core.data.images.files import check_images_exist
from ciod_core.errors import CheckpointError, CiodError, ConfigError
from ciod_core.experiment.create import split_record, write_table
from ciod_core.experiment.entries import FileRecord, SplitFilesRecord, StepDataRecord, StepRecord
from ciod_core.experiment.folder import LOCK_NAME, MANIFEST_NAME, SPLITS_NAME, Experiment
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.experiment.new_chain import find_or_begin
from ciod_core.experiment.teacher import taught_by
from ciod_core.experiment.transaction import Transaction, remove_empty, transaction

HALVES = ("train", "val")


class AddedStep:
    """A step that was added, or was there already.

    As a context manager it takes the step back when its block fails before a run of the step has begun: the experiment
    is then as it was, and a new one is gone.

    Attributes:
        experiment: the experiment.
        number: the step's.
    """

    def __init__(self, experiment: Experiment, number: int, undo: Callable[[], None] | None) -> None:
        self.experiment = experiment
        self.number = number
        self._undo = undo

    def __enter__(self) -> AddedStep:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None and self._undo is not None and not _has_begun(self.experiment, self.number):
            self._undo()
        if self.experiment.manifest_path.is_file():
            _tidy(self.experiment, self.number)


def add_step(
    source: DatasetSource,
    *,
    experiment: Path | None = None,
    teacher: Path | str | None = None,
    finished: int = 0,
    overwrites: Callable[[int], str] | None = None,
    hold_out: HoldOut | None = None,
    on_image: Callable[[int], None] = lambda count: None,
) -> AddedStep:
    """Add a step after those that the teacher has finished.

    A chain is found as `Experiment.find` does, or else begun. Where the chain has that step from the same data already,
    it stays: so another method learns from it, or an interrupted run is resumed. A last step that no run has trained
    on, or only the one that is to be overwritten, gives way to the new one.

    Args:
        source: the data; its validation split may be missing.
        experiment: the chain's folder; it may be new.
        teacher: run or weights to continue; None for step 1 and joint training.
        finished: without a teacher: the number of steps that come before.
        overwrites: names the run that will be trained anew, by its step; None: no run will.
        hold_out: how many training images become the validation split of data that has none. Images of earlier steps,
            and those that look like them, stay in the half that they were in.
        on_image: called with the number of further images that were looked at, to hold some out.

    Returns:
        the experiment with the step in its manifest; train it in a `with` block to have it taken back on failure.

    Raises:
        ConfigError: the teacher or `hold_out` does not fit, or the chain has other plans for the step.
        CheckpointError: weights or a manifest that are damaged.
        DataError: data that cannot be used.
        OSError: the folder cannot be written.
    """
    chain, before = find_or_begin(experiment, teacher)
    is_new = not chain.manifest_path.is_file()
    if teacher is not None:
        # A new chain begins with the teacher's steps and has no others.
        finished = len(before.steps) if is_new else taught_by(chain, teacher).step
    _check_room(chain, before, finished)
    there = before.steps[finished] if finished < len(before.steps) else None
    with transaction(chain) as staged:
        base = before.first_steps(finished)
        data = read_halves(
            source, hold_out, lambda: Earlier(*(_earlier(chain, base, half) for half in HALVES)), on_image
        )
        record, classes = _prepare(chain, base, data, staged)
        if there is not None:
            if _content(record) == _content(there):
                return AddedStep(chain, record.step, undo=None)
            _check_replaceable(chain, before, there, overwrites and overwrites(there.step))

        def change(now: ExperimentManifest | None) -> ExperimentManifest:
            if now is None:
                now = before
            elif is_new or now.steps != before.steps:
                raise CiodError(f"{chain.folder}: another command changed the steps meanwhile; run this one again")
            return now.first_steps(finished).with_step(record, classes)

        staged.commit(change)

    def undo() -> None:
        if is_new:
            for name in (MANIFEST_NAME, LOCK_NAME):
                (chain.folder / name).unlink(missing_ok=True)
            shutil.rmtree(chain.folder / SPLITS_NAME, ignore_errors=True)
            remove_empty(staged.made)
        else:
            chain.update(lambda now: now.model_copy(update={"steps": before.steps, "classes": before.classes}))

    return AddedStep(chain, record.step, undo)


def _content(step: StepRecord) -> tuple[object, ...]:
    """Equal for steps that were made from the same images and labels."""
    splits = (step.data.train, step.data.val) if step.data else ()
    files = tuple(file.sha256 if file else None for file in (step.train, step.val))
    return (*files, *(split.images if split else None for split in splits))


def _check_room(chain: Experiment, manifest: ExperimentManifest, finished: int) -> None:
    """Only a chain's end can be extended, and only once its plan is finished."""
    if finished == len(manifest.steps):
        return
    following = manifest.steps[finished]
    problem = ""
    if following.planned and finished == 0:
        problem = f"has a plan; pass a `teacher` that has finished all {len(manifest.steps)} steps"
    elif following.planned:
        problem = f"has a plan whose step {following.step} comes next; train it first, without `data`"
    elif following.data is None:
        problem = f"began with weights that have finished step {following.step}; pass them as `teacher`"
    if problem:
        raise ConfigError(
            f"`data`: {chain.folder} {problem}, or begin a chain of its own with a new folder as `experiment`"
        )


def _check_replaceable(
    chain: Experiment, manifest: ExperimentManifest, there: StepRecord, overwritten_run: str | None
) -> None:
    trained = [run.name for run in manifest.runs if run.step >= there.step and run.kind != "imported"]
    if there.step < len(manifest.steps) or any(name != overwritten_run for name in trained):
        named = ", ".join(trained) or "none yet"
        ends = ", ".join(run.name for run in manifest.leaf_runs()) or "none yet"
        raise ConfigError(
            f"`data`: {chain.folder} has a step {there.step} from other data already (runs: {named}); pass a `teacher` "
            f"that has finished all {len(manifest.steps)} steps to add one (ends of the chain: {ends}), or begin a "
            "chain of its own with a new folder as `experiment`"
        )


def _prepare(
    chain: Experiment, base: ExperimentManifest, data: ReadDataset, staged: Transaction
) -> tuple[StepRecord, tuple[ClassEntry, ...]]:
    """Check the data, and stage the files of the step that follows `base`."""
    for as_read, split in zip(data.tables, data.source.splits, strict=True):
        check_images_exist(as_read, split.image_dir)
    number = len(base.steps) + 1
    fitted = fit_step(
        data.train,
        data.val,
        base.classes,
        earlier_train=[part.table for part in _earlier(chain, base, "train")],
        earlier_val=[part.table for part in _earlier(chain, base, "val")] if data.val is not None else (),
    )
    records, origins = {}, {}
    for name in HALVES[: len(data.tables)]:
        table: AnnotationTable = getattr(fitted, name)
        records[name] = write_table(table, staged, _free_name(chain.folder / SPLITS_NAME, number, name))
        origins[name] = split_record(data, name, chain.folder, None if data.as_on_disk else records[name])
    record = StepRecord(
        step=number,
        classes=tuple(category.name for category in fitted.new_classes),
        train=records["train"],
        val=records.get("val"),
        statistics=StepStatistics(images=fitted.train.num_images, boxes_per_class=objects_per_class(fitted.train)),
        data=StepDataRecord(
            name=data.source.name,
            format=data.source.format,
            train=origins["train"],
            val=origins.get("val"),
            val_classes=tuple(category.name for category in fitted.val.categories) if fitted.val else (),
            left_out=fitted.left_out,
        ),
    )
    classes = tuple(
        ClassEntry(name=category.name, category_id=category.id, step=number) for category in fitted.new_classes
    )
    return record, classes


def _earlier(chain: Experiment, base: ExperimentManifest, half: str) -> list[LocatedTable]:
    """The images of the steps, and the dataset that has images which no step uses."""
    parts = []
    if base.dataset is not None:
        with suppress(CheckpointError):  # It may have gone since it was split; then nothing reads it any more.
            whole: SplitFilesRecord = getattr(base.dataset, half)
            folder = chain.folder / whole.images
            parts.append(LocatedTable(read_coco(chain.verified_split(whole.annotations), folder), folder))
    for step in base.steps:
        file: FileRecord | None = getattr(step, half)
        if file is not None:
            images = base.train_images(step.step) if half == "train" else base.val_images(step.step)
            parts.append(LocatedTable(read_coco(chain.verified_split(file)), chain.folder / images))
    return parts


def _free_name(splits: Path, number: int, split: str) -> str:
    """The name of a step's new file; one that may still be needed is not overwritten."""
    name, copy = f"step{number}.{split}.json", 2
    while (splits / name).exists():
        name, copy = f"step{number}-{copy}.{split}.json", copy + 1
    return name


def _has_begun(chain: Experiment, number: int) -> bool:
    """Whether a run trains on the step as it is now."""
    manifest = chain.read()
    train = manifest.steps[number - 1].train
    return any(run.step >= number and train in run.inputs.values() for run in manifest.runs)


def _tidy(chain: Experiment, number: int) -> None:
    """Remove files of this step that it does not name, or no longer."""
    manifest = chain.read()
    named = set()
    if number <= len(manifest.steps):
        step = manifest.steps[number - 1]
        named = {record.locate(chain.folder).name for record in (step.train, step.val) if record}
    of_this_step = re.compile(rf"step{number}(-[0-9]+)?\.(train|val)\.json")
    for path in list((chain.folder / SPLITS_NAME).iterdir()):
        if of_this_step.fullmatch(path.name) and path.name not in named:
            path.unlink()
