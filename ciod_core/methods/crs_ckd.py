"""CRS + CKD: center re-sampling selects, collaborative distillation transfers. Legend: P positives, K kept boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ciod_core.config.schema import MethodConfig, NonNegative, ResamplerConfig, Section
from ciod_core.distiller.ckd import collaborative_distillation
from ciod_core.methods.base import Method
from ciod_core.model.base import Assignment, Detector, Losses, Predictions, Targets
from ciod_core.model.common.losses import normalizer
from ciod_core.model.knowledge import Knowledge


class DistillerConfig(Section):
    """How knowledge is transferred (collaborative distillation)."""

    weighting: Literal["paper", "balanced", "none"] = Field(
        "none", description="of class against location: by their errors as published ('paper') or corrected, or equal"
    )
    target: Literal["soft", "hybrid", "margin-weighted", "hard"] = Field(
        "soft", description="class target: the teacher's probabilities, or only its best class, or between them"
    )
    class_weight: NonNegative = Field(1.0, description="of the class part of the loss")
    location_weight: NonNegative = Field(1.0, description="of the location part of the loss")
    background: Literal["teacher", "zero"] = Field(
        "zero", description="target where no object is: 0 (published), or what the teacher sees"
    )


class CrsCkd(Method):
    """Positives of new objects learn from their labels, positives of old objects from the teacher.

    Where nothing is labeled, what the teacher sees may be the target instead of the published 0.
    """

    Config = DistillerConfig
    section = "distiller"
    needs = frozenset({"selected"})
    without_dense: ClassVar[Mapping[str, object]] = {"background": "zero"}
    config: DistillerConfig

    def __init__(
        self, config: DistillerConfig, resampler: ResamplerConfig, options: MethodConfig | None = None
    ) -> None:
        super().__init__(config, resampler, options)
        if config.background == "teacher":
            self.needs = frozenset({"selected", "dense"})

    def losses(
        self,
        detector: Detector,
        student: Predictions,
        objects: Targets,
        knowledge: Knowledge,
        ignored_BA: Tensor | None = None,
    ) -> Losses:
        """The detector's own losses, with class and box at the positives of labels alone; CKD at all others."""
        knowledge = knowledge.in_terms_of(student)
        all_objects = knowledge.before(objects)
        assignment = detector.assign(student, all_objects)
        old_P = assignment.object_P < len(knowledge)
        own = detector.losses(
            student,
            all_objects,
            assignment,
            chosen_P=~old_P,
            ignored_BA=ignored_BA,
            presence_P=self.presence_targets(assignment, knowledge),
            background=knowledge.dense if self.config.background == "teacher" else None,
        )
        return {**own, **self._transfer(detector, student, assignment, old_P, knowledge)}

    def _transfer(
        self, detector: Detector, student: Predictions, assignment: Assignment, old_P: Tensor, knowledge: Knowledge
    ) -> Losses:
        """CKD on the positives of old objects, each from the kept box that it was assigned to."""
        image_P, anchor_P, source_P, _ = assignment.pick(old_P)
        sums = collaborative_distillation(
            student.class_logits_at(image_P, anchor_P),
            student.boxes_BA4[image_P, anchor_P],
            knowledge.class_logits_KC,
            knowledge.boxes_K4,
            source_P,
            class_loss=detector.class_loss,
            location_loss=detector.location_loss,
            weighting=self.config.weighting,
            target=self.config.target,
        )
        count = normalizer(old_P)
        return {
            "old class": self.config.class_weight * sums.class_sum / count,
            "old box": self.config.location_weight * sums.location_sum / count,
        }
