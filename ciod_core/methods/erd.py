"""ERD: elastic response distillation (arXiv 2204.02136), for detectors of any family.

Elastic: what counts as a response is decided per image, by how far it stands out from that image's anchor points.

Legend: K box responses.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ciod_core.config.schema import NonNegative, Section, UnitInterval
from ciod_core.distiller.responses import class_logits_at, squared_class_error
from ciod_core.methods.matching import MatchingMethod, OldObjects
from ciod_core.model.base import Losses, Predictions
from ciod_core.model.knowledge import Knowledge
from ciod_core.resampler.rules import elastic_class_response, elastic_location_response
from ciod_core.resampler.select import select
from ciod_core.runtime.distributed import share_of_images


class ErdConfig(Section):
    """ERD: responses that stand out from their image."""

    num_std: float = Field(2.0, description="a response exceeds mean + num_std · std of its image")
    nms_iou: UnitInterval = Field(0.005, description="class-wise NMS threshold of the responses that teach boxes")
    class_weight: NonNegative = Field(1.0, description="of the loss of class outputs")
    box_weight: NonNegative = Field(1.0, description="of the loss of boxes")


class Erd(MatchingMethod):
    """The student matches the teacher's outstanding responses: class outputs at A, boxes at B, thinned by NMS.

    A stands out by score, B by the confidence of its location.
    """

    Config = ErdConfig
    section = "erd"
    config: ErdConfig

    def match(self, student: Predictions, teacher: Predictions, old: OldObjects) -> Losses:
        """Squared errors of class outputs, and the weighted loss of boxes."""
        class_BA = elastic_class_response(teacher, num_std=self.config.num_std) & old.trusted_BA
        box_BA = elastic_location_response(teacher, num_std=self.config.num_std) & old.trusted_BA
        boxes = select(teacher, box_BA, nms_iou=self.config.nms_iou)
        return {
            "old class": self.config.class_weight * squared_class_error(student, teacher, class_BA),
            "old box": self.config.box_weight * _box_loss(student, teacher, boxes),
        }


def _box_loss(student: Predictions, teacher: Predictions, kept: Knowledge) -> Tensor:
    """w · location error summed over an image's responses, the mean over images; w: the student's best old class."""
    weight_K = class_logits_at(student, kept).detach().sigmoid().amax(dim=1)
    error_K = student.location_error(teacher, kept.image_K, kept.anchor_K)
    num_images = len(student.boxes_BA4)
    return (weight_K * error_K).sum() / num_images * share_of_images(num_images, error_K.device)
