"""The contract of a method: how a student learns new classes from labels and from its teacher.

A method is a class in a file of its own and a line in `ciod_core.methods.registry`.

Legend: B images, A anchor points, K kept boxes, P positives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from ciod_core.config.schema import MethodConfig, ResamplerConfig, Section
from ciod_core.model.base import Assignment, Detector, Losses, Predictions, Targets
from ciod_core.model.knowledge import Knowledge
from ciod_core.resampler.select import resample
from ciod_core.runtime.distributed import mean_across_processes


class Method:
    """Base of all methods; as it stands it learns from labels alone.

    Attributes:
        Config: the method's own settings.
        section: name of their section of the configuration; empty where the method has none.
        needs: what the method takes from a teacher: `selected` boxes, `dense` predictions at all anchor points,
            `features`; nothing: no teacher takes part.
        needs_new_classes: refuses a step that only shows more objects of known classes.
        without_dense: own settings with which selected boxes are enough.
        config: values of the method's own settings.
        options: values of the settings that all methods with a teacher share.
        resampler: values of the settings of selection.
    """

    Config: ClassVar[type[Section]] = Section
    section: ClassVar[str] = ""
    needs: frozenset[str] = frozenset()
    needs_new_classes: ClassVar[bool] = False
    without_dense: ClassVar[Mapping[str, object]] = {}
    config: Section

    def __init__(self, config: Section, resampler: ResamplerConfig, options: MethodConfig | None = None) -> None:
        """Take the settings of the method's own section, those of selection, and those shared by all methods."""
        self.config = config
        self.resampler = resampler
        self.options = options or MethodConfig()

    @property
    def selection(self) -> ResamplerConfig | None:
        """What a bank must have been selected with; None where selected boxes are not enough, or not needed."""
        return self.resampler if self.needs == {"selected"} else None

    def select(self, teacher: Predictions) -> Knowledge:
        """The boxes to keep of a teacher's predictions, after NMS."""
        return resample(teacher, self.resampler)

    def reconcile(self, knowledge: Knowledge, objects: Targets) -> Knowledge:
        """Drop kept boxes that conflict with the ground truth; applies to the knowledge of a bank, too."""
        return knowledge.without_overlap(objects, self.resampler.ground_truth_iou)

    def losses(
        self,
        detector: Detector,
        student: Predictions,
        objects: Targets,
        knowledge: Knowledge,
        ignored_BA: Tensor | None = None,
    ) -> Losses:
        """The losses of a batch whose teacher takes part.

        Args:
            detector: the student.
            student: its predictions, with features where the method needs them.
            objects: the ground truth.
            knowledge: reconciled with it.
            ignored_BA: mask of anchor points that are not background, even if they are no positives.
        """
        return supervised(detector, student, objects, ignored_BA)

    def grow(self, student: Detector, num_new: int) -> None:
        """Make room for new classes in a copy of the teacher.

        With a teacher that takes part, batch statistics may stay the teacher's: a later step's images may differ from
        those that the old classes were learned on.
        """
        student.add_classes(num_new)
        if self.needs and self.options.batch_norm == "keep":
            student.keep_statistics()

    def trunk_rate(self, knowledge: Knowledge, objects: Targets) -> float:
        """Share of the learning rate, 0..1, at which backbone and neck learn from this batch.

        The full rate where a batch holds `method.trunk_balance` old objects for every new one, proportionally less
        below. New objects alone move the features that old classes need, and nothing in such a batch holds them in
        place. A kept box counts as much of an object as its score; replayed labels of old classes count as well.
        """
        if not self.options.trunk_balance:
            return 1.0
        is_new_N = objects.labels_N >= knowledge.num_classes
        counts = torch.stack((knowledge.scores_K.sum() + (~is_new_N).sum(), is_new_N.sum()))
        num_old, num_new = mean_across_processes(counts).tolist()
        return min(1.0, num_old / max(self.options.trunk_balance * num_new, 1e-9))

    def after_update(self, student: Detector, lr: float) -> None:
        """Change the student once more after a step of the optimizer; most methods do not.

        Args:
            student: the detector, in place.
            lr: the learning rate of the step.
        """

    def presence_targets(self, assignment: Assignment, knowledge: Knowledge) -> Tensor:
        """(P,) target presence of positives that were assigned to kept boxes, put before the labeled objects.

        1 at labeled objects; at kept boxes 1 as well, or the teacher's presence (`method.objectness`).
        """
        target_P = torch.ones_like(assignment.iou_P)
        if self.options.objectness == "soft":
            old_P = (assignment.object_P < len(knowledge)).nonzero().squeeze(1)
            target_P[old_P] = knowledge.presence_of(assignment.object_P[old_P])
        return target_P


def supervised(detector: Detector, student: Predictions, objects: Targets, ignored_BA: Tensor | None = None) -> Losses:
    """The detector's own losses for labeled objects."""
    return detector.losses(student, objects, detector.assign(student, objects), ignored_BA=ignored_BA)
