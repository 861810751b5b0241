"""What a detector costs: parameters to store, operations for an image."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def num_parameters(network: nn.Module) -> int:
    """Trained or frozen."""
    return sum(parameter.numel() for parameter in network.parameters())


def num_operations(network: nn.Module, image_size: int) -> int:
    """Multiplications and additions of the convolutions and matrix products for one image; nothing is computed.

    Args:
        network: takes images of shape (B, 3, height, width); stays as it is.
        image_size: side of a square image in pixels.
    """
    # Tensors of the meta device have shapes and no values.
    shapes = deepcopy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(torch.zeros(1, 3, image_size, image_size, device="meta"))
    return counter.get_total_flops()
