"""Several heads on one backbone and neck, each with classes of its own, answer as one.

Every head answers at every anchor point, so their anchor points are put one after another; a head has no logit for the
classes of the others. What a head says stays bit for bit what it said alone.

Legend: B images, A anchor points, C classes of all heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from ciod_core.model.output import ABSENT_LOGIT, Features, HeadOutput


def among_classes(output: HeadOutput, first: int, num_classes: int) -> HeadOutput:
    """An output whose class logits are those from column `first` on, of `num_classes`; the others are absent."""
    behind = num_classes - first - output.cls_logits_BAC.shape[2]
    if not first and not behind:
        return output
    return output._replace(cls_logits_BAC=pad(output.cls_logits_BAC, (first, behind), value=ABSENT_LOGIT))


def joined(outputs: Sequence[HeadOutput]) -> HeadOutput:
    """The anchor points of several heads, one head after another."""
    if len(outputs) == 1:
        return outputs[0]
    return HeadOutput(
        cls_logits_BAC=torch.cat([output.cls_logits_BAC for output in outputs], dim=1),
        obj_logits_BA=torch.cat([output.obj_logits_BA for output in outputs], dim=1),
        boxes_BA4=torch.cat([output.boxes_BA4 for output in outputs], dim=1),
        points_A2=torch.cat([output.points_A2 for output in outputs]),
        strides_A=torch.cat([output.strides_A for output in outputs]),
        features=_joined_features([output.features for output in outputs if output.features is not None]),
    )


def _joined_features(features: Sequence[Features]) -> Features | None:
    if not features:
        return None
    # The heads share one neck.
    return Features(features[0].neck_maps, torch.cat([each.cls_features_BAF for each in features], dim=1))
