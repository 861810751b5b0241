"""What a run leaves for TensorBoard: losses, learning rate and teacher boxes over the iterations, AP per evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ciod_core.errors import ConfigError
from ciod_core.training.progress import EpochEvaluation, TrainingListener, TrainingRecord

if TYPE_CHECKING:
    from PIL.Image import Image

    from ciod_core.evaluation.report import EvaluationReport

TENSORBOARD_FOLDER = "tensorboard"
_GROUPS = ("all", "old", "new")


class TensorBoardLog(TrainingListener):
    """A listener that writes event files; a resumed run hides what came after where it continues."""

    def __init__(self, folder: Path, *, after_iteration: int = 0) -> None:
        """Begin a log; without an iteration the event files of an earlier run are removed.

        Raises:
            ConfigError: tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "`training.log` tensorboard: it is not installed; run: pip install 'ciod[tensorboard]'"
            ) from error
        if not after_iteration:
            for earlier in folder.glob("events.out.tfevents.*"):
                earlier.unlink()
        self._iteration = after_iteration
        self._writer = SummaryWriter(str(folder), purge_step=after_iteration + 1 if after_iteration else None)

    def record(self, record: TrainingRecord) -> None:
        """Add one interval."""
        self._iteration = record.iteration
        values = {f"loss/{name}": value for name, value in record.losses.items()}
        values |= {"training/lr": record.lr, "training/images_per_second": record.images_per_second}
        if record.kept_per_image is not None:
            values["training/teacher_boxes_per_image"] = record.kept_per_image
        self._add(values, record.iteration)

    def measured(self, evaluation: EpochEvaluation) -> None:
        """Add an evaluation during training."""
        values = zip(_GROUPS, (evaluation.ap, evaluation.old, evaluation.new), strict=True)
        self._add({f"AP/{name}": value for name, value in values}, evaluation.iteration)
        self._writer.flush()

    def pictures(self, iteration: int, pictures: Mapping[str, Image]) -> None:
        """Add validation images with detections."""
        for name, picture in pictures.items():
            self._writer.add_image(f"detections/{name}", np.asarray(picture), iteration, dataformats="HWC")
        self._writer.flush()

    def end(self, seconds: float) -> None:
        """Write what is left; an evaluation may follow."""
        self._writer.close()

    def evaluated(self, run: str, report: EvaluationReport) -> None:
        """Add the evaluation of the result."""
        groups = {name: report.groups[name].metrics.ap for name in _GROUPS if name in report.groups}
        classes = {f"AP of classes/{entry.name}": entry.metrics.ap for entry in report.per_class}
        self._add({f"AP of the result/{name}": ap for name, ap in groups.items()} | classes, self._iteration)
        # A closed writer opens again with the first value.
        self._writer.close()

    def _add(self, values: Mapping[str, float | None], iteration: int) -> None:
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, iteration)
