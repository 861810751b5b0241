"""Anchor points: the cells of a pyramid's maps, as places in the input.

Legend: B images, A anchor points, C channels, H, W cells.
"""

from __future__ import annotations

import torch
from torch import Tensor


def anchor_points(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Corner of every cell of an H×W map in input pixels, (H·W, 2) as (x, y); no half-stride offset."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack((x, y), dim=-1).reshape(-1, 2) * stride


def at_points(x_BCHW: Tensor) -> Tensor:
    """A map as rows of its anchor points: (B, H·W, C)."""
    return x_BCHW.flatten(2).transpose(1, 2)
