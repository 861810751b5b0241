"""Overlaps agree with torchvision and never turn into NaN."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou, generalized_box_iou

from ciod_core.model.common.boxes import box_area, giou, iou, pairwise_iou

coordinate = st.floats(-1000, 1000, allow_nan=False, width=32)
extent = st.sampled_from([0.0, 0.5, 1.0, 7.25, 300.0])
boxes = st.tuples(coordinate, coordinate, extent, extent).map(
    lambda xywh: (xywh[0], xywh[1], xywh[0] + xywh[2], xywh[1] + xywh[3])
)
some_boxes = st.lists(boxes, min_size=1, max_size=6).map(lambda rows: torch.tensor(rows, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(a_N4=some_boxes, b_M4=some_boxes)
def test_pairwise_overlaps_equal_torchvisions(a_N4: torch.Tensor, b_M4: torch.Tensor) -> None:
    solid = (box_area(a_N4) > 0).unsqueeze(1) & (box_area(b_M4) > 0)
    ours, generalised = pairwise_iou(a_N4, b_M4), giou(a_N4.unsqueeze(1), b_M4.unsqueeze(0))
    torch.testing.assert_close(ours[solid], box_iou(a_N4, b_M4)[solid])
    torch.testing.assert_close(generalised[solid], generalized_box_iou(a_N4, b_M4)[solid])
    assert torch.equal(ours.diagonal(), iou(a_N4[: len(b_M4)], b_M4[: len(a_N4)]))
    for overlap in (ours, generalised):
        assert overlap.isfinite().all()
    assert (ours >= 0).all() and (ours <= 1).all()
    assert (generalised >= -1).all() and (generalised <= 1).all()


def test_known_overlaps() -> None:
    a = torch.tensor([0.0, 0.0, 2.0, 2.0])
    b = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [2.0, 0.0, 4.0, 2.0], [6.0, 0.0, 8.0, 2.0]])
    torch.testing.assert_close(iou(a, b), torch.tensor([1.0, 1 / 3, 0.0, 0.0]))
    torch.testing.assert_close(giou(a, b), torch.tensor([1.0, 1 / 3, 0.0, -0.5]))


def test_batches_broadcast() -> None:
    a_BN4, b_BM4 = torch.rand(5, 3, 4).cumsum(-1), torch.rand(5, 7, 4).cumsum(-1)
    together = pairwise_iou(a_BN4, b_BM4)
    assert together.shape == (5, 3, 7)
    for index in range(5):
        torch.testing.assert_close(together[index], box_iou(a_BN4[index], b_BM4[index]))


@pytest.mark.parametrize("overlap", [iou, giou])
def test_gradients_of_degenerate_boxes_are_finite(overlap: object) -> None:
    assert callable(overlap)
    degenerate = torch.tensor([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 4.0, 0.0]], requires_grad=True)
    target = torch.tensor([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 4.0, 0.0]])
    overlap(degenerate, target).sum().backward()
    assert degenerate.grad is not None and degenerate.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_boxes(shape: tuple[int, int]) -> None:
    assert pairwise_iou(torch.zeros(shape[0], 4), torch.zeros(shape[1], 4)).shape == shape
