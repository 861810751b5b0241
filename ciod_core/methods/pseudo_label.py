"""Pseudo-labels: the teacher's confident boxes are taken for ground truth, without any soft target."""

from __future__ import annotations

from ciod_core.config.schema import ResamplerConfig
from ciod_core.methods.base import Method
from ciod_core.methods.selection import build_recall, build_selection
from ciod_core.methods.supervised import supervised

# One box per object, as a person would have drawn it: the NMS of plain detection.
SINGLE_BOX_NMS_IOU = 0.65


def pseudo_label(resampler: ResamplerConfig) -> Method:
    """Boxes with f ≥ `resampler.fixed_score`, thinned to one per object; the filter is the resampler's."""
    confident = resampler.model_copy(update={"rule": "fixed", "nms_iou": SINGLE_BOX_NMS_IOU})
    return Method(build_selection(confident), supervised, assigns_knowledge=True, recall=build_recall(confident))
