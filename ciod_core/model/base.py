"""The contract of a detector family: what a detector predicts, how it is trained, and how it grows.

A family is a folder beside this file and a line in `ciod_core.model.registry`. Methods, teachers, evaluation and export
use these types alone.

Legend: B images, A anchor points (or queries), C classes, F channels, H, W cells, N objects of a batch, P positives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ciod_core.config.schema import TrainingConfig
from ciod_core.model.common.boxes import iou
from ciod_core.model.common.nms import ImageDetections, detections_after_nms, join_heads

# The logit of a class that an anchor point has no output for: a probability of exactly 0, and finite, so that
# differences and cross-entropies with it are 0 and not NaN.
ABSENT_LOGIT = -1e4

# The response with the logits of `Predictions.objectness`, in families that predict it apart from the classes.
PRESENCE = "objectness"

BranchDepth = Literal["head", "neck"]
"""Where a branch leaves the path that is there: behind the neck, or behind the backbone with a neck of its own."""

Losses = dict[str, Tensor]
"""Named scalar losses, weighted and normalized; their sum is minimized."""


class Features(NamedTuple):
    """Inputs of the predictions, for methods that compare them; in the precision they were computed in.

    Attributes:
        neck_maps: the neck's output, (B, F, H, W) per pyramid level, each with its own F.
        class_features_BAF: what the class logits are a linear function of: the end of the class tower.
    """

    neck_maps: tuple[Tensor, ...]
    class_features_BAF: Tensor


@dataclass(frozen=True, kw_only=True)
class Predictions(ABC):
    """Raw predictions for a batch. Each family adds its own fields and says how scores are made of them.

    Attributes:
        boxes_BA4: decoded boxes, xyxy, pixels of the input frame.
        class_logits_BAC: class logits; `ABSENT_LOGIT` where an anchor point cannot predict a class.
        num_heads: heads that predicted, each at its own share of the anchor points, oldest first.
        features: only where the caller requested them.
    """

    boxes_BA4: Tensor
    class_logits_BAC: Tensor
    num_heads: int = 1
    features: Features | None = None

    def objectness(self) -> Tensor:
        """(B, A) what class probabilities are multiplied by for scores: 1 in a family whose class probabilities are."""
        logits = self.responses().get(PRESENCE)
        return torch.ones_like(self.boxes_BA4[..., 0]) if logits is None else logits.sigmoid()

    def objectness_at(self, image_P: Tensor, anchor_P: Tensor) -> Tensor:
        """(P,) `objectness` of some anchor points."""
        logits = self.responses().get(PRESENCE)
        return self.boxes_BA4.new_ones(len(image_P)) if logits is None else logits[image_P, anchor_P].sigmoid()

    def presence(self) -> Tensor:
        """(B, A) probability that there is an object of any class: objectness, or without it the best score."""
        return self.objectness() if PRESENCE in self.responses() else self.scores().amax(dim=2)

    def scores(self) -> Tensor:
        """(B, A, C) detection scores, 0..1."""
        scores_BAC = self.class_logits_BAC.sigmoid()
        return scores_BAC * self.objectness().unsqueeze(-1) if PRESENCE in self.responses() else scores_BAC

    @abstractmethod
    def location_confidence(self) -> Tensor:
        """(B, A) how sure the detector is of each box, on any scale."""

    def location_error(self, teacher: Predictions, image_K: Tensor, anchor_K: Tensor) -> Tensor:
        """(K,) how far the boxes at some anchor points are from those of a teacher of the same family: 1 − IoU².

        A family that predicts more of a location than its box compares that.
        """
        return 1 - iou(self.boxes_BA4[image_K, anchor_K], teacher.boxes_BA4[image_K, anchor_K].detach()).square()

    def responses(self) -> dict[str, Tensor]:
        """Further logits that scores are made of beside the class logits, by name, (B, A) each; they are distilled."""
        return {}

    @abstractmethod
    def box_deltas(self, boxes_K4: Tensor, anchor_K: Tensor) -> Tensor:
        """(K, 4) what the family regresses for boxes at these anchor points, up to a constant of the anchor point."""

    @abstractmethod
    def heads(self) -> tuple[Predictions, ...]:
        """The predictions of each head, with the columns of all classes and without features."""

    @abstractmethod
    def merged(self) -> Predictions:
        """What a single head would predict: at every place what the head with the larger score predicts there.

        Its objectness is that head's, and so is its box. A class keeps its score as far as the objectness allows: its
        probability becomes score / objectness.
        """

    def class_logits_at(self, image_P: Tensor, anchor_P: Tensor) -> Tensor:
        """(P, C) class logits of some anchor points."""
        return rows_at(self.class_logits_BAC, image_P, anchor_P)


class Targets(NamedTuple):
    """Objects of a batch, flat; an image without objects has no row.

    Attributes:
        boxes_N4: boxes, xyxy, pixels of the input frame, float32.
        labels_N: labels, int64.
        image_N: index of the image within the batch, int64.
    """

    boxes_N4: Tensor
    labels_N: Tensor
    image_N: Tensor

    def to(self, device: torch.device) -> Targets:
        """The same targets on another device."""
        return Targets(*(field.to(device, non_blocking=True) for field in self))


class Assignment(NamedTuple):
    """The positive anchor points of a batch, ordered by image and anchor point.

    Attributes:
        image_P, anchor_P: where the positive is.
        object_P: index of its object in the targets.
        iou_P: IoU between the predicted box there and the object.
    """

    image_P: Tensor
    anchor_P: Tensor
    object_P: Tensor
    iou_P: Tensor

    def pick(self, mask_P: Tensor) -> Assignment:
        """The positives that a mask chooses."""
        # A GPU is waited for once, not by every field.
        chosen = mask_P.nonzero().squeeze(1)
        return Assignment(*(field[chosen] for field in self))


class Detector(nn.Module, ABC):
    """A detector that can grow: by classes of its last head, or by a branch, a further head.

    Attributes:
        size_multiple: input heights and widths are multiples of this many pixels.
        classifies_background: whether the class loss has a target at every anchor point, not only at positives.
        backbone: gets pretrained weights.
    """

    size_multiple: ClassVar[int]
    classifies_background: ClassVar[bool] = False
    backbone: nn.Module

    @abstractmethod
    def forward(self, images_B3HW: Tensor, *, features: bool = False) -> Predictions:
        """Predict for a batch.

        Args:
            images_B3HW: RGB in 0..255, uint8 or float; H and W are multiples of `size_multiple`.
            features: whether to keep the features that the predictions were made from.
        """

    @property
    @abstractmethod
    def head_classes(self) -> tuple[int, ...]:
        """Number of classes of each head; together, in this order, they are the detector's classes."""

    @property
    @abstractmethod
    def branch_depths(self) -> tuple[BranchDepth, ...]:
        """Depth of each branch, oldest first."""

    @abstractmethod
    def assign(self, predictions: Predictions, objects: Targets) -> Assignment:
        """Assign anchor points to objects; without gradient."""

    @abstractmethod
    def losses(
        self,
        predictions: Predictions,
        objects: Targets,
        assignment: Assignment,
        *,
        chosen_P: Tensor | None = None,
        first_class: int = 0,
        ignored_BA: Tensor | None = None,
        presence_P: Tensor | None = None,
        background: Predictions | None = None,
        background_mask_BA: Tensor | None = None,
    ) -> Losses:
        """The family's own losses, each divided by its number of positives: `class`, `box`, and what else it has.

        Args:
            predictions: of the batch.
            objects: what the anchor points were assigned to.
            assignment: from `assign`.
            chosen_P: mask of the positives that learn class and box; None: all.
            first_class: the class loss leaves out the classes before this one.
            ignored_BA: mask of anchor points that are not background, even if they are no positives.
            presence_P: target presence of the positives; None: 1.
            background: what there is at all other anchor points, as a teacher of the first classes predicts it; None:
                nothing. A family without objectness takes the scores of these classes for targets.
            background_mask_BA: where `background` is right, elsewhere there is nothing; None: everywhere.
        """

    @abstractmethod
    def class_loss(self, logits_PC: Tensor, targets_PD: Tensor) -> Tensor:
        """(P,) the class loss of positives, summed over classes; those behind the last target have target 0.

        With `location_loss`, in the form and size of `losses`: what a teacher adds then counts as much as labels do.

        Args:
            logits_PC: of the positives.
            targets_PD: 0..1.
        """

    @abstractmethod
    def location_loss(self, boxes_P4: Tensor, targets_P4: Tensor) -> Tensor:
        """(P,) the loss of the positives' boxes, xyxy."""

    def detect(
        self,
        predictions: Predictions,
        *,
        score_threshold: float,
        nms_iou: float,
        max_detections: int,
        yield_iou: float = 1.0,
        multi_label: bool = True,
    ) -> list[ImageDetections]:
        """Final detections of each image, best first.

        Args:
            predictions: of the batch.
            score_threshold: lowest score.
            nms_iou: IoU with a better detection of the same class above which one is dropped.
            max_detections: detections per image and head: a branch takes no place away from older classes.
            yield_iou: IoU with a better detection of an older head above which a branch's is dropped; 1 keeps all.
            multi_label: whether an anchor point may give detections of several classes, or of its best one alone.
        """
        heads = [
            detections_after_nms(
                head.boxes_BA4,
                head.scores(),
                score_threshold=score_threshold,
                nms_iou=nms_iou,
                max_detections=max_detections,
                multi_label=multi_label,
            )
            for head in predictions.heads()
        ]
        return [join_heads(of_image, yield_iou) for of_image in zip(*heads, strict=True)]

    @abstractmethod
    def add_classes(self, count: int) -> None:
        """Append `count` classes, possibly 0, to the last head; learned weights stay."""

    @abstractmethod
    def add_branch(self, num_classes: int, depth: BranchDepth = "head", *, freeze_trunk: bool = True) -> None:
        """Append a branch for further classes, a copy of the last one with fresh class rows, and freeze the others.

        Args:
            num_classes: the classes that it predicts.
            depth: `head` copies the last head, `neck` its neck, too.
            freeze_trunk: whether backbone and necks are frozen as well; then what is there predicts bit for bit as
                before, and in evaluation only, because training can learn nothing from it.
        """

    @abstractmethod
    def drop_branches(self) -> None:
        """Keep the oldest path alone, all of it learning again."""

    @abstractmethod
    def restart_classes(self, num_classes: int) -> None:
        """Predict other classes: backbone, neck and towers stay, class rows are fresh, and there are no branches."""

    @abstractmethod
    def configure(self, training: TrainingConfig) -> None:
        """Take over what settings say of training: which stages learn, what an object may take; before it grows."""

    @abstractmethod
    def keep_statistics(self) -> None:
        """Normalize by the current batch statistics from now on, in training too."""

    @abstractmethod
    def head_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the heads, by name: of everything but backbone and neck, the trunk."""


def rows_at(x_BAF: Tensor, image_P: Tensor, anchor_P: Tensor) -> Tensor:
    """Rows of some anchor points, (P, F) or (P,): like indexing with both, but several times as fast for long rows."""
    return x_BAF.flatten(0, 1).index_select(0, image_P * x_BAF.shape[1] + anchor_P)
