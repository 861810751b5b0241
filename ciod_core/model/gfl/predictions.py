"""Predictions of GFL: class logits whose scores say how good the box is, and distributions of the box's edges.

Legend: B images, A anchor points, K boxes, R bins of an edge's distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import kl_div

from ciod_core.model.base import Predictions, rows_at
from ciod_core.model.common.point_predictions import PointPredictions
from ciod_core.model.gfl.losses import EDGE_WEIGHT

TEMPERATURE = 10.0


@dataclass(frozen=True, kw_only=True)
class GflPredictions(PointPredictions):
    """Predictions without objectness: a class probability is a score.

    Attributes:
        edge_logits_BA4R: logits of the distance to the left, top, right and bottom edge, in strides 0 to R − 1.
    """

    edge_logits_BA4R: Tensor

    def location_confidence(self) -> Tensor:
        """(B, A) the largest logit of any edge, as published with ERD (arXiv 2204.02136)."""
        return self.edge_logits_BA4R.amax(dim=(2, 3))

    def location_error(self, teacher: Predictions, image_K: Tensor, anchor_K: Tensor) -> Tensor:
        """(K,) divergence of the edges' distributions from the teacher's at temperature T, as published with ERD.

        0.25 · T² · KL(softmax(teacher / T) ‖ softmax(own / T)), the mean over edges and bins; T = 10.
        """
        assert isinstance(teacher, GflPredictions)
        own, theirs = (
            (rows_at(predictions.edge_logits_BA4R, image_K, anchor_K) / TEMPERATURE).log_softmax(dim=-1)
            for predictions in (self, teacher)
        )
        divergence_K4R = kl_div(own, theirs.detach(), reduction="none", log_target=True)
        return EDGE_WEIGHT * TEMPERATURE**2 * divergence_K4R.mean(dim=(1, 2))

    def box_deltas(self, boxes_K4: Tensor, anchor_K: Tensor) -> Tensor:
        """(K, 4) the edges in strides; the anchor point's own position is left out."""
        return boxes_K4 / self.strides_A[anchor_K, None]
