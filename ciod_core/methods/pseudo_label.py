"""Pseudo-labels: the teacher's confident boxes count as ground truth, without any soft class or box target."""

from __future__ import annotations

from torch import Tensor

from ciod_core.config.schema import MethodConfig, ResamplerConfig, Section
from ciod_core.methods.base import Method
from ciod_core.model.base import Detector, Losses, Predictions, Targets
from ciod_core.model.knowledge import Knowledge

# One box per object, like an annotation: the NMS threshold of plain detection.
SINGLE_BOX_NMS_IOU = 0.65


class PseudoLabel(Method):
    """Boxes with f ≥ `resampler.fixed_score`, one per object, that do not overlap the ground truth."""

    needs = frozenset({"selected"})

    def __init__(self, config: Section, resampler: ResamplerConfig, options: MethodConfig | None = None) -> None:
        confident = resampler.model_copy(update={"rule": "fixed", "nms_iou": SINGLE_BOX_NMS_IOU})
        super().__init__(config, confident, options)

    def losses(
        self,
        detector: Detector,
        student: Predictions,
        objects: Targets,
        knowledge: Knowledge,
        ignored_BA: Tensor | None = None,
    ) -> Losses:
        """The detector's own losses, with the kept boxes as further objects."""
        all_objects = knowledge.before(objects)
        assignment = detector.assign(student, all_objects)
        presence_P = self.presence_targets(assignment, knowledge)
        return detector.losses(student, all_objects, assignment, ignored_BA=ignored_BA, presence_P=presence_P)
