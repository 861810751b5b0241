"""A detector of backbone, neck and heads on one pyramid: it grows by class rows and by branches, and freezes parts.

Legend: B images, H, W pixels.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from ciod_core.config.schema import TrainingConfig
from ciod_core.model.base import BranchDepth, Detector
from ciod_core.model.common.backbones import Backbone
from ciod_core.model.common.point_predictions import PointPredictions, concatenate_heads, pad_classes

# ImageNet statistics in the 0–255 range the detector is fed with.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class Head(nn.Module):
    """What predicts at every anchor point of a pyramid."""

    @abstractmethod
    def forward(self, pyramid: tuple[Tensor, ...], *, features: bool = False) -> PointPredictions:
        """Predict from the neck's maps; with `features`, keep what the predictions were made from."""

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """How many classes it names."""

    @abstractmethod
    def add_classes(self, count: int) -> None:
        """Append class rows; rows already there keep their weights."""

    @abstractmethod
    def branch(self, num_classes: int) -> Self:
        """A copy for other classes: all starts as here, but for class rows, which are fresh."""


HeadT = TypeVar("HeadT", bound=Head)


class BranchedDetector(Detector, Generic[HeadT]):
    """Normalization, backbone, neck, head and branches; frozen parts keep their weights and statistics.

    A family adds assignment and losses.
    """

    size_multiple = 32
    backbone: Backbone
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: Backbone, neck: nn.Module, head: HeadT) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.branches = nn.ModuleList()
        # Necks of the branches that have one of their own, by the branch's place among `heads`.
        self.branch_necks = nn.ModuleDict()
        self._frozen: tuple[nn.Module, ...] = ()
        # What learned before it was frozen; a backbone may have layers that never learn.
        self._halted: list[nn.Parameter] = []
        self._keeps_statistics = False
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1))

    def forward(self, images_B3HW: Tensor, *, features: bool = False) -> PointPredictions:
        """Predict for a batch; see `Detector.forward`."""
        normalized = (images_B3HW.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        levels = self.backbone(normalized)
        shared = None
        first_classes = accumulate(self.head_classes, initial=0)
        parts: list[PointPredictions] = []
        for place, (head, first_class) in enumerate(zip(self.heads, first_classes, strict=False)):
            if self.training and self._stands_still(head):
                continue
            neck = self._neck_of(place)
            if neck is self.neck:
                pyramid = shared = shared or neck(levels)
            else:
                pyramid = neck(levels)
            parts.append(pad_classes(head(pyramid, features=features), first_class, sum(self.head_classes)))
        return concatenate_heads(parts)

    def _neck_of(self, place: int) -> nn.Module:
        """The neck that the head at this place gets its features from."""
        key = str(place)
        return self.branch_necks[key] if key in self.branch_necks else self.neck  # noqa: SIM401 - it has no `get`

    def _stands_still(self, head: nn.Module) -> bool:
        """True for a head whose predictions training cannot change."""
        return head in self._frozen and self.backbone in self._frozen

    @property
    def heads(self) -> tuple[HeadT, ...]:
        """The head and its branches, oldest first."""
        return (self.head, *self.branches)

    @property
    def head_classes(self) -> tuple[int, ...]:
        """Number of classes of each head."""
        return tuple(head.num_classes for head in self.heads)

    @property
    def branch_depths(self) -> tuple[BranchDepth, ...]:
        """Depth of each branch."""
        places = range(1, len(self.heads))
        return tuple("neck" if str(place) in self.branch_necks else "head" for place in places)

    def add_classes(self, count: int) -> None:
        """Append `count` classes to the last head."""
        if count:
            self.heads[-1].add_classes(count)

    def add_branch(self, num_classes: int, depth: BranchDepth = "head", *, freeze_trunk: bool = True) -> None:
        """Append a copy of the last head, or of its neck and itself; see `Detector.add_branch`."""
        place = len(self.heads)
        branch = self.heads[-1].branch(num_classes)
        last_neck = self._neck_of(place - 1)
        trunk = (self.backbone, self.neck, *self.branch_necks.values()) if freeze_trunk else ()
        self._frozen = (*trunk, *self.heads)
        learning = [parameter for part in self._frozen for parameter in part.parameters() if parameter.requires_grad]
        for parameter in learning:
            parameter.requires_grad_(False)
        self._halted += learning
        self.branches.append(branch.requires_grad_(True))
        if depth == "neck":
            self.branch_necks[str(place)] = copy.deepcopy(last_neck).requires_grad_(True)
        self.train(self.training)

    def drop_branches(self) -> None:
        """Keep backbone, neck and head alone."""
        self.unfreeze()
        self.branches, self.branch_necks = nn.ModuleList(), nn.ModuleDict()

    def restart_classes(self, num_classes: int) -> None:
        """Predict other classes with fresh class rows, without branches."""
        self.drop_branches()
        self.head = self.head.branch(num_classes)

    def unfreeze(self) -> None:
        """Let every part learn again that learned before it was frozen."""
        for parameter in self._halted:
            parameter.requires_grad_(True)
        self._frozen, self._halted = (), []
        self.train(self.training)

    def configure(self, training: TrainingConfig) -> None:
        """Freeze the first stages of the backbone."""
        if training.frozen_stages is not None:
            self.backbone.freeze_stages(training.frozen_stages)

    def keep_statistics(self) -> None:
        """Normalize by the current batch statistics from now on; scale and shift still learn."""
        self._keeps_statistics = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self._frozen:
            part.eval()
        if self._keeps_statistics:
            for part in self.modules():
                if isinstance(part, (nn.BatchNorm2d, nn.SyncBatchNorm)):
                    part.eval()
        return self

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the heads and of the branches' own necks, by name."""
        trunk = {id(parameter) for part in (self.backbone, self.neck) for parameter in part.parameters()}
        return {name: parameter for name, parameter in self.named_parameters() if id(parameter) not in trunk}


BranchedDetectorT = TypeVar("BranchedDetectorT", bound=BranchedDetector[Any])


def with_branches(detector: BranchedDetectorT, branches: Iterable[tuple[int, BranchDepth]]) -> BranchedDetectorT:
    """The detector with branches of these classes and depths, oldest first; nothing is frozen for them."""
    for count, depth in branches:
        detector.add_branch(count, depth)
    detector.unfreeze()
    return detector
