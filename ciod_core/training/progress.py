"""What the trainer tells whoever listens; ciod_core itself never prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class TrainingRecord:
    """Means over the iterations since the last record.

    Attributes:
        epoch: from 1.
        iteration, iterations: done and planned over the whole run.
        losses: by name, and their sum as `loss`.
        lr: learning rate of the last iteration.
        images_per_second: throughput of this process.
        eta_seconds: expected time to the end of the run.
        data_wait_share: share of the time, 0..1, spent waiting for data.
        kept_per_image: kept teacher answers per image, None without a teacher.
    """

    epoch: int
    iteration: int
    iterations: int
    losses: dict[str, float]
    lr: float
    images_per_second: float
    eta_seconds: float
    data_wait_share: float
    kept_per_image: float | None


class TrainingListener(Protocol):
    """Follows a run; every call comes from the training process."""

    def warn(self, text: str) -> None:
        """Something happened between `begin` and `end` that people should know; one line."""

    def begin(self, run: str, epochs: int, iterations: int, notes: Sequence[str]) -> None:
        """A run starts (or resumes)."""

    def record(self, record: TrainingRecord) -> None:
        """An interval is over."""

    def end(self, seconds: float) -> None:
        """The last epoch is over."""

    def evaluating(self, run: str) -> None:
        """The trained weights are being evaluated."""


class SilentListener:
    """Listens and says nothing."""

    def warn(self, text: str) -> None:
        pass

    def begin(self, run: str, epochs: int, iterations: int, notes: Sequence[str]) -> None:
        pass

    def record(self, record: TrainingRecord) -> None:
        pass

    def end(self, seconds: float) -> None:
        pass

    def evaluating(self, run: str) -> None:
        pass


@dataclass(frozen=True)
class Listeners:
    """Passes everything on to several listeners."""

    members: tuple[TrainingListener, ...]

    def warn(self, text: str) -> None:
        for member in self.members:
            member.warn(text)

    def begin(self, run: str, epochs: int, iterations: int, notes: Sequence[str]) -> None:
        for member in self.members:
            member.begin(run, epochs, iterations, notes)

    def record(self, record: TrainingRecord) -> None:
        for member in self.members:
            member.record(record)

    def end(self, seconds: float) -> None:
        for member in self.members:
            member.end(seconds)

    def evaluating(self, run: str) -> None:
        for member in self.members:
            member.evaluating(run)
