"""The contract of a method: how a student learns new classes from labels and from its teacher.

A method is a class in a file of its own and a line in `ciod_core.methods.registry`.

Legend: B images, A anchor points, K kept boxes, P positives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from ciod_core.config.schema import ResamplerConfig, Section
from ciod_core.model.base import Detector, Losses, Predictions, Targets
from ciod_core.model.knowledge import Knowledge
from ciod_core.resampler.select import resample


class Method:
    """Base of all methods; as it stands it learns from labels alone.

    Attributes:
        Config: the method's own settings.
        section: name of their section of the configuration; empty where the method has none.
        needs: what the method takes from a teacher: `selected` boxes, `dense` predictions at all anchor points,
            `features`; nothing: no teacher takes part.
        needs_new_classes: refuses a step that only shows more objects of known classes.
        without_dense: own settings with which selected boxes are enough.
        with_fresh_student: own settings for a student that does not start from its teacher's weights.
    """

    Config: ClassVar[type[Section]] = Section
    section: ClassVar[str] = ""
    needs: frozenset[str] = frozenset()
    needs_new_classes: ClassVar[bool] = False
    without_dense: ClassVar[Mapping[str, object]] = {}
    with_fresh_student: ClassVar[Mapping[str, object]] = {}

    def __init__(self, config: Section, resampler: ResamplerConfig) -> None:
        """Take the settings of the method's own section, and those of selection."""
        self.resampler = resampler

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
        """Make room for new classes in a copy of the teacher."""
        student.add_classes(num_new)

    def trunk_rate(self, knowledge: Knowledge, objects: Targets) -> float:
        """Share of the learning rate, 0..1, at which backbone and neck learn from this batch."""
        return 1.0


def supervised(detector: Detector, student: Predictions, objects: Targets, ignored_BA: Tensor | None = None) -> Losses:
    """The detector's own losses for labeled objects."""
    return detector.losses(student, objects, detector.assign(student, objects), ignored_BA=ignored_BA)
