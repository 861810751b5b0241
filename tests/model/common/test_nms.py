"""Non-maximum suppression, and detections after it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from ciod_core.model.common.nms import BOXES_PER_CALL, grouped_nms
from tests.helpers.scenes import YOLOX, blank_output, random_output


def nms_group_by_group(boxes_N4: Tensor, scores_N: Tensor, group_N: Tensor, iou_threshold: float) -> set[int]:
    kept: set[int] = set()
    for group in group_N.unique():
        rows = (group_N == group).nonzero().squeeze(1)
        kept |= set(rows[nms(boxes_N4[rows], scores_N[rows], iou_threshold)].tolist())
    return kept


def clusters(seed: int, offset: float) -> tuple[Tensor, Tensor, Tensor]:
    """Jittered copies of a few boxes, whose overlaps straddle every threshold, in a few groups."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(8, 4, generator=generator) * 40
    base[:, 2:] += base[:, :2] + 20
    jitter = torch.randn(25, 8, 4, generator=generator) * torch.tensor([0.1, 1.0, 4.0, 8.0] * 2).view(8, 1)
    boxes_N4 = (base + jitter).reshape(-1, 4) + offset
    count = len(boxes_N4)
    return (
        boxes_N4,
        torch.rand(count, generator=generator),
        torch.randint(0, 4, (count,), generator=generator),
    )


@pytest.mark.parametrize("threshold", [0.005, 0.5, 0.65, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_groups_do_not_affect_each_other(seed: int, threshold: float) -> None:
    boxes_N4, scores_N, group_N = clusters(seed, offset=0.0)
    kept = grouped_nms(boxes_N4, scores_N, group_N, threshold)
    assert set(kept.tolist()) == nms_group_by_group(boxes_N4.double(), scores_N.double(), group_N, threshold)
    assert (scores_N[kept].diff() <= 0).all(), "best first"


def test_many_groups_and_large_coordinates_do_not_cost_digits() -> None:
    """2,560 groups (32 images of 80 classes) move boxes apart by millions; 0.95 is decided by the fourth digit."""
    boxes_N4, scores_N, group_N = clusters(seed=1, offset=4000.0)
    group_N = group_N + 2550
    kept = grouped_nms(boxes_N4, scores_N, group_N, 0.95)
    expected = nms_group_by_group(boxes_N4.double(), scores_N.double(), group_N, 0.95)
    assert set(kept.tolist()) == expected
    assert len(expected) < len(boxes_N4)


def test_more_boxes_and_groups_than_one_call_takes() -> None:
    """Groups of all sizes, one of them larger than a call, in any order."""
    boxes_N4 = torch.cat([clusters(seed, offset=0.0)[0] for seed in range(3 * BOXES_PER_CALL // 200)])
    generator = torch.Generator().manual_seed(0)
    scores_N = (torch.rand(len(boxes_N4), generator=generator) * 500).round() / 500
    group_N = torch.randint(0, 300, (len(boxes_N4),), generator=generator)
    group_N[torch.randperm(len(boxes_N4), generator=generator)[: BOXES_PER_CALL + 100]] = 1000
    kept = grouped_nms(boxes_N4, scores_N, group_N, 0.65)
    assert set(kept.tolist()) == nms_group_by_group(boxes_N4.double(), scores_N.double(), group_N, 0.65)
    assert len(kept) < len(boxes_N4)
    assert kept.tolist() == sorted(kept.tolist(), key=lambda index: (-scores_N[index], index)), "first of equals first"


def test_negative_coordinates_keep_groups_apart() -> None:
    boxes_N4 = torch.tensor([[-100.0, -100.0, -50.0, -50.0], [-100.0, -100.0, -50.0, -50.0], [0.0, 0.0, 9.0, 9.0]])
    kept = grouped_nms(boxes_N4, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 0]), 0.5)
    assert kept.tolist() == [0, 1, 2]
    kept = grouped_nms(boxes_N4, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 1, 0]), 0.5)
    assert kept.tolist() == [0, 2]


@pytest.mark.parametrize("absurd", [1e9, 1e20, float("inf")])
def test_an_absurd_box_does_not_disturb_the_others(absurd: float) -> None:
    """An overflowing size must not shift the other groups so far that their digits go."""
    boxes_N4, scores_N, group_N = clusters(seed=2, offset=100.0)
    expected = nms_group_by_group(boxes_N4.double(), scores_N.double(), group_N, 0.95)
    boxes_N4 = torch.cat((boxes_N4, torch.tensor([[-absurd, -absurd, absurd, absurd]])))
    scores_N, group_N = torch.cat((scores_N, torch.ones(1))), torch.cat((group_N, torch.tensor([2000])))
    kept = set(grouped_nms(boxes_N4, scores_N, group_N, 0.95).tolist())
    assert kept == expected | {len(boxes_N4) - 1}


def test_the_earlier_of_equal_scores_survives() -> None:
    boxes_N4 = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(4, 1)
    assert grouped_nms(boxes_N4, torch.full((4,), 0.5), torch.tensor([1, 0, 1, 0]), 0.95).tolist() == [0, 1]


def test_nothing_to_thin() -> None:
    empty = grouped_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5)
    assert empty.shape == (0,) and empty.dtype == torch.int64


def test_detections_are_thinned_per_class_and_image_best_first() -> None:
    output = blank_output(2, 2)
    output.boxes_BA4[:, 3] = output.boxes_BA4[:, 2] + 0.1
    for image, anchor, label, logit in [(0, 2, 0, 3.0), (0, 3, 0, 2.0), (0, 3, 1, 1.0), (1, 3, 0, 0.5)]:
        output.class_logits_BAC[image, anchor, label] = logit
        output.objectness_logits_BA[image, anchor] = 9.0
    first, second = YOLOX.detect(output, score_threshold=0.3, nms_iou=0.65, max_detections=10)
    assert first.labels_D.tolist() == [0, 1]
    torch.testing.assert_close(first.boxes_D4, output.boxes_BA4[0, [2, 3]])
    torch.testing.assert_close(first.scores_D, torch.tensor([3.0, 1.0]).sigmoid() * torch.tensor(9.0).sigmoid())
    assert second.labels_D.tolist() == [0]
    torch.testing.assert_close(second.boxes_D4, output.boxes_BA4[1, [3]])


def test_at_most_so_many_detections_per_image() -> None:
    output = random_output(3, 4, 64, seed=2)
    everything = YOLOX.detect(output, score_threshold=0.0, nms_iou=1.0, max_detections=10_000)
    limited = YOLOX.detect(output, score_threshold=0.0, nms_iou=1.0, max_detections=7)
    for full, few in zip(everything, limited, strict=True):
        assert len(full.scores_D) == 84 * 4
        assert len(few.scores_D) == 7
        assert torch.equal(few.scores_D, full.scores_D[:7])


def test_an_image_without_detections() -> None:
    found = YOLOX.detect(blank_output(2, 3), score_threshold=0.5, nms_iou=0.65, max_detections=10)
    assert [(len(image.boxes_D4), image.boxes_D4.shape[1], len(image.labels_D)) for image in found] == [(0, 4, 0)] * 2


def test_an_anchor_point_may_give_its_best_class_alone() -> None:
    output = random_output(2, 4, 64, seed=3)
    settings = {"score_threshold": 0.05, "nms_iou": 1.0, "max_detections": 10_000}
    several = YOLOX.detect(output, **settings)
    alone = YOLOX.detect(output, **settings, multi_label=False)
    best_BA, labels_BA = output.scores().max(dim=2)
    for image in range(2):
        sure_A = best_BA[image] >= 0.05
        assert len(several[image].scores_D) > len(alone[image].scores_D) == sure_A.sum() > 0
        order = best_BA[image][sure_A].argsort(descending=True, stable=True)
        assert torch.equal(alone[image].scores_D, best_BA[image][sure_A][order])
        assert torch.equal(alone[image].labels_D, labels_BA[image][sure_A][order])
