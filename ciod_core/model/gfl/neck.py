"""The feature pyramid of GFL (arXiv 1612.03144): top-down, and two further levels by strided convolutions."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate

from ciod_core.model.common.backbones import Pyramid


class Fpn(nn.Module):
    """Takes C3, C4, C5 and gives P3 to P7 of equal channels; P6 and P7 are made from the level before them."""

    def __init__(self, in_channels: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(level, channels, 1) for level in in_channels)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.further = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(2))
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                assert part.bias is not None
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)

    def forward(self, pyramid: Pyramid) -> tuple[Tensor, ...]:
        p3, p4, p5 = (lateral(level) for lateral, level in zip(self.laterals, pyramid, strict=True))
        p4 = p4 + interpolate(p5, scale_factor=2.0, mode="nearest")
        p3 = p3 + interpolate(p4, scale_factor=2.0, mode="nearest")
        levels = [output(level) for output, level in zip(self.outputs, (p3, p4, p5), strict=True)]
        for strided in self.further:
            levels.append(strided(levels[-1]))
        return tuple(levels)
