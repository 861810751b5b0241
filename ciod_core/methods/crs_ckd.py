"""CRS + CKD: center re-sampling selects, collaborative distillation transfers. Legend: P positives, K kept boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ciod_core.config.schema import NonNegative, ResamplerConfig, Section
from ciod_core.distiller.ckd import collaborative_distillation
from ciod_core.methods.base import Method
from ciod_core.model.base import Assignment, Detector, Losses, Predictions, Targets
from ciod_core.model.common.losses import normalizer
from ciod_core.model.knowledge import Knowledge
from ciod_core.runtime.distributed import mean_across_processes


class DistillerConfig(Section):
    """How knowledge is transferred (collaborative distillation)."""

    weighting: Literal["paper", "balanced", "none"] = Field(
        "none", description="of class against location: by their errors as published ('paper') or corrected, or equal"
    )
    target: Literal["soft", "hybrid", "margin-weighted", "hard"] = Field(
        "soft", description="class target: the teacher's probabilities, or only its best class, or between them"
    )
    objectness: Literal["hard", "soft"] = Field(
        "soft", description="objectness target at positives of old objects: 1 (published), or the teacher's objectness"
    )
    class_weight: NonNegative = Field(1.0, description="of the class part of the loss")
    location_weight: NonNegative = Field(1.0, description="of the location part of the loss")
    background: Literal["teacher", "zero"] = Field(
        "zero", description="target where no object is: 0 (published), or what the teacher sees"
    )
    batch_norm: Literal["keep", "update"] = Field(
        "keep", description="statistics of batch normalization: the teacher's, or those of the new images (published)"
    )
    trunk_balance: NonNegative = Field(
        0.5,
        description="old objects per new one below which backbone and neck learn more slowly; 0: never (published)",
    )


class CrsCkd(Method):
    """Positives of new objects learn from their labels, positives of old objects from the teacher.

    Not published: the student keeps the teacher's batch statistics, and learns more slowly where a batch has few old
    objects. Where nothing is labeled, what the teacher sees may be the target instead of 0.
    """

    Config = DistillerConfig
    section = "distiller"
    needs = frozenset({"selected"})
    without_dense: ClassVar[Mapping[str, object]] = {"background": "zero"}
    # Fresh weights hold nothing that should be kept.
    with_fresh_student: ClassVar[Mapping[str, object]] = {"batch_norm": "update", "trunk_balance": 0.0}

    def __init__(self, config: DistillerConfig, resampler: ResamplerConfig) -> None:
        super().__init__(config, resampler)
        self.config = config
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
            presence_P=self._presence_targets(assignment, old_P, knowledge),
            background=knowledge.dense if self.config.background == "teacher" else None,
        )
        return {**own, **self._transfer(student, assignment, old_P, knowledge)}

    def _presence_targets(self, assignment: Assignment, old_P: Tensor, knowledge: Knowledge) -> Tensor:
        """(P,) 1 at positives of labeled objects; at those of old objects 1 or the teacher's presence."""
        target_P = torch.ones_like(assignment.iou_P)
        if self.config.objectness == "soft":
            target_P[old_P] = knowledge.presence_of(assignment.object_P[old_P])
        return target_P

    def _transfer(self, student: Predictions, assignment: Assignment, old_P: Tensor, knowledge: Knowledge) -> Losses:
        """CKD on the positives of old objects, each from the kept box that it was assigned to."""
        image_P, anchor_P, source_P, _ = (field[old_P] for field in assignment)
        sums = collaborative_distillation(
            student.class_logits_at(image_P, anchor_P),
            student.boxes_BA4[image_P, anchor_P],
            knowledge.class_logits_KC,
            knowledge.boxes_K4,
            source_P,
            weighting=self.config.weighting,
            target=self.config.target,
        )
        count = normalizer(old_P)
        return {
            "old class": self.config.class_weight * sums.class_sum / count,
            "old box": self.config.location_weight * sums.location_sum / count,
        }

    def grow(self, student: Detector, num_new: int) -> None:
        """Add the classes; a later step's images may differ from those that the old classes were learned on."""
        student.add_classes(num_new)
        if self.config.batch_norm == "keep":
            student.keep_statistics()

    def trunk_rate(self, knowledge: Knowledge, objects: Targets) -> float:
        """The full rate where a batch holds `trunk_balance` old objects for every new one, proportionally less below.

        New objects alone move the features that old classes need, and nothing in such a batch holds them in place. A
        kept box counts as much of an object as its score; replayed labels of old classes count as well.
        """
        if not self.config.trunk_balance:
            return 1.0
        is_new_N = objects.labels_N >= knowledge.num_classes
        counts = torch.stack((knowledge.scores_K.sum() + (~is_new_N).sum(), is_new_N.sum()))
        num_old, num_new = mean_across_processes(counts).tolist()
        return min(1.0, num_old / max(self.config.trunk_balance * num_new, 1e-9))
