"""From what the user typed, a run's name or a file, to weights that can be trusted."""

from __future__ import annotations

from pathlib import Path

from ciod_core.experiment.folder import MANIFEST_NAME, Experiment, Teacher
from ciod_core.files import sha256_of_file


def locate_weights(weights: str, experiment: Path | None) -> tuple[Experiment | None, Teacher]:
    """Find weights, and the experiment they belong to if there is one.

    A file stands for itself: without `--experiment` only its own folder may say more about it.

    Raises:
        ConfigError: neither a file nor a run, or a name without an experiment.
        CheckpointError: the file is not the one its run wrote.
    """
    path = Path(weights)
    if path.is_file() and experiment is None:
        if not (path.parent / MANIFEST_NAME).is_file():
            return None, Teacher(path, sha256_of_file(path), None)
        experiment = path.parent
    found = Experiment.find(experiment)
    return found, found.resolve_teacher(weights)
