"""Convolutions and the batch normalization behind them, as one convolution where the statistics are fixed.

`folding.py` does the same once and for all, to a network that no longer learns.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import conv2d


def normalized(convolution: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """What a batch normalization makes of a convolution's output.

    With fixed statistics normalization is a scale and a shift for each channel. Both become part of the convolution, so
    that no map is written, kept for the backward pass and read again for them; weight, scale and shift learn as before,
    up to rounding.

    Args:
        convolution: without a bias, if its normalization is to become part of it.
        norm: batch normalization; anything else, like the identity that a frozen network has here, is applied as it is.
        x: (B, in, H, W).
    """
    if not isinstance(norm, nn.BatchNorm2d) or not isinstance(convolution, nn.Conv2d) or norm.training:
        y: Tensor = norm(convolution(x))
        return y
    assert convolution.bias is None and norm.running_mean is not None and norm.running_var is not None
    scale_O = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift_O = norm.bias.addcmul(norm.running_mean, scale_O, value=-1)
    return conv2d(
        x,
        convolution.weight * scale_O[:, None, None, None],
        shift_O,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        convolution.groups,
    )


class NormalizedConv(nn.Sequential):
    """A convolution, its batch normalization, and further layers."""

    def forward(self, x: Tensor) -> Tensor:
        convolution, norm, *others = self
        x = normalized(convolution, norm, x)
        for layer in others:
            x = layer(x)
        return x
