"""The path-aggregation neck of YOLOX: features flow top-down, then bottom-up, fused by CSP layers."""

from __future__ import annotations

from torch import Tensor, cat, nn
from torch.nn.functional import interpolate

from ciod_core.model.common.backbones import Pyramid
from ciod_core.model.common.blocks import ConvBlock, CspLayer, spatial_conv


class Pafpn(nn.Module):
    """Path-aggregation feature pyramid; takes and gives (C3, C4, C5) with the channels it was built for."""

    def __init__(self, channels: tuple[int, int, int], *, num_blocks: int, depthwise: bool) -> None:
        super().__init__()
        c3, c4, c5 = channels

        def csp(in_channels: int, out_channels: int) -> CspLayer:
            return CspLayer(in_channels, out_channels, num_blocks, shortcut=False, depthwise=depthwise)

        self.lateral5 = ConvBlock(c5, c4, 1)
        self.top_down4 = csp(2 * c4, c4)
        self.lateral4 = ConvBlock(c4, c3, 1)
        self.top_down3 = csp(2 * c3, c3)
        self.downsample3 = spatial_conv(c3, c3, stride=2, depthwise=depthwise)
        self.bottom_up4 = csp(2 * c3, c4)
        self.downsample4 = spatial_conv(c4, c4, stride=2, depthwise=depthwise)
        self.bottom_up5 = csp(2 * c4, c5)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        c3, c4, c5 = pyramid
        lateral5 = self.lateral5(c5)
        p4 = self.top_down4(cat((_upsample(lateral5), c4), dim=1))
        lateral4 = self.lateral4(p4)
        out3 = self.top_down3(cat((_upsample(lateral4), c3), dim=1))
        out4 = self.bottom_up4(cat((self.downsample3(out3), lateral4), dim=1))
        out5 = self.bottom_up5(cat((self.downsample4(out4), lateral5), dim=1))
        return out3, out4, out5


def _upsample(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2.0, mode="nearest")
