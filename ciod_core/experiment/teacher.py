"""Which of an experiment's steps a teacher has finished."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ciod_core.classes import ClassTable
from ciod_core.errors import ConfigError
from ciod_core.experiment.folder import Experiment, Teacher
from ciod_core.model.checkpoint import read_info


class Taught(NamedTuple):
    """A teacher that belongs to an experiment, the step that it has finished, and the classes that it knows."""

    teacher: Teacher
    step: int
    classes: ClassTable


def taught_by(experiment: Experiment, teacher: Path | str) -> Taught:
    """Find and verify a teacher that knows exactly the classes of this experiment's first steps.

    Raises:
        ConfigError: there is no such teacher, or it knows only a part of a step.
        CheckpointError: it was changed, or its classes are not those of this experiment.
    """
    manifest = experiment.read()
    verified = experiment.resolve_teacher(teacher)
    info = read_info(verified.path)
    info.classes.require_prefix_of(manifest.classes, where=str(verified.path))
    if info.step > len(manifest.steps) or len(info.classes) != len(manifest.classes.up_to(info.step)):
        raise ConfigError(
            f"`teacher` {teacher}: it knows {len(info.classes)} of the plan's {len(manifest.classes)} classes; "
            f"a teacher must have finished one of the steps 1 to {len(manifest.steps) - 1}"
        )
    return Taught(verified, info.step, info.classes)
