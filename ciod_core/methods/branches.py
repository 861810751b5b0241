"""Branches: the new classes get a head of their own beside the old ones, so that nothing pulls the old head to them.

Legend: B images, A anchor points of the old heads, C old classes.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ciod_core.config.schema import Section, UnitInterval
from ciod_core.methods.base import Method, supervised
from ciod_core.model.base import BranchDepth, Detector, Losses, Predictions, Targets
from ciod_core.model.common.losses import box_loss, mean_over_images
from ciod_core.model.knowledge import Knowledge


class BranchConfig(Section):
    """Where a branch leaves the path of the old classes, and how firmly a held path stays in place."""

    depth: BranchDepth = Field(
        "neck", description="frozen-branch: what is copied for the new classes: 'head', or 'neck' and head"
    )
    trunk_rate: UnitInterval = Field(0.25, description="held-branch: share of lr at which backbone and neck learn")


class FrozenBranch(Method):
    """Labels train the branch alone, without a teacher; replayed labels of old classes train nothing.

    Nothing is forgotten, because nothing old changes: old classes are detected bit for bit as before. The price is a
    neck and a head more per step.
    """

    Config = BranchConfig
    section = "branch"
    needs_new_classes = True
    config: BranchConfig

    def grow(self, student: Detector, num_new: int) -> None:
        """Append a branch for the new classes to a frozen detector."""
        student.add_branch(num_new, self.config.depth)


class HeldBranch(Method):
    """A branch on a trunk that keeps learning, while the old head, itself frozen, must predict what its teacher does.

    Labels train the branch. The old head's scores are held at all anchor points, its boxes as far as the teacher sees
    an object there; so the trunk changes only in ways that old predictions do not notice.
    """

    Config = BranchConfig
    section = "branch"
    needs = frozenset({"dense"})
    needs_new_classes = True
    config: BranchConfig

    def grow(self, student: Detector, num_new: int) -> None:
        """Append a head for the new classes; batch statistics are those of the teacher."""
        student.add_branch(num_new, "head", freeze_trunk=False)
        student.keep_statistics()

    def trunk_rate(self, knowledge: Knowledge, objects: Targets) -> float:
        """The same for every batch."""
        return self.config.trunk_rate

    def losses(
        self,
        detector: Detector,
        student: Predictions,
        objects: Targets,
        knowledge: Knowledge,
        ignored_BA: Tensor | None = None,
    ) -> Losses:
        """The detector's own losses of the branch, and three that hold the old heads."""
        assert knowledge.dense is not None
        *old, new = student.heads()
        if ignored_BA is not None:
            ignored_BA = ignored_BA[:, -new.boxes_BA4.shape[1] :]
        own = supervised(detector, new, objects, ignored_BA)
        held = [divergences(head, taught) for head, taught in zip(old, knowledge.dense.heads(), strict=True)]
        return own | {name: torch.stack([mean_over_images(losses[name]) for losses in held]).sum() for name in held[0]}


def divergences(student: Predictions, teacher: Predictions) -> dict[str, Tensor]:
    """Divergence of a head from its teacher, summed over the anchor points of each image: (B,) by name.

    Boxes count as far as the teacher sees an object, and so do classes that are conditional on one.
    """
    num_classes = teacher.class_logits_BAC.shape[2]
    divergences_BA = {
        f"old {name}": _divergence(student.responses()[name], logits) for name, logits in teacher.responses().items()
    }
    class_BAC = _divergence(student.class_logits_BAC[..., :num_classes], teacher.class_logits_BAC)
    divergences_BA["old class"] = teacher.objectness() * class_BAC.sum(dim=2)
    divergences_BA["old box"] = teacher.presence() * box_loss(student.boxes_BA4, teacher.boxes_BA4)
    return {name: values_BA.sum(dim=1) for name, values_BA in divergences_BA.items()}


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Kullback–Leibler divergence of Bernoulli distributions given by logits, elementwise; 0 where they are equal."""
    target = teacher.sigmoid()
    return bce(student, target, reduction="none") - bce(teacher, target, reduction="none")
