"""Events of a training run, for displays and logs; ciod_core itself never prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from ciod_core.evaluation.report import EvaluationReport


@dataclass(frozen=True)
class TrainingRecord:
    """Means over the iterations since the last record.

    Attributes:
        epoch: from 1.
        iteration, iterations: done and planned over the whole run.
        losses: by name, and their sum as `loss`.
        lr: learning rate of the last iteration.
        images_per_second: throughput, of all processes together.
        eta_seconds: expected time to the end of the run.
        data_wait_share: share of the time, 0..1, spent waiting for data.
        kept_per_image: selected teacher boxes per image; None where the method selects none.
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


@dataclass(frozen=True)
class EpochEvaluation:
    """AP on the validation images after an epoch, as fractions; None where there is none.

    Attributes:
        epoch: from 1.
        iteration: the last one of the epoch.
        ap: of all classes.
        old: of classes of earlier steps; None at step 1.
        new: of the classes of the step.
        best: whether it is the best AP of all classes so far.
    """

    epoch: int
    iteration: int
    ap: float | None
    old: float | None
    new: float | None
    best: bool


class TrainingListener:
    """Follows a run; a subclass overrides the events that it uses. Every call comes from the training process."""

    def begin(self, run: str, epochs: int, iterations: int, notes: Sequence[str]) -> None:
        """A run starts or resumes; `notes` are lines to show."""

    def record(self, record: TrainingRecord) -> None:
        """An interval is over."""

    def measured(self, evaluation: EpochEvaluation) -> None:
        """An evaluation during training is over."""

    def pictures(self, iteration: int, pictures: Mapping[str, Image]) -> None:
        """After an evaluation, if `training.log_images` asks for them: validation images with detections, by name."""

    def ended_early(self, text: str) -> None:
        """Training ends before the planned epochs, as a setting demands; one line that says why. `end` follows."""

    def warn(self, text: str) -> None:
        """Something happened between `begin` and `end` that should be shown; one line."""

    def end(self, seconds: float) -> None:
        """The last epoch is over."""

    def evaluating(self, run: str) -> None:
        """The evaluation of the trained weights begins."""

    def evaluated(self, run: str, report: EvaluationReport) -> None:
        """The evaluation is over; `report.groups["all"]` has the AP of all classes."""
