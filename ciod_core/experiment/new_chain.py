"""Where a chain begins: an experiment that is there already, or a new one, from nothing or around trained weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ciod_core import __version__
from ciod_core.classes import ClassTable
from ciod_core.errors import ConfigError
from ciod_core.experiment.create import make_folders, remove_empty
from ciod_core.experiment.folder import (
    LOCK_NAME,
    MANIFEST_NAME,
    SPLITS_NAME,
    WEIGHTS_KEY,
    Experiment,
    check_run_name,
)
from ciod_core.experiment.manifest import (
    ExperimentManifest,
    FileRecord,
    RunRecord,
    StatisticsRecord,
    StepRecord,
    manifest_text,
)
from ciod_core.files import atomic_write_text
from ciod_core.model.checkpoint import read_info


@contextmanager
def found_or_begun(folder: Path | None, teacher: Path | str | None) -> Iterator[Experiment]:
    """The experiment that a command means, as `Experiment.find` finds it, or else a new one.

    A new one is begun in `folder`, or in the current folder. Around a teacher, it knows the teacher's steps and
    classes, and the weights are its first run; they stay where they lie. It goes again when the block fails before a
    run has begun.

    Raises:
        ConfigError: the teacher is no file, or the folder holds something else.
        CheckpointError: weights or a manifest that are damaged.
        OSError: the folder cannot be written.
    """
    found = _find(folder, teacher)
    if found is not None:
        yield found
        return
    out = folder or Path()
    _check_usable(out, teacher)
    first = _empty_manifest() if teacher is None else _manifest_around(Path(teacher), out)
    made = make_folders(out)
    experiment = Experiment(out)
    try:
        atomic_write_text(experiment.manifest_path, manifest_text(first))
        yield experiment
    except BaseException:
        if experiment.manifest_path.is_file() and experiment.manifest.runs == first.runs:
            for name in (MANIFEST_NAME, LOCK_NAME):
                (out / name).unlink(missing_ok=True)
            shutil.rmtree(out / SPLITS_NAME, ignore_errors=True)
        remove_empty(made)
        raise


def _find(folder: Path | None, teacher: Path | str | None) -> Experiment | None:
    if folder is not None:
        if folder.name != MANIFEST_NAME and not (folder / MANIFEST_NAME).is_file():
            return None
        return Experiment.open(folder)
    try:
        return Experiment.find(None, Path(teacher) if teacher is not None else None)
    except ConfigError:
        return None


def _check_usable(out: Path, teacher: Path | str | None) -> None:
    if teacher is not None and not Path(teacher).is_file():
        raise ConfigError(
            f"--teacher {teacher}: no such file, and no experiment here or above that could have a run of that name; "
            "pass the weights that 'ciod train-step' wrote"
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--experiment {out}: a file of that name exists; pass a folder")
    if (out / SPLITS_NAME).exists():
        raise ConfigError(
            f"{out}: it holds a folder '{SPLITS_NAME}' of something else; pass another folder with --experiment"
        )


def _empty_manifest() -> ExperimentManifest:
    return ExperimentManifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        ciod_version=__version__,
        classes=ClassTable(entries=()),
        steps=(),
    )


def _manifest_around(weights: Path, out: Path) -> ExperimentManifest:
    """What weights say about themselves: their steps, whose data is not here, and the run that made them."""
    info = read_info(weights)
    nothing = StatisticsRecord(images=0, boxes_per_class={})
    run = RunRecord(
        name=_name_of(weights, info.run),
        kind="imported",
        step=info.step,
        method=info.method,
        status="finished",
        outputs={WEIGHTS_KEY: FileRecord.of(weights, out)},
        config={
            "model": info.model.model_dump(mode="json"),
            "data": {"image_size": info.preprocessing.image_size},
        },
    )
    return _empty_manifest().model_copy(
        update={
            "classes": info.classes,
            "steps": tuple(
                StepRecord(step=step, classes=info.classes.of_step(step).names, statistics=nothing)
                for step in range(1, info.step + 1)
            ),
            "runs": (run,),
        }
    )


def _name_of(weights: Path, trained_as: str) -> str:
    """What the user calls the weights, where a run may be called so."""
    try:
        return check_run_name(weights.stem)
    except ConfigError:
        return trained_as
