"""Listeners of a training run."""

from __future__ import annotations

import math

from ciod_core.training.progress import TrainingListener, TrainingRecord


class RecordKeeper(TrainingListener):
    """Keeps every record."""

    def __init__(self) -> None:
        self.records: list[TrainingRecord] = []

    def record(self, record: TrainingRecord) -> None:
        self.records.append(record)


class StopInEpoch2(TrainingListener):
    """Ends the run as Ctrl-C would, after its first epoch was saved; every loss must be finite."""

    def record(self, record: TrainingRecord) -> None:
        assert math.isfinite(record.losses["loss"])
        if record.epoch == 2:
            raise KeyboardInterrupt
