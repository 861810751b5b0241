"""The detectors by name: sizes, predictions, and frozen parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ciod_core.config.schema import ModelConfig
from ciod_core.model.common.branches import PIXEL_MEAN, PIXEL_STD
from ciod_core.model.registry import build_detector
from tests.helpers.networks import YOLOX_NAMES, lively_detector
from tests.helpers.scenes import assert_same_output

# Million parameters with 80 classes, from the README of YOLOX (tables "Standard Models" and "Light Models").
PUBLISHED_PARAMETERS = {
    "yolox-nano": 0.91,
    "yolox-tiny": 5.06,
    "yolox-s": 9.0,
    "yolox-m": 25.3,
    "yolox-l": 54.2,
    "yolox-x": 99.1,
}


def config(name: str, weights: str = "none") -> ModelConfig:
    return ModelConfig(name=name, backbone_weights=weights)


@pytest.mark.parametrize("name", YOLOX_NAMES)
def test_every_name_builds_and_predicts_in_shape(name: str) -> None:
    with torch.device("meta"):
        detector = build_detector(config(name), 7)
        output = detector(torch.empty(2, 3, 64, 96))
    num_anchors = 8 * 12 + 4 * 6 + 2 * 3
    assert output.class_logits_BAC.shape == (2, num_anchors, 7)
    assert output.objectness_logits_BA.shape == (2, num_anchors)
    assert output.boxes_BA4.shape == (2, num_anchors, 4)
    assert output.points_A2.shape == (num_anchors, 2)
    assert output.strides_A.shape == (num_anchors,)


@pytest.mark.parametrize(("name", "millions"), PUBLISHED_PARAMETERS.items())
def test_parameter_counts_are_the_published_ones(name: str, millions: float) -> None:
    with torch.device("meta"):
        detector = build_detector(config(name), 80)
    count = sum(parameter.numel() for parameter in detector.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.05 if millions > 1 else 0.005)


def test_bytes_and_floats_are_the_same_image() -> None:
    detector = lively_detector()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert_same_output(detector(images), detector(images.float()))


def test_pixels_are_normalized_inside() -> None:
    detector = lively_detector()
    mean = torch.tensor(PIXEL_MEAN).view(3, 1, 1)
    std = torch.tensor(PIXEL_STD).view(3, 1, 1)
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        expected = detector.head(detector.neck(detector.backbone((images - mean) / std)))
        assert torch.equal(detector(images).class_logits_BAC, expected.class_logits_BAC)
        assert not torch.equal(detector(images / 255).class_logits_BAC, expected.class_logits_BAC)


@pytest.mark.parametrize(
    ("name", "weights", "pretrained"),
    [
        ("resnet18", "auto", True),
        ("resnet18", "imagenet", True),
        ("resnet18", "none", False),
        ("yolox-s", "auto", False),
        ("yolox-s", "file.pth", True),
    ],
)
def test_which_backbones_start_from_given_weights(name: str, weights: str, pretrained: bool) -> None:
    assert config(name, weights).pretrained is pretrained


def test_pretrained_resnet_freezes_its_first_layers_and_all_statistics() -> None:
    detector = build_detector(config("resnet18", "imagenet"), 3).train()
    frozen = {name for name, parameter in detector.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        name for name, _ in detector.named_parameters() if name.startswith(("backbone.stem.", "backbone.layer1."))
    }
    assert frozen
    before = {name: buffer.clone() for name, buffer in detector.backbone.named_buffers()}
    neck_before = {name: buffer.clone() for name, buffer in detector.neck.named_buffers()}
    detector(torch.rand(2, 3, 64, 64) * 255).class_logits_BAC.sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in detector.backbone.named_buffers())
    assert any(not torch.equal(buffer, neck_before[name]) for name, buffer in detector.neck.named_buffers())
    layer2 = [parameter.grad for name, parameter in detector.named_parameters() if name.startswith("backbone.layer2.")]
    assert layer2 and all(grad is not None for grad in layer2)


def test_a_pretrained_resnet_gives_equal_features_in_both_modes() -> None:
    backbone = build_detector(config("resnet18", "imagenet"), 3).backbone
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        training, evaluation = backbone.train()(images), backbone.eval()(images)
    assert all(torch.equal(a, b) for a, b in zip(training, evaluation, strict=True))


def test_resnet_from_scratch_trains_everything() -> None:
    detector = build_detector(config("resnet18"), 3).train()
    assert all(parameter.requires_grad for parameter in detector.parameters())
    assert all(module.training for module in detector.modules() if isinstance(module, nn.BatchNorm2d))


def test_batch_normalization_of_neck_and_head_has_the_published_settings() -> None:
    detector = build_detector(config("resnet18"), 3)
    for part in (detector.neck, detector.head):
        norms = [module for module in part.modules() if isinstance(module, nn.BatchNorm2d)]
        assert norms and {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.03)}
    assert {conv.out_channels for conv in detector.head.modules() if isinstance(conv, nn.Conv2d)} == {128, 3, 4, 1}
