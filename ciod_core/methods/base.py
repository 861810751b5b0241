"""What a method is: a selection of the teacher's answers and a transfer that turns them into losses.

Legend: B images, A anchor points, C old classes, K kept answers, P positives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ciod_core.config.schema import ResamplerConfig
from ciod_core.model.assigner import Assignment, assign
from ciod_core.model.detector import Detector
from ciod_core.model.knowledge import Knowledge
from ciod_core.model.losses import Losses
from ciod_core.model.output import HeadOutput, Targets, rows_at


class Lesson(NamedTuple):
    """What a transfer sees of one batch.

    Attributes:
        student: the student's answers.
        objects: what anchor points were assigned to: ground truth, and before it what counts as such.
        assignment: the positives for these objects.
        cls_logits_PC: the student's class logits at the positives. Read once and from here: whoever reads them from
            the student's answers adds a gradient as large as those, all zeros but a few rows.
        num_taught: how many of the objects, the first ones, are the teacher's answers.
        knowledge: the teacher's kept answers, None for a method without a teacher.
        teacher: all of the teacher's answers, None like `knowledge`.
        ignored_BA: mask of anchor points that are not background, even if they are no positives; None: none are.
    """

    student: HeadOutput
    objects: Targets
    assignment: Assignment
    cls_logits_PC: Tensor
    num_taught: int
    knowledge: Knowledge | None
    teacher: HeadOutput | None
    ignored_BA: Tensor | None = None

    @property
    def old_P(self) -> Tensor:
        """Mask of the positives whose object came from the teacher."""
        return self.assignment.object_P < self.num_taught


Selection = Callable[[HeadOutput, Targets], Knowledge]
"""From the teacher's answers and the step's ground truth to the knowledge to teach."""


class Recall(NamedTuple):
    """How a method learns from a bank instead of a live teacher.

    Attributes:
        resampler: what has to have selected the bank's knowledge.
        agree: from what the bank knows of a batch, and the step's ground truth, to the knowledge to teach.
    """

    resampler: ResamplerConfig
    agree: Callable[[Knowledge, Targets], Knowledge]


Transfer = Callable[[Lesson], Losses]
"""From a lesson to named scalar losses, weighted and normalised; their sum is minimised."""

TrunkRate = Callable[[Knowledge, Targets], float]
"""From a batch's knowledge and ground truth to the share of the learning rate, 0..1, at which the trunk learns."""

Growth = Callable[[Detector, int], None]
"""Makes room for so many further classes in a copy of the teacher."""


@dataclass(frozen=True)
class Method:
    """One way to learn new classes.

    Attributes:
        selection: what to take from the teacher; None where no teacher takes part.
        transfer: the losses.
        assigns_knowledge: whether anchor points are assigned to the selected boxes too, before the ground truth.
        features: whether the transfer compares what the answers were made from.
        grow: how the student makes room for the new classes.
        trunk_rate: how fast backbone and neck learn beside the head; None: as fast.
        recall: how the method learns from a bank; None: it needs more of a teacher than selected answers, or none.
    """

    selection: Selection | None
    transfer: Transfer
    assigns_knowledge: bool = False
    features: bool = False
    grow: Growth = Detector.add_classes
    trunk_rate: TrunkRate | None = None
    recall: Recall | None = None

    def select(self, teacher: HeadOutput | None, targets: Targets) -> Knowledge | None:
        """The knowledge of a batch, or None when the method or the step has no teacher."""
        if self.selection is None or teacher is None:
            return None
        return self.selection(teacher, targets)

    def losses(
        self,
        student: HeadOutput,
        targets: Targets,
        knowledge: Knowledge | None,
        teacher: HeadOutput | None = None,
        ignored_BA: Tensor | None = None,
    ) -> Losses:
        """Assign anchor points to the objects of the batch, and compute the named losses.

        Args:
            student: the student's answers, with features where the method compares them.
            targets: the step's ground truth.
            knowledge: what `select` gave.
            teacher: the answers it was selected from; needed where the transfer looks beyond them.
            ignored_BA: mask of anchor points where labels may be missing: no background, even if no positives.
        """
        taught = knowledge if self.assigns_knowledge else None
        objects = targets if taught is None else taught.before(targets)
        num_taught = 0 if taught is None else len(taught)
        assignment = assign(student, objects)
        rows_PC = rows_at(student.cls_logits_BAC, assignment.image_P, assignment.anchor_P)
        return self.transfer(Lesson(student, objects, assignment, rows_PC, num_taught, knowledge, teacher, ignored_BA))
