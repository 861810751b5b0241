"""RILOD (arXiv 1904.00781): class logits, box deltas and the neck's features of the teacher are all matched.

Legend: K kept boxes.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from ciod_core.config.schema import NonNegative, ResamplerConfig, Section
from ciod_core.distiller.features import features_of, neck_loss
from ciod_core.distiller.responses import boxes_at, kept_count, squared_error
from ciod_core.methods.base import Method, supervised
from ciod_core.model.base import Detector, Losses, Predictions, Targets
from ciod_core.model.knowledge import Knowledge


class RilodConfig(Section):
    """RILOD: logits and boxes where the resampler selects, and the neck's features."""

    class_weight: NonNegative = Field(1.0, description="of the loss of class outputs")
    box_weight: NonNegative = Field(1.0, description="of the loss of boxes")
    feature_weight: NonNegative = Field(1.0, description="of the loss of features")


class Rilod(Method):
    """Old-class logits and box deltas are matched where the resampler selects, the neck's features everywhere."""

    Config = RilodConfig
    section = "rilod"
    needs = frozenset({"selected", "dense", "features"})

    def __init__(self, config: RilodConfig, resampler: ResamplerConfig) -> None:
        super().__init__(config, resampler)
        self.config = config

    def losses(
        self,
        detector: Detector,
        student: Predictions,
        objects: Targets,
        knowledge: Knowledge,
        ignored_BA: Tensor | None = None,
    ) -> Losses:
        """The labels' losses, squared errors of responses, and smooth L1 of box deltas and features."""
        neck = neck_loss(features_of(student), features_of(knowledge.dense))
        return {
            **supervised(detector, student, objects, ignored_BA),
            **squared_error(student, knowledge, self.config.class_weight),
            "old box": self.config.box_weight * _box_loss(student, knowledge),
            "old feature": self.config.feature_weight * neck,
        }


def _box_loss(student: Predictions, knowledge: Knowledge) -> Tensor:
    """Smooth L1 between the box deltas of student and teacher, the mean over kept boxes and deltas."""
    error_K4 = smooth_l1_loss(
        student.box_deltas(boxes_at(student, knowledge), knowledge.anchor_K),
        student.box_deltas(knowledge.boxes_K4, knowledge.anchor_K),
        reduction="none",
    )
    return error_K4.mean(dim=1).sum() / kept_count(knowledge)
