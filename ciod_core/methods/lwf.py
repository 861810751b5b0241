"""LwF: learning without forgetting (arXiv 1606.09282) for a detector; the simplest distillation there is."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from ciod_core.config.schema import NonNegative, ResamplerConfig, Section
from ciod_core.distiller.responses import bernoulli_divergence
from ciod_core.methods.base import Method
from ciod_core.model.base import Detector, Losses, Predictions, Targets
from ciod_core.model.common.losses import normalizer
from ciod_core.model.knowledge import Knowledge
from ciod_core.resampler.select import select


class LwfConfig(Section):
    """LwF: responses of all anchor points."""

    weight: NonNegative = Field(1.0, description="λ: 1 weighs the teacher like the labels")


class Lwf(Method):
    """At all anchor points the student matches the teacher's class and other responses; boxes are left alone."""

    Config = LwfConfig
    section = "lwf"
    needs = frozenset({"dense"})

    def __init__(self, config: LwfConfig, resampler: ResamplerConfig) -> None:
        super().__init__(config, resampler)
        self.config = config

    def select(self, teacher: Predictions) -> Knowledge:
        """No boxes: the dense predictions are enough."""
        nowhere_BA = torch.zeros_like(teacher.presence(), dtype=torch.bool)
        return select(teacher, nowhere_BA, nms_iou=None)

    def losses(
        self,
        detector: Detector,
        student: Predictions,
        objects: Targets,
        knowledge: Knowledge,
        ignored_BA: Tensor | None = None,
    ) -> Losses:
        """The labels' losses, and the KL divergence of every response, summed over anchor points, per positive.

        The objectness loss of the labels, which forgets, is a sum over all anchor points per positive. The same
        normalizer makes λ = 1 mean that teacher and labels weigh the same at every anchor point, whatever the size of
        the image.
        """
        teacher = knowledge.dense
        assert teacher is not None
        assignment = detector.assign(student, objects)
        losses = detector.losses(student, objects, assignment, ignored_BA=ignored_BA)
        count = normalizer(assignment.object_P >= 0)
        student_logits_BAC = student.class_logits_BAC[..., : teacher.class_logits_BAC.shape[2]]
        responses = {"class": (student_logits_BAC, teacher.class_logits_BAC)}
        responses |= {name: (logits, teacher.responses()[name]) for name, logits in student.responses().items()}
        for name, (ours, theirs) in responses.items():
            losses[f"old {name}"] = self.config.weight * bernoulli_divergence(ours, theirs).sum() / count
        return losses
