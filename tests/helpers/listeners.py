"""Listeners of a training run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ciod_core.training.progress import TrainingListener, TrainingRecord


class RecordKeeper(TrainingListener):
    """Keeps every record, and the notes of the beginning."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.records: list[TrainingRecord] = []

    def begin(self, run: str, epochs: int, iterations: int, notes: Sequence[str]) -> None:
        self.notes += notes

    def record(self, record: TrainingRecord) -> None:
        self.records.append(record)


class StopInEpoch2(TrainingListener):
    """Ends the run as Ctrl-C would, after its first epoch was saved; every loss must be finite."""

    def record(self, record: TrainingRecord) -> None:
        assert math.isfinite(record.losses["loss"])
        if record.epoch == 2:
            raise KeyboardInterrupt
