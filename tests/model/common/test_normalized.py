"""A convolution with fixed statistics: the function and the gradients that batch normalization behind it has."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from ciod_core.model.common.backbones import ResNet
from ciod_core.model.common.blocks import ConvBlock
from ciod_core.model.common.normalized import NormalizedConv, normalized

SHAPES = {
    "pointwise": nn.Conv2d(6, 8, 1, bias=False),
    "strided": nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
    "depthwise": nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
    "dilated": nn.Conv2d(6, 4, 3, padding=2, dilation=2, bias=False),
}


def pair(name: str) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution and its normalization, with statistics and parameters unlike the initial ones, in float64."""
    torch.manual_seed(0)
    convolution = copy.deepcopy(SHAPES[name])
    norm = nn.BatchNorm2d(convolution.out_channels, eps=1e-3)
    for tensor in (norm.weight, norm.running_var):
        assert tensor is not None
        nn.init.uniform_(tensor, 0.5, 2.0)
    for tensor in (norm.bias, norm.running_mean):
        assert tensor is not None
        nn.init.normal_(tensor)
    return convolution.double(), norm.double()


def gradients(y: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return torch.autograd.grad((y * direction).sum(), of)


@pytest.mark.parametrize("name", SHAPES)
def test_values_and_gradients_are_those_of_normalization(name: str) -> None:
    convolution, norm = pair(name)
    norm.eval()
    x = torch.randn(2, 6, 9, 7, dtype=torch.float64, requires_grad=True)
    learned = (x, convolution.weight, norm.weight, norm.bias)
    expected, found = norm(convolution(x)), normalized(convolution, norm, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients(found, *learned), gradients(expected, *learned), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", SHAPES)
def test_batch_statistics_are_taken_as_ever(name: str) -> None:
    convolution, norm = pair(name)
    x = torch.randn(2, 6, 9, 7, dtype=torch.float64)
    twin = copy.deepcopy(norm)
    assert torch.equal(normalized(convolution, norm, x), twin(convolution(x)))
    assert norm.running_mean is not None and twin.running_mean is not None
    assert torch.equal(norm.running_mean, twin.running_mean)


def test_no_map_is_kept_for_the_normalization() -> None:
    block = ConvBlock(6, 8, 3).eval()
    x = torch.randn(2, 6, 9, 7)
    kept: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, keep):
        block(x)
    # The convolution's input, and SiLU's.
    assert sorted(shape for shape in kept if shape[2:] == (9, 7)) == [(2, 6, 9, 7), (2, 8, 9, 7)]


def test_a_frozen_network_has_nothing_behind_its_convolutions() -> None:
    convolution, _ = pair("strided")
    x = torch.randn(2, 6, 9, 7, dtype=torch.float64)
    assert torch.equal(NormalizedConv(convolution, nn.Identity(), nn.ReLU())(x), convolution(x).relu())


@pytest.mark.parametrize(("depth", "reference"), [(18, resnet18), (50, resnet50)])
@pytest.mark.parametrize("training", [True, False])
def test_resnet_is_that_of_torchvision(depth: int, reference: type[nn.Module], training: bool) -> None:
    torch.manual_seed(0)
    ours = ResNet(depth, pretrained=False).train(training)  # type: ignore[arg-type]
    torch.manual_seed(0)
    theirs = reference().train(training)
    x = torch.randn(2, 3, 64, 64)
    levels = [theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))]
    for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
        levels.append(layer(levels[-1]))
    for found, expected in zip(ours(x), levels[2:], strict=True):
        torch.testing.assert_close(found, expected, rtol=0 if training else 1e-4, atol=0 if training else 1e-4)
