"""Making an experiment: read the annotations, cut them into steps, write everything or nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ciod_core import __version__
from ciod_core.classes import ClassTable, class_table
from ciod_core.data.annotations.protocols import SEEDED, parse_protocol
from ciod_core.data.annotations.split import StepData, StepPartition, split_steps
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.base import load_format
from ciod_core.data.formats.coco import write_coco
from ciod_core.data.formats.source import DatasetSource, SplitFiles, read_dataset
from ciod_core.data.hold_out import HoldOut, ReadDataset, read_halves
from ciod_core.data.images.files import check_images_exist
from ciod_core.errors import ConfigError, DataError
from ciod_core.experiment.entries import DatasetRecord, FileRecord, PlanRecord, SplitFilesRecord, StepRecord
from ciod_core.experiment.folder import MANIFEST_NAME, SPLITS_NAME, Experiment
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.experiment.plan.plan import plan_classes
from ciod_core.experiment.transaction import Transaction, recover, transaction
from ciod_core.files import relative_if_inside


def create_experiment(
    source: DatasetSource,
    plan: str,
    order: str | None,
    out: Path,
    overwrite: bool = False,
    *,
    leave_out: str | None = None,
    protocol: str = "overlap",
    seed: int = 0,
    hold_out: HoldOut | None = None,
    on_image: Callable[[int], None] = lambda count: None,
) -> Experiment:
    """Cut a dataset into steps and write the experiment's folder.

    `out` may exist and hold other files (a generated dataset, for example). An existing experiment is only replaced
    with `overwrite`, only while it has no runs, and only once the new one is complete. On failure nothing of the new
    experiment stays behind.

    Args:
        source: the dataset.
        plan: classes per step, such as `70+10`, or a `.yaml` file that lists them.
        order: class order; None is `name`, and the only choice for a plan file.
        out: the experiment's folder.
        overwrite: replace an experiment that has no runs.
        leave_out: classes that no step learns: names separated by commas, or `rest`.
        protocol: which images a step trains on: `overlap`, `disjoint` or `loco`.
        seed: of the protocols that shuffle; `overlap` does not.
        hold_out: how many training images become the validation split of a dataset that has none.
        on_image: called with the number of further images that were looked at, to hold some out.

    Raises:
        ConfigError: plan, order, protocol or `hold_out` that does not fit, or an experiment that may not be replaced.
        DataError: annotations that cannot be used, or no validation split.
        OSError: `out` cannot be written.
    """
    check_replaceable(out, overwrite)
    if source.val is None and hold_out is None:
        read_dataset(source)  # what is wrong with it comes first: a half more would not mend that
        raise DataError(
            f"{source.train.annotations}: there is no validation half to evaluate the steps on; hold out some of the "
            f"training images with `hold_out`, or {load_format(source.format).ADD_VAL}"
        )
    data = read_halves(source, hold_out, on_image=on_image)
    train, val = data.train, data.val
    assert val is not None
    planned = plan_classes(plan, train.categories, order, leave_out)
    rule = parse_protocol(protocol)
    split = split_steps(train, val, planned.groups, rule, seed)
    experiment = Experiment(out)
    with transaction(experiment) as staged:
        manifest = empty_manifest().model_copy(
            update={
                "dataset": _dataset_record(data, staged, out),
                "plan": PlanRecord(
                    text=planned.text,
                    order=planned.order,
                    file=planned.file,
                    left_out=tuple(category.name for category in planned.left_out),
                    protocol=rule,
                    seed=seed if rule in SEEDED else None,
                    unused_images=split.unused_images,
                ),
                "classes": class_table(
                    [[(category.name, category.id) for category in group] for group in planned.groups]
                ),
                "steps": _write_steps(staged, split, data),
            }
        )
        old = out / SPLITS_NAME
        staged.commit(lambda _: manifest, replaces=[old] if old.exists() else [])
    return experiment


def empty_manifest() -> ExperimentManifest:
    """The manifest of an experiment that begins now, without classes and steps."""
    return ExperimentManifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        ciod_version=__version__,
        classes=ClassTable(entries=()),
        steps=(),
    )


def check_replaceable(out: Path, overwrite: bool) -> None:
    """Refuse to write an experiment over something that is worth keeping; what a killed command left is not.

    Raises:
        ConfigError: a file, a foreign `splits` folder, an experiment without `overwrite`, or one that has runs.
    """
    recover(Experiment(out))
    if out.exists() and not out.is_dir():
        raise ConfigError(f"`out` {out}: a file of that name exists; pass a folder")
    if not (out / MANIFEST_NAME).exists():
        if (out / SPLITS_NAME).exists():
            raise ConfigError(f"`out` {out}: it holds a folder '{SPLITS_NAME}' of something else; pass another folder")
        return
    if not overwrite:
        raise ConfigError(f"`out` {out}: an experiment exists there; pass `overwrite` or another folder")
    runs = Experiment.open(out).read().runs
    if runs:
        raise ConfigError(
            f"`out` {out}: its experiment has runs ({', '.join(run.name for run in runs)}) that a new split would "
            "orphan; pass another folder"
        )


def _write_steps(staged: Transaction, split: StepPartition, data: ReadDataset) -> tuple[StepRecord, ...]:
    """Write the files of all steps, and make sure meanwhile that the images are there."""
    with ThreadPoolExecutor(2) as pool:
        # Folders are listed and one step's text is put together while another's waits for the disk.
        checks = pool.map(check_images_exist, data.tables, (split.image_dir for split in data.source.splits))
        steps = tuple(pool.map(partial(_write_step, staged), split.steps))
        list(checks)
    return steps


def _write_step(staged: Transaction, split: StepData) -> StepRecord:
    return StepRecord(
        step=split.step,
        classes=tuple(category.name for category in split.train.categories),
        train=write_table(split.train, staged, f"step{split.step}.train.json"),
        val=write_table(split.val, staged, f"step{split.step}.val.json"),
        statistics=split.statistics,
    )


def _dataset_record(data: ReadDataset, staged: Transaction, out: Path) -> DatasetRecord:
    records = {}
    for name, table in zip(("train", "val"), data.tables, strict=True):
        converted = None if data.as_on_disk else write_table(table, staged, f"dataset.{name}.json")
        records[name] = split_record(data, name, out, converted)
    return DatasetRecord(name=data.source.name, format=data.source.format, **records)


def split_record(data: ReadDataset, name: str, out: Path, converted: FileRecord | None) -> SplitFilesRecord:
    """Where a split came from, seen from the experiment in `out`.

    Args:
        data: the dataset.
        name: of the split, `train` or `val`.
        out: the experiment's folder.
        converted: the COCO file that is read from now on; None: the dataset's own.
    """
    split: SplitFiles = getattr(data.source, name)
    table: AnnotationTable = getattr(data, name)
    own = relative_if_inside(split.annotations, out)
    return SplitFilesRecord(
        annotations=converted or FileRecord(path=own, sha256=table.sha256, bytes=split.annotations.stat().st_size),
        images=relative_if_inside(split.image_dir, out),
        converted_from=own if converted else None,
        converted_sha256=table.sha256 if converted else None,
        clipped_boxes=table.clipped_boxes,
        dropped_boxes=table.dropped_boxes,
        held_out=data.held_out if name == "val" else None,
    )


def write_table(table: AnnotationTable, staged: Transaction, name: str) -> FileRecord:
    """Stage a COCO file of the experiment's folder of splits."""
    place = f"{SPLITS_NAME}/{name}"
    path = staged.stage(place)
    sha256 = write_coco(table, path)
    return FileRecord(path=place, sha256=sha256, bytes=path.stat().st_size)
