"""Predictions of YOLOX: how class and objectness combine, and what boxes are regressed as."""

from __future__ import annotations

import torch

from ciod_core.model.base import PRESENCE
from tests.helpers.scenes import random_output

IMAGE_P, ANCHOR_P = torch.tensor([1, 0, 1]), torch.tensor([4, 20, 0])


def test_scores_multiply_class_and_objectness() -> None:
    output = random_output(2, 3, 32, seed=0)
    expected = torch.sigmoid(output.class_logits_BAC[1, 4, 2]) * torch.sigmoid(output.objectness_logits_BA[1, 4])
    torch.testing.assert_close(output.scores()[1, 4, 2], expected)


def test_presence_bounds_every_score() -> None:
    output = random_output(2, 3, 32, seed=0)
    assert (output.scores() <= output.presence().unsqueeze(-1)).all()
    torch.testing.assert_close(output.objectness_at(IMAGE_P, ANCHOR_P), output.objectness()[IMAGE_P, ANCHOR_P])


def test_rows_of_some_anchor_points() -> None:
    output = random_output(2, 3, 32, seed=0)
    rows = output.class_logits_at(IMAGE_P, ANCHOR_P)
    assert torch.equal(rows, output.class_logits_BAC[IMAGE_P, ANCHOR_P])


def test_objectness_is_the_response_beside_the_class_logits() -> None:
    output = random_output(2, 3, 32, seed=0)
    assert output.responses().keys() == {PRESENCE}
    assert torch.equal(output.responses()[PRESENCE], output.objectness_logits_BA)
    assert torch.equal(output.location_confidence(), output.objectness_logits_BA)


def test_box_deltas_are_center_and_log_size_in_strides() -> None:
    output = random_output(1, 3, 32, seed=0)
    # Anchor points 0 and 20 have strides 8 and 32.
    boxes = torch.tensor([[8.0, 16.0, 24.0, 20.0], [0.0, 0.0, 64.0, 32.0]])
    found = output.box_deltas(boxes, torch.tensor([0, 20]))
    logs = torch.tensor([[16 / 8, 4 / 8], [64 / 32, 32 / 32]]).log()
    expected = torch.cat((torch.tensor([[16 / 8, 18 / 8], [32 / 32, 16 / 32]]), logs), dim=1)
    torch.testing.assert_close(found, expected)


def test_box_deltas_of_degenerate_boxes_are_finite() -> None:
    output = random_output(1, 3, 32, seed=0)
    boxes = torch.tensor([[5.0, 5.0, 5.0, 5.0]], requires_grad=True)
    deltas = output.box_deltas(boxes, torch.tensor([0]))
    deltas.sum().backward()
    assert deltas.isfinite().all() and boxes.grad is not None and boxes.grad.isfinite().all()
