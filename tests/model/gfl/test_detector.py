"""GFL by name: sizes, the pyramid, and that it learns."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from ciod_core.config.schema import ModelConfig
from ciod_core.methods.base import supervised
from ciod_core.model.gfl.head import PRIOR_STD, GflHead
from ciod_core.model.gfl.neck import Fpn
from ciod_core.model.registry import build_detector
from tests.helpers.scenes import make_targets


def config(name: str, weights: str = "none") -> ModelConfig:
    return ModelConfig(name=name, backbone_weights=weights)


@pytest.mark.parametrize(("name", "convolutions"), [("gfl-r50", 4), ("gfl-r18", 4), ("gfl-micro", 2)])
def test_heads_have_the_published_layers(name: str, convolutions: int) -> None:
    with torch.device("meta"):
        head = build_detector(config(name), 80).heads[0]
    assert isinstance(head, GflHead)
    for tower in (head.class_tower, head.edge_tower):
        assert [[type(part) for part in block] for block in tower] == [
            [nn.Conv2d, nn.GroupNorm, nn.ReLU]
        ] * convolutions
    assert head.class_conv.weight.shape[:1] + head.edge_conv.weight.shape[:1] == (80, 4 * 17)
    assert head.scales.shape == (5,)


def test_the_size_of_the_published_detector() -> None:
    """ResNet-50 without its classifier has 23.5 million parameters; pyramid and head are counted by hand."""
    with torch.device("meta"):
        detector = build_detector(config("gfl-r50"), 80)
    pyramid = (512 + 1024 + 2048) * 256 + 3 * 256 + 5 * (256 * 256 * 9 + 256)
    towers = 8 * (256 * 256 * 9 + 2 * 256)
    outputs = (256 * 9 + 1) * (80 + 4 * 17) + 5
    assert sum(parameter.numel() for parameter in detector.parameters()) == 23_508_032 + pyramid + towers + outputs


def test_a_pretrained_resnet_freezes_its_first_layers_and_all_statistics() -> None:
    detector = build_detector(config("gfl-r18", "imagenet"), 3).train()
    frozen = {name for name, parameter in detector.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        name for name, _ in detector.named_parameters() if name.startswith(("backbone.stem.", "backbone.layer1."))
    }
    assert not any(part.training for part in detector.modules() if isinstance(part, nn.BatchNorm2d))


@pytest.mark.parametrize(("name", "pretrained"), [("gfl-micro", False), ("gfl-r18", True), ("gfl-r50", True)])
def test_a_resnet_starts_from_imagenet_unless_told_otherwise(name: str, pretrained: bool) -> None:
    assert config(name, "auto").pretrained is pretrained


def test_the_pyramid_is_torchvisions_with_two_further_levels() -> None:
    torch.manual_seed(0)
    ours = Fpn((8, 16, 32), 12)
    theirs = FeaturePyramidNetwork([8, 16, 32], 12)
    with torch.no_grad():
        for own, other in ((ours.laterals, theirs.inner_blocks), (ours.outputs, theirs.layer_blocks)):
            for part, twin in zip(own, other, strict=True):
                twin[0].load_state_dict(part.state_dict())
        levels = tuple(torch.randn(2, 8 * 2**level, 16 >> level, 24 >> level) for level in range(3))
        found = ours(levels)
        expected = theirs(OrderedDict(zip("345", levels, strict=True)))
    assert [tuple(level.shape[2:]) for level in found] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    for level, name in enumerate("345"):
        torch.testing.assert_close(found[level], expected[name])


def test_a_fresh_detector_starts_at_the_prior() -> None:
    torch.manual_seed(0)
    head = GflHead(256, 80, num_convs=4, num_groups=32)
    head.add_classes(3)
    assert head.num_classes == 83
    assert head.class_conv.bias is not None and head.class_conv.bias.sigmoid().tolist() == pytest.approx([0.01] * 83)
    for weight in (head.class_conv.weight[:80], head.class_conv.weight[80:], head.edge_conv.weight):
        assert weight.std().item() == pytest.approx(PRIOR_STD, rel=0.05)


def squares() -> tuple[Tensor, list[tuple[int, tuple[float, float, float, float], int]]]:
    """Four images with a red and a blue rectangle each."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 64, 64, generator=generator) * 60 + 90
    objects = []
    for image in range(4):
        for label in range(2):
            x, y = (int(value) for value in torch.randint(2, 14, (2,), generator=generator))
            left, top, width, height = x + 30 * label, y + 14 * (image % 2), 18 + image, 22 - image
            images[image, :, top : top + height, left : left + width] = 30.0
            images[image, 2 * label, top : top + height, left : left + width] = 230.0
            objects.append((image, (float(left), float(top), float(left + width), float(top + height)), label))
    return images, objects


def test_it_learns_a_handful_of_images() -> None:
    torch.manual_seed(0)
    detector = build_detector(config("gfl-micro"), 2).train()
    images, objects = squares()
    targets = make_targets(objects)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    for _ in range(60):
        losses = supervised(detector, detector(images), targets)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    detector.keep_statistics()
    with torch.no_grad():
        for part in detector.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None
                part.reset_running_stats()
                part.train()
        detector(images)
        found = detector.eval().detect(detector(images), score_threshold=0.3, nms_iou=0.6, max_detections=10)
    for image, detections in enumerate(found):
        assert sorted(detections.labels_D.tolist()) == [0, 1]
        for box, label in zip(detections.boxes_D4.tolist(), detections.labels_D.tolist(), strict=True):
            assert box == pytest.approx(objects[2 * image + label][1], abs=2.0)
