"""ERD: elastic response distillation (arXiv 2204.02136), for detectors of any family.

Elastic: what counts as a response is decided per image, by how far it stands out from that image's anchor points.

Legend: B images, A anchor points, K kept boxes.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from ciod_core.config.schema import NonNegative, ResamplerConfig, Section, UnitInterval
from ciod_core.distiller.responses import class_logits_at, squared_error
from ciod_core.methods.base import Method
from ciod_core.model.base import PRESENCE, Detector, Losses, Predictions, Targets
from ciod_core.model.knowledge import Knowledge
from ciod_core.resampler.rules import elastic_class_response, elastic_location_response
from ciod_core.resampler.select import select


class ErdConfig(Section):
    """ERD: responses that stand out from their image."""

    num_std: float = Field(2.0, description="a response exceeds mean + num_std · std of its image")
    nms_iou: UnitInterval = Field(0.005, description="class-wise NMS threshold of the responses that teach boxes")
    class_weight: NonNegative = Field(1.0, description="of the loss of class outputs")
    box_weight: NonNegative = Field(1.0, description="of the loss of boxes")


class Erd(Method):
    """The student matches the teacher's outstanding responses; ground truth acts on the new classes alone.

    Class anchors (A): class and other logits by squared error. Box anchors (B, thinned to B′): the family's location
    error. Neither A nor B′ is background for the detector's own loss of objectness.

    The paper has no labels of old classes; on replayed images there are some. The rule stays: they train box and
    presence, and that the object is of no new class; its old class is left to the teacher. So a response with the class
    of a label is never dropped: nothing else would teach it.
    """

    Config = ErdConfig
    section = "erd"
    needs = frozenset({"selected", "dense"})

    def __init__(self, config: ErdConfig, resampler: ResamplerConfig) -> None:
        super().__init__(config, resampler)
        self.config = config

    def select(self, teacher: Predictions) -> Knowledge:
        """The class responses A."""
        return select(teacher, elastic_class_response(teacher, num_std=self.config.num_std), nms_iou=None)

    def select_boxes(self, teacher: Predictions) -> Knowledge:
        """The box responses B′."""
        outstanding_BA = elastic_location_response(teacher, num_std=self.config.num_std)
        return select(teacher, outstanding_BA, nms_iou=self.config.nms_iou)

    def reconcile(self, knowledge: Knowledge, objects: Targets) -> Knowledge:
        """Drop responses that overlap ground truth of another class."""
        return knowledge.without_overlap(objects, self.resampler.ground_truth_iou, keep_same_class=True)

    def losses(
        self,
        detector: Detector,
        student: Predictions,
        objects: Targets,
        knowledge: Knowledge,
        ignored_BA: Tensor | None = None,
    ) -> Losses:
        """The labels' losses over new classes, squared errors of A, and the weighted box loss of B′."""
        assert knowledge.dense is not None
        boxes = self.reconcile(self.select_boxes(knowledge.dense), objects)
        if PRESENCE in student.responses():
            # Objectness is of no class in particular, and labels say nothing of old ones.
            response_BA = torch.zeros_like(student.presence(), dtype=torch.bool)
            response_BA[knowledge.image_K, knowledge.anchor_K] = True
            response_BA[boxes.image_K, boxes.anchor_K] = True
            ignored_BA = response_BA if ignored_BA is None else response_BA | ignored_BA
        own = detector.losses(
            student,
            objects,
            detector.assign(student, objects),
            first_class=knowledge.num_classes,
            ignored_BA=ignored_BA,
        )
        return {
            **own,
            **squared_error(student, knowledge, self.config.class_weight),
            "old box": self.config.box_weight * _box_loss(student, knowledge.dense, boxes),
        }


def _box_loss(student: Predictions, teacher: Predictions, kept: Knowledge) -> Tensor:
    """w · location error summed over an image's responses, the mean over images; w: the student's best old class."""
    weight_K = class_logits_at(student, kept).detach().sigmoid().amax(dim=1)
    error_K = student.location_error(teacher, kept.image_K, kept.anchor_K)
    return (weight_K * error_K).sum() / len(student.boxes_BA4)
