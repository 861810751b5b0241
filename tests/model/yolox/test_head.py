"""The decoupled head: decoding and growing."""

from __future__ import annotations

import math

import pytest
import torch

from ciod_core.config.schema import ModelConfig
from ciod_core.model.common.boxes import giou, iou
from ciod_core.model.common.class_rows import PRIOR_BIAS
from ciod_core.model.common.points import anchor_points
from ciod_core.model.registry import build_detector
from ciod_core.model.yolox.detector import YoloxDetector
from ciod_core.model.yolox.head import decode_boxes
from tests.helpers.networks import levels_of, lively_detector


@pytest.fixture
def detector() -> YoloxDetector:
    return lively_detector(num_classes=3)


def test_anchor_points_run_row_by_row_without_half_stride_offset() -> None:
    points = anchor_points(2, 3, 16, torch.device("cpu"))
    assert points.tolist() == [[0, 0], [16, 0], [32, 0], [0, 16], [16, 16], [32, 16]]


def test_decode_formula() -> None:
    deltas = torch.tensor([[[0.25, -0.5, 0.0, math.log(3)], [0.0, 0.0, math.log(0.5), 0.0]]])
    points = torch.tensor([[16.0, 32.0], [24.0, 0.0]])
    center_x, center_y = 16 + 0.25 * 8, 32 - 0.5 * 8
    expected = [
        [center_x - 4, center_y - 12, center_x + 4, center_y + 12],
        [24 - 2, 0 - 4, 24 + 2, 0 + 4],
    ]
    torch.testing.assert_close(decode_boxes(deltas, points, 8), torch.tensor([expected]))


def test_sizes_without_a_target_stay_finite() -> None:
    """An anchor point that is never a positive may drift; its box stays finite, and a reasonable box stays as it is."""
    deltas = torch.tensor([[[0.0, 0.0, 500.0, 7.9], [0.0, 0.0, 4.0, -500.0]]], requires_grad=True)
    boxes = decode_boxes(deltas, torch.zeros(2, 2), 32)
    sizes = boxes[..., 2:] - boxes[..., :2]
    assert boxes.isfinite().all()
    assert sizes[0, 0, 0].item() > 10_000
    assert sizes[0, 0, 1].item() == pytest.approx(32 * math.exp(7.9), rel=1e-5)
    assert sizes[0, 1].tolist() == pytest.approx([32 * math.exp(4.0), 0.0], rel=1e-5)
    (giou(boxes[0, :1], boxes[0, 1:]).sum() + iou(boxes[0, :1], boxes[0, 1:]).sum()).backward()
    assert deltas.grad is not None and deltas.grad.isfinite().all()


def test_every_level_is_decoded_with_its_own_stride(detector: YoloxDetector) -> None:
    """With zero weights every box is the cell of its anchor point, centered on the point."""
    for level in levels_of(detector):
        for parameter in level.box_conv.parameters():
            torch.nn.init.zeros_(parameter)
    output = detector(torch.zeros(1, 3, 64, 96))
    assert output.strides_A.tolist() == [8.0] * 96 + [16.0] * 24 + [32.0] * 6
    half = output.strides_A.unsqueeze(1) / 2
    expected = torch.cat((output.points_A2 - half, output.points_A2 + half), dim=1)
    assert torch.equal(output.boxes_BA4[0], expected)
    assert output.points_A2[[0, 1, 12, 96, 97, 120, 125]].tolist() == [
        [0, 0], [8, 0], [0, 8], [0, 0], [16, 0], [0, 0], [64, 32],
    ]  # fmt: skip


def test_fresh_biases_are_the_prior() -> None:
    detector = build_detector(ModelConfig(name="yolox-micro", backbone_weights="none"), 3)
    assert math.isclose(1 / (1 + math.exp(-PRIOR_BIAS)), 0.01)
    for level in levels_of(detector):
        for conv in (level.cls_conv, level.obj_conv):
            assert conv.bias is not None
            assert conv.bias.tolist() == pytest.approx([PRIOR_BIAS] * conv.out_channels)


def test_growing_keeps_what_was_learned(detector: YoloxDetector) -> None:
    """Weights stay bit by bit. Logits may differ in the last digit: a convolution with more rows may sum otherwise."""
    images = torch.rand(2, 3, 64, 64) * 255
    with torch.inference_mode():
        before = detector(images)
    old = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    detector.add_classes(2)
    with torch.inference_mode():
        after = detector(images)
    for name, tensor in detector.state_dict().items():
        kept = tensor[:3] if ".cls_conv." in name else tensor
        assert torch.equal(kept, old[name]), name
    assert before.class_logits_BAC.std() > 0.3
    assert after.class_logits_BAC.shape[-1] == 5
    torch.testing.assert_close(after.class_logits_BAC[..., :3], before.class_logits_BAC, rtol=1e-5, atol=1e-5)
    assert torch.equal(after.objectness_logits_BA, before.objectness_logits_BA)
    assert torch.equal(after.boxes_BA4, before.boxes_BA4)


def test_new_rows_have_the_prior_bias_and_train(detector: YoloxDetector) -> None:
    for level in levels_of(detector):
        level.cls_conv.state_dict()["bias"].fill_(2.0)
    detector.add_classes(2)
    for level in levels_of(detector):
        assert level.cls_conv.state_dict()["bias"].tolist() == pytest.approx([2.0] * 3 + [PRIOR_BIAS] * 2)
        assert level.cls_conv.out_channels == 5
        assert all(parameter.requires_grad for parameter in level.cls_conv.parameters())
        assert level.cls_conv.weight[3:].std() > 0
    logits = detector(torch.zeros(1, 3, 64, 64)).class_logits_BAC
    logits[..., 3:].sum().backward()
    grad = levels_of(detector)[0].cls_conv.weight.grad
    assert grad is not None and grad[3:].abs().sum() > 0 and grad[:3].abs().sum() == 0


def test_growing_twice_equals_growing_once_in_size(detector: YoloxDetector) -> None:
    detector.add_classes(1)
    detector.add_classes(3)
    assert detector(torch.zeros(1, 3, 32, 32)).class_logits_BAC.shape == (1, 21, 7)
