"""Where a chain begins: an experiment that is there already, or a new one, from nothing or around trained weights."""

from __future__ import annotations

from pathlib import Path

from ciod_core.data.annotations.split import StepStatistics
from ciod_core.errors import ConfigError
from ciod_core.experiment.create import empty_manifest
from ciod_core.experiment.entries import FileRecord, RunRecord, StepRecord
from ciod_core.experiment.folder import MANIFEST_NAME, SPLITS_NAME, WEIGHTS_KEY, Experiment, check_run_name
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.experiment.transaction import recover
from ciod_core.files import weights_file
from ciod_core.model.checkpoint import read_info


def find_or_begin(folder: Path | None, teacher: Path | str | None) -> tuple[Experiment, ExperimentManifest]:
    """The experiment that a command means, as `Experiment.find` finds it, or else a new one that is not written yet.

    A new one is begun in `folder`, or in the current folder. Around a teacher, it knows the teacher's steps and
    classes, and the weights are its first run; they stay where they lie.

    Raises:
        ConfigError: the teacher is no file, or the folder holds something else.
        CheckpointError: weights or a manifest that are damaged.
    """
    out = folder or Path()
    try:
        found = Experiment.find(folder, Path(teacher) if teacher is not None else None)
    except ConfigError:
        if folder is not None and folder.name == MANIFEST_NAME:
            raise
        recover(Experiment(out))
    else:
        recover(found)
        return found, found.read()
    weights = None if teacher is None else weights_file(Path(teacher))
    _check_usable(out, weights)
    return Experiment(out), empty_manifest() if weights is None else _manifest_around(weights, out)


def _check_usable(out: Path, teacher: Path | None) -> None:
    if teacher is not None and not teacher.is_file():
        raise ConfigError(
            f"`teacher` {teacher}: no such file, and no experiment here or above that could have a run of that name; "
            "pass the weights of a trained run"
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"`experiment` {out}: a file of that name exists; pass a folder")
    if (out / SPLITS_NAME).exists():
        raise ConfigError(
            f"{out}: it holds a folder '{SPLITS_NAME}' of something else; pass another folder as `experiment`"
        )


def _manifest_around(weights: Path, out: Path) -> ExperimentManifest:
    """What weights say about themselves: their steps, whose data is not here, and the run that made them."""
    info = read_info(weights)
    nothing = StepStatistics(images=0, boxes_per_class={})
    run = RunRecord(
        name=_name_of(weights, info.run),
        kind="imported",
        step=info.step,
        method=info.method,
        status="finished",
        outputs={WEIGHTS_KEY: FileRecord.of(weights, out)},
        config={
            "model": info.model.model_dump(mode="json"),
            "data": info.preprocessing.sizes,
        },
    )
    return empty_manifest().model_copy(
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
