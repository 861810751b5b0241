"""One network again: a plain detector learns what a detector with branches predicts, all heads merged."""

from __future__ import annotations

import torch
from torch import Tensor

from ciod_core.methods.base import Method, supervised
from ciod_core.methods.branches import divergences
from ciod_core.model.base import Detector, Losses, Predictions, Targets
from ciod_core.model.common.losses import mean_over_images
from ciod_core.model.knowledge import Knowledge

# Share of the learning rate at which backbone and neck learn: faster, they lose old classes; slower, they miss new
# ones.
TRUNK_RATE = 0.04
# Losses are divided by the anchor points at which the teacher sees an object: images with many would outweigh those
# with few. An image with fewer than these counts as one with as many.
FEWEST_POINTS = 4.0


class Consolidation(Method):
    """Dense distillation: at every anchor point the head with the larger score teaches, and labels are learned besides.

    It is trained on images whose labels name the classes of the teacher's last step alone, and on unlabeled images.
    """

    needs = frozenset({"dense"})

    def grow(self, student: Detector, num_new: int) -> None:
        """The old path alone, with room for the classes of the branches; batch statistics are those of the teacher."""
        student.drop_branches()
        student.add_classes(num_new)
        student.keep_statistics()

    def trunk_rate(self, knowledge: Knowledge, objects: Targets) -> float:
        """The same for every batch."""
        return TRUNK_RATE

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
