"""What a method is: a selection of the teacher's answers and a transfer that turns them into losses.

Legend: B images, A anchor points, P positives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ciod_core.knowledge import Knowledge
from ciod_core.model.assigner import Assignment, assign
from ciod_core.model.output import HeadOutput, Targets
from ciod_core.training.distributed import mean_across_processes

Losses = dict[str, Tensor]


class Lesson(NamedTuple):
    """What a transfer sees of one batch.

    Attributes:
        student: the student's answers.
        objects: what anchor points were assigned to, knowledge first, then ground truth.
        assignment: the positives for these objects.
        knowledge: the teacher's kept answers, None for a method without a teacher.
    """

    student: HeadOutput
    objects: Targets
    assignment: Assignment
    knowledge: Knowledge | None

    @property
    def old_P(self) -> Tensor:
        """Mask of the positives whose object came from the teacher."""
        return self.assignment.object_P < (len(self.knowledge) if self.knowledge else 0)


Selection = Callable[[HeadOutput, Targets], Knowledge]
"""From the teacher's answers and the step's ground truth to the knowledge to teach."""

Transfer = Callable[[Lesson], Losses]
"""From a lesson to named scalar losses, weighted and normalised; their sum is minimised."""


@dataclass(frozen=True)
class Method:
    """One way to learn new classes.

    Attributes:
        selection: what to take from the teacher; None where no teacher takes part.
        transfer: the losses.
    """

    selection: Selection | None
    transfer: Transfer

    def select(self, teacher: HeadOutput | None, targets: Targets) -> Knowledge | None:
        """The knowledge of a batch, or None when the method or the step has no teacher."""
        if self.selection is None or teacher is None:
            return None
        return self.selection(teacher, targets)

    def losses(self, student: HeadOutput, targets: Targets, knowledge: Knowledge | None) -> Losses:
        """Assign anchor points to knowledge and ground truth, and compute the named losses."""
        objects = targets if knowledge is None else knowledge.before(targets)
        return self.transfer(Lesson(student, objects, assign(student, objects), knowledge))


def normaliser(positives: Tensor) -> Tensor:
    """How many positives a loss is divided by: their number, averaged over processes, at least 1.

    Args:
        positives: boolean mask.
    """
    return mean_across_processes(positives.sum().float()).clamp(min=1)
