"""Pseudo-labels: the teacher's confident boxes count as ground truth, without any soft class or box target."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from ciod_core.config.schema import MethodConfig, ResamplerConfig, Section
from ciod_core.methods.base import Method
from ciod_core.model.base import Detector, Losses, Predictions, Targets
from ciod_core.model.knowledge import Knowledge

# One box per object, like an annotation: the NMS threshold of plain detection.
SINGLE_BOX_NMS_IOU = 0.65


class PseudoLabelConfig(Section):
    """Which boxes become labels."""

    selection: Literal["fixed", "resampler"] = Field(
        "fixed", description="boxes above resampler.fixed_score, one per object, or those that the resampler keeps"
    )


class PseudoLabel(Method):
    """Boxes with f ≥ `resampler.fixed_score`, one per object, that do not overlap the ground truth."""

    Config = PseudoLabelConfig
    section = "pseudo_label"
    needs = frozenset({"selected"})
    config: PseudoLabelConfig

    def __init__(
        self, config: PseudoLabelConfig, resampler: ResamplerConfig, options: MethodConfig | None = None
    ) -> None:
        if config.selection == "fixed":
            resampler = resampler.model_copy(update={"rule": "fixed", "nms_iou": SINGLE_BOX_NMS_IOU})
        super().__init__(config, resampler, options)

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
