"""The cost of a network, counted by hand."""

from __future__ import annotations

import torch
from torch import nn

from ciod_core.model.common.cost import num_operations, num_parameters


def test_operations_of_a_strided_convolution_and_a_pointwise_one() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 5, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    # 16 x 16 outputs; a multiplication and an addition each.
    assert num_operations(network, 32) == 2 * 16 * 16 * (8 * 3 * 9 + 5 * 8)
    assert num_parameters(network) == (8 * 3 * 9 + 8) + 2 * 8 + (5 * 8 + 5)
    assert network.training and all(torch.equal(before[name], value) for name, value in network.state_dict().items())
