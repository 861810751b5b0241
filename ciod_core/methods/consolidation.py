"""One network again: a plain detector learns what a detector with branches predicts, all heads merged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from ciod_core.config.schema import NonNegative, Section, UnitInterval
from ciod_core.methods.base import Method, supervised
from ciod_core.methods.branches import divergences
from ciod_core.model.base import Detector, Losses, Predictions, Targets
from ciod_core.model.common.losses import mean_over_images
from ciod_core.model.knowledge import Knowledge

# Losses are divided by the anchor points at which the teacher sees an object: images with many would outweigh those
# with few. An image with fewer than these counts as one with as many.
FEWEST_POINTS = 4.0


class ConsolidationConfig(Section):
    """How freely the one network learns.

    What imported weights know is far more than a few images show, and these are learned by heart: a head that is free
    to fit the teacher on them no longer says what it did on others. There the head decays toward the teacher's weights
    instead of 0, decoupled from the gradients as in AdamW (the starting point of L2-SP, Li et al. 2018), and backbone
    and neck learn slowly. A detector of one's own, with a few classes, learns the new ones only where both are freer.
    """

    trunk_rate: UnitInterval = Field(
        0.33, description="consolidate: share of lr at which backbone and neck learn; of imported weights 0.04"
    )
    head_decay: NonNegative = Field(
        0.0,
        description="consolidate: weight decay of the head, but for new classes, toward the teacher's weights; of "
        "imported weights 50",
    )


class Consolidation(Method):
    """Dense distillation: at every anchor point the head with the larger score teaches, and labels are learned besides.

    It is trained on images whose labels name the classes of the teacher's last step alone, and on unlabeled images.
    """

    Config = ConsolidationConfig
    section = "consolidation"
    needs = frozenset({"dense"})
    config: ConsolidationConfig
    # The teacher's weights of the head, by name; then beside the student's, those that stay near them.
    _taught: Mapping[str, Tensor] = {}
    _held: tuple[list[Tensor], list[Tensor]] | None = None

    def grow(self, student: Detector, num_new: int) -> None:
        """The old path alone, with room for the classes of the branches; batch statistics are those of the teacher."""
        student.drop_branches()
        if self.config.head_decay:
            self._taught = {name: own.detach().clone() for name, own in student.head_parameters().items()}
        student.add_classes(num_new)
        student.keep_statistics()

    def trunk_rate(self, knowledge: Knowledge, objects: Targets) -> float:
        """The same for every batch."""
        return self.config.trunk_rate

    @torch.no_grad()
    def after_update(self, student: Detector, lr: float) -> None:
        """Let the head, but for the rows of new classes, decay toward the teacher's weights."""
        if not self._taught:
            return
        if self._held is None:
            own = student.head_parameters()
            self._held = (
                [own[name][: len(taught)] if taught.ndim else own[name] for name, taught in self._taught.items()],
                [taught.to(own[name].device) for name, taught in self._taught.items()],
            )
        torch._foreach_lerp_(*self._held, min(1.0, self.config.head_decay * lr))

    def losses(
        self,
        detector: Detector,
        student: Predictions,
        objects: Targets,
        knowledge: Knowledge,
        ignored_BA: Tensor | None = None,
    ) -> Losses:
        """Divergence from the merged teacher per anchor point with an object; the losses of labeled objects."""
        assert knowledge.dense is not None
        teacher = knowledge.dense.merged()
        points_B = teacher.presence().sum(dim=1).clamp(min=FEWEST_POINTS)
        taught = {name: mean_over_images(loss_B / points_B) for name, loss_B in divergences(student, teacher).items()}
        # The teacher, who knows these objects, says better than labels where none is: old objects have no label.
        everywhere_BA = torch.ones(student.boxes_BA4.shape[:2], dtype=torch.bool, device=student.boxes_BA4.device)
        labeled = supervised(detector, student, objects, everywhere_BA)
        return {name: loss for name, loss in labeled.items() if name not in student.responses()} | taught
