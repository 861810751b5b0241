"""Adding a step to a chain, with whatever classes its data has: no plan is needed, and none has to exist.

The step becomes one like any other: plain COCO files in `splits`, recorded by hash. The chain may be an experiment with
a plan that is finished, one that was begun this way, or a folder without any, around trained weights or from nothing.
What was added goes again when the command fails before a run of the step has begun.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ciod_core.classes import ClassEntry
from ciod_core.data.annotations.fitting import FittedStep, fit_step, objects_per_class
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.reading import read_dataset
from ciod_core.data.formats.source import DatasetSource
from ciod_core.data.images.files import check_images_exist
from ciod_core.errors import CheckpointError, CiodError, ConfigError
from ciod_core.experiment.create import half_record, write_table
from ciod_core.experiment.folder import SPLITS_NAME, Experiment
from ciod_core.experiment.manifest import (
    ExperimentManifest,
    FileRecord,
    SplitFilesRecord,
    StatisticsRecord,
    StepDataRecord,
    StepRecord,
)
from ciod_core.experiment.new_chain import found_or_begun
from ciod_core.experiment.teacher import taught_by


class AddedStep(NamedTuple):
    """An experiment and the number of the step that was added, or was there already."""

    experiment: Experiment
    number: int


@contextmanager
def added_step(
    source: DatasetSource,
    *,
    experiment: Path | None = None,
    teacher: Path | str | None = None,
    overwrites: Callable[[int], str] | None = None,
) -> Iterator[AddedStep]:
    """Add a step after those that the teacher has finished; train it inside the block.

    A chain is found as `Experiment.find` does, or else begun. Where the chain has that step from the same data already,
    it stays: so another method learns from it, or an interrupted run is resumed. A last step that no run has trained
    on, or only the one that is to be overwritten, gives way to the new one.

    Args:
        source: the data; its validation half may be missing.
        experiment: the chain's folder; it may be new.
        teacher: run or weights to continue; None for step 1.
        overwrites: names the run that will be trained anew, by its step; None: no run will.

    Yields:
        the experiment, with the step in its manifest, and the step's number.

    Raises:
        ConfigError: the teacher does not fit, or the chain has other plans for the step.
        CheckpointError: weights or a manifest that are damaged.
        DataError: data that cannot be used.
        OSError: the folder cannot be written.
    """
    with found_or_begun(experiment, teacher) as chain:
        before = chain.manifest
        finished = 0 if teacher is None else taught_by(chain, teacher).step
        _check_room(chain, before, finished)
        there = before.steps[finished] if finished < len(before.steps) else None
        with tempfile.TemporaryDirectory(prefix=".tmp-step-", dir=chain.folder) as staged:
            new = _prepare(chain, before.first_steps(finished), source, Path(staged))
            is_there = there is not None and new.is_same_as(there)
            if not is_there:
                if there is not None:
                    _check_replaceable(chain, before, there, overwrites and overwrites(there.step))
                _install(chain, before, new)
        try:
            yield AddedStep(chain, new.number)
        except BaseException:
            if not is_there and not _has_begun(chain, new.number):
                chain.update(lambda now: now.model_copy(update={"steps": before.steps, "classes": before.classes}))
            raise
        finally:
            _tidy(chain, new.number)


@dataclass(frozen=True)
class _NewStep:
    """A step whose files are staged: its record, without the places they will lie at, and its classes."""

    record: StepRecord
    classes: tuple[ClassEntry, ...]
    staged: dict[str, Path]

    @property
    def number(self) -> int:
        return self.record.step

    def is_same_as(self, other: StepRecord) -> bool:
        """Whether another step was made from the same images and labels."""
        return self._content(self.record) == self._content(other)

    @staticmethod
    def _content(step: StepRecord) -> tuple[object, ...]:
        halves = (step.data.train, step.data.val) if step.data else ()
        files = tuple(file.sha256 if file else None for file in (step.train, step.val))
        return (*files, *(half.images if half else None for half in halves))


def _check_room(chain: Experiment, manifest: ExperimentManifest, finished: int) -> None:
    """Only a chain's end can be extended, and only once its plan is finished."""
    if finished == len(manifest.steps):
        return
    following = manifest.steps[finished]
    problem = ""
    if following.planned and finished == 0:
        problem = f"has a plan; pass a --teacher that has finished all {len(manifest.steps)} steps"
    elif following.planned:
        problem = f"has a plan whose step {following.step} comes next; train it first, without --data"
    elif following.data is None:
        problem = f"began with weights that have finished step {following.step}; pass them as --teacher"
    if problem:
        raise ConfigError(f"--data: {chain.folder} {problem}, or begin a chain of its own with --experiment NEWFOLDER")


def _check_replaceable(
    chain: Experiment, manifest: ExperimentManifest, there: StepRecord, overwritten_run: str | None
) -> None:
    trained = [run.name for run in manifest.runs if run.step >= there.step and run.kind != "imported"]
    if there.step < len(manifest.steps) or any(name != overwritten_run for name in trained):
        named = ", ".join(trained) or "none yet"
        ends = ", ".join(run.name for run in chain.leaf_runs()) or "none yet"
        raise ConfigError(
            f"--data: {chain.folder} has a step {there.step} from other data already (runs: {named}); pass a --teacher "
            f"that has finished all {len(manifest.steps)} steps to add one (ends of the chain: {ends}), or begin a "
            "chain of its own with --experiment NEWFOLDER"
        )


def _prepare(chain: Experiment, base: ExperimentManifest, source: DatasetSource, staged: Path) -> _NewStep:
    """Read and check the data, and write the step's files into a folder for the time being."""
    train, *vals = read_dataset(source)
    for table, half in zip((train, *vals), source.splits, strict=True):
        check_images_exist(table, half.image_dir)
    number = len(base.steps) + 1
    fitted = fit_step(
        train,
        vals[0] if vals else None,
        base.classes,
        earlier_train=_earlier(chain, base, "train"),
        earlier_val=_earlier(chain, base, "val") if vals else (),
    )
    halves = {"train": (source.train, train, fitted.train)}
    if source.val is not None and fitted.val is not None:
        halves["val"] = (source.val, vals[0], fitted.val)
    files = {name: staged / f"step{number}.{name}.json" for name in halves}
    records, origins = {}, {}
    for name, (half, as_read, table) in halves.items():
        records[name] = write_table(table, files[name])
        converted = None if source.format == "coco" else records[name]
        origins[name] = half_record(half, as_read, chain.folder, converted)
    record = StepRecord(
        step=number,
        classes=tuple(category.name for category in fitted.new_classes),
        train=records["train"],
        val=records.get("val"),
        statistics=StatisticsRecord(images=fitted.train.num_images, boxes_per_class=objects_per_class(fitted.train)),
        data=_data_record(source, fitted, origins),
    )
    classes = tuple(
        ClassEntry(name=category.name, category_id=category.id, step=number) for category in fitted.new_classes
    )
    return _NewStep(record, classes, files)


def _data_record(source: DatasetSource, fitted: FittedStep, origins: dict[str, SplitFilesRecord]) -> StepDataRecord:
    return StepDataRecord(
        name=source.name,
        format=source.format,
        train=origins["train"],
        val=origins.get("val"),
        val_classes=tuple(category.name for category in fitted.val.categories) if fitted.val else (),
        left_out=fitted.left_out,
    )


def _earlier(chain: Experiment, base: ExperimentManifest, half: str) -> list[AnnotationTable]:
    """The tables whose ids are taken: those of the steps, and the dataset that has images which no step uses."""
    tables = []
    if base.dataset is not None:
        with suppress(CheckpointError):  # It may have gone since it was split; then nothing reads it any more.
            whole: FileRecord = getattr(base.dataset, half).annotations
            tables.append(read_coco(chain.verified_split(whole)))
    for step in base.steps:
        file: FileRecord | None = getattr(step, half)
        if file is not None:
            tables.append(read_coco(chain.verified_split(file)))
    return tables


def _install(chain: Experiment, before: ExperimentManifest, new: _NewStep) -> None:
    """Move the files into the experiment and put the step into its manifest, both or neither."""
    moved: dict[str, Path] = {}

    def change(manifest: ExperimentManifest) -> ExperimentManifest:
        if manifest.steps != before.steps:
            raise CiodError(f"{chain.folder}: another command changed the steps meanwhile; run this one again")
        for half, staged in new.staged.items():
            moved[half] = _free_name(chain.folder / SPLITS_NAME, new.number, half)
            moved[half].parent.mkdir(exist_ok=True)
            staged.rename(moved[half])
        return manifest.first_steps(new.number - 1).with_step(_at(new.record, moved), new.classes)

    try:
        chain.update(change)
    except BaseException:
        for path in moved.values():
            path.unlink(missing_ok=True)
        raise


def _free_name(splits: Path, number: int, half: str) -> Path:
    """A file of a step that may still be needed is not overwritten."""
    path, copy = splits / f"step{number}.{half}.json", 2
    while path.exists():
        path, copy = splits / f"step{number}-{copy}.{half}.json", copy + 1
    return path


def _at(record: StepRecord, places: dict[str, Path]) -> StepRecord:
    """The record with its files where they lie, wherever it names them."""
    changes: dict[str, object] = {}
    assert record.data is not None
    data = record.data
    for half, path in places.items():
        file: FileRecord = getattr(record, half)
        placed = file.model_copy(update={"path": f"{SPLITS_NAME}/{path.name}"})
        origin: SplitFilesRecord = getattr(data, half)
        changes[half] = placed
        if origin.converted_from is not None:
            data = data.model_copy(update={half: origin.model_copy(update={"annotations": placed})})
    return record.model_copy(update={**changes, "data": data})


def _has_begun(chain: Experiment, number: int) -> bool:
    """Whether a run trains on the step as it is now."""
    manifest = chain.manifest
    train = manifest.steps[number - 1].train
    return any(run.step == number and run.inputs.get("train") == train for run in manifest.runs)


def _tidy(chain: Experiment, number: int) -> None:
    """Remove files of this step that it does not name, or no longer."""
    manifest = chain.manifest
    named = set()
    if number <= len(manifest.steps):
        step = manifest.steps[number - 1]
        named = {record.locate(chain.folder).name for record in (step.train, step.val) if record}
    of_this_step = re.compile(rf"step{number}(-[0-9]+)?\.(train|val)\.json")
    for path in list((chain.folder / SPLITS_NAME).iterdir()):
        if of_this_step.fullmatch(path.name) and path.name not in named:
            path.unlink()
