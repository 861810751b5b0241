"""A frozen network without batch normalization: what that computes becomes part of the convolution before it.

`normalized.py` does the same anew in every forward pass, for a network that learns.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(network: nn.Module) -> None:
    """Fold every batch normalization into the convolution that its module lists directly before it, in place.

    The network answers as before, up to rounding, and a tenth faster; it can no longer be trained, and its weights no
    longer fit a checkpoint. Our modules, and those of torchvision's ResNet, list the two in the order of their use.

    Args:
        network: in evaluation mode, where batch normalization is a fixed scale and shift.
    """
    assert not network.training
    for module in list(network.modules()):
        for (name, convolution), (next_name, following) in pairwise(list(module.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(convolution, following))
                setattr(module, next_name, nn.Identity())
