"""The losses of GFL (arXiv 2006.04388): quality focal loss, distribution focal loss.

Legend: P positives, R bins of an edge's distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import cross_entropy

BETA = 2.0
BOX_WEIGHT = 2.0
EDGE_WEIGHT = 0.25
# How far from the last bin a target stays, so that there is a bin on both sides of it.
MARGIN = 0.1


def quality_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """QFL elementwise: |target − score|² · BCE, with targets in 0..1 (Eq. 5)."""
    return (targets - logits.sigmoid()).abs().pow(BETA) * bce(logits, targets, reduction="none")


def distribution_focal_loss(edges_P4R: Tensor, distance_P4: Tensor) -> Tensor:
    """DFL of each positive, the mean over its edges, (P,): cross-entropy of the two bins around the target (Eq. 6).

    Args:
        edges_P4R: logits of the edges' distances.
        distance_P4: the right ones in strides; beyond the bins they count as the nearest that these can say.
    """
    last = edges_P4R.shape[-1] - 1
    distance_P4 = distance_P4.clamp(0, last - MARGIN)
    below_P4 = distance_P4.floor()
    share_above_P4 = distance_P4 - below_P4
    logits_PR4 = edges_P4R.transpose(1, 2)
    loss_below, loss_above = (
        cross_entropy(logits_PR4, bin_P4.long(), reduction="none") for bin_P4 in (below_P4, below_P4 + 1)
    )
    return torch.lerp(loss_below, loss_above, share_above_P4).mean(dim=1)
