"""Feature distillation losses, in float32 whatever precision made the features.

Legend: B images, A anchor points, F channels, K kept boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from ciod_core.model.base import Features, Predictions
from ciod_core.model.common.losses import divisor
from ciod_core.runtime.distributed import (
    mean_across_processes,
    rows_of_all_processes,
    share_of_images,
    with_summed_gradient,
    world_size,
)

SMALLEST_MEAN_DISTANCE = 1e-6
# Of a channel that is the same everywhere.
SMALLEST_DEVIATION = 1e-4


def features_of(predictions: Predictions | None) -> Features:
    """The features of predictions that were made with `features=True`."""
    assert predictions is not None and predictions.features is not None, (
        "the method must declare that it needs features"
    )
    return predictions.features


def neck_loss(student: Features, teacher: Features) -> Tensor:
    """Smooth L1 between the neck's maps: the mean of each pyramid level, averaged over levels.

    Every channel is normalized by the mean and the deviation of the teacher's, so that none outweighs the others.
    """
    pairs = zip(student.neck_maps, teacher.neck_maps, strict=True)
    return torch.stack([_map_loss(ours.float(), theirs.detach().float()) for ours, theirs in pairs]).mean()


def _map_loss(student_BFHW: Tensor, teacher_BFHW: Tensor) -> Tensor:
    share = share_of_images(len(teacher_BFHW), teacher_BFHW.device)
    std_F11, mean_F11 = (x.unflatten(0, (-1, 1, 1)) for x in _deviation_and_mean(teacher_BFHW, share))
    std_F11 = std_F11.clamp(min=SMALLEST_DEVIATION)
    return smooth_l1_loss((student_BFHW - mean_F11) / std_F11, (teacher_BFHW - mean_F11) / std_F11) * share


def _deviation_and_mean(maps_BFHW: Tensor, share: Tensor | float) -> tuple[Tensor, Tensor]:
    """(F,) deviation and mean of every channel over the images of all processes."""
    # A coarse map of one image may be a single cell.
    std_F, mean_F = torch.std_mean(maps_BFHW, dim=(0, 2, 3), correction=0)
    if world_size() == 1:
        return std_F, mean_F
    mean_of_all_F = mean_across_processes(mean_F * share)
    variance_F = mean_across_processes((std_F.square() + (mean_F - mean_of_all_F).square()) * share)
    return variance_F.sqrt(), mean_of_all_F


def tower_loss(student_KF: Tensor, teacher_KF: Tensor) -> Tensor:
    """Smooth L1 between the last features of the class tower, the mean over anchor points and channels."""
    loss = smooth_l1_loss(student_KF.float(), teacher_KF.detach().float(), reduction="sum")
    return loss / divisor(torch.tensor(float(student_KF.numel()), device=loss.device))


def relation_loss(student_KF: Tensor, teacher_KF: Tensor) -> Tensor:
    """Smooth L1 between the mean-normalized pairwise distances of instances, the mean over pairs.

    Source: SID, inter-related distillation. One instance has no relation to any other, and no loss. Instances of all
    processes are related to each other.
    """
    student_KF, teacher_KF = (rows_of_all_processes(x.float()) for x in (student_KF, teacher_KF.detach()))
    num_pairs = len(student_KF) * (len(student_KF) - 1)
    ours, theirs = _relations(student_KF), _relations(teacher_KF)
    # The diagonal adds nothing: every instance is at distance 0 from itself in both.
    return with_summed_gradient(smooth_l1_loss(ours, theirs, reduction="sum") / max(num_pairs, 1))


def _relations(features_KF: Tensor) -> Tensor:
    """(K, K) distances of every instance to every other, divided by the mean over pairs."""
    # Not by matrix products, whose rounding drowns the distance between instances that are nearly alike.
    distance_KK = torch.cdist(features_KF, features_KF, compute_mode="donot_use_mm_for_euclid_dist")
    num_pairs = len(features_KF) * (len(features_KF) - 1)
    mean = distance_KK.sum() / max(num_pairs, 1)
    return distance_KK / mean.clamp(min=SMALLEST_MEAN_DISTANCE)
