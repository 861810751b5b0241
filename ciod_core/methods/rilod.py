"""RILOD (arXiv 1904.00781): class logits, box deltas and the neck's features of the teacher are all matched.

Legend: K kept boxes.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from ciod_core.config.schema import NonNegative, Section
from ciod_core.distiller.features import features_of, neck_loss
from ciod_core.distiller.responses import boxes_at, squared_class_error
from ciod_core.methods.matching import MatchingMethod, OldObjects
from ciod_core.model.base import Losses, Predictions
from ciod_core.model.common.losses import normalizer
from ciod_core.model.knowledge import Knowledge
from ciod_core.resampler.select import apply_rule

# Deltas of center and size are divided by these, as in the detectors that RILOD was published for.
DELTA_STD = (0.1, 0.1, 0.2, 0.2)


class RilodConfig(Section):
    """RILOD: class outputs and boxes where the resampler selects, and the neck's features."""

    class_weight: NonNegative = Field(1.0, description="of the loss of class outputs")
    box_weight: NonNegative = Field(1.0, description="of the loss of boxes")
    feature_weight: NonNegative = Field(1.0, description="of the loss of features")


class Rilod(MatchingMethod):
    """Class outputs are matched at all selected anchor points, boxes after NMS, the neck's features everywhere."""

    Config = RilodConfig
    section = "rilod"
    needs = frozenset({"selected", "dense", "features"})
    config: RilodConfig

    def match(self, student: Predictions, teacher: Predictions, old: OldObjects) -> Losses:
        """Squared errors of class outputs, and smooth L1 of box deltas and features."""
        kept_BA = apply_rule(teacher, self.resampler) & old.trusted_BA
        neck = neck_loss(features_of(student), features_of(teacher))
        return {
            "old class": self.config.class_weight * squared_class_error(student, teacher, kept_BA),
            "old box": self.config.box_weight * _box_loss(student, old.knowledge),
            "old feature": self.config.feature_weight * neck,
        }


def _box_loss(student: Predictions, kept: Knowledge) -> Tensor:
    """Smooth L1 between the box deltas of student and teacher, summed over deltas, the mean over kept boxes."""
    std_4 = kept.boxes_K4.new_tensor(DELTA_STD)
    ours_K4 = student.box_deltas(boxes_at(student, kept), kept.anchor_K) / std_4
    theirs_K4 = student.box_deltas(kept.boxes_K4, kept.anchor_K) / std_4
    return smooth_l1_loss(ours_K4, theirs_K4, reduction="sum") / normalizer(kept.labels_K >= 0)
