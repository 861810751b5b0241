"""Knowledge: a teacher's predictions that the student learns from, of a batch or of a single image.

Legend: K kept boxes, flat over the images, C old classes, N objects of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ciod_core.model.base import PRESENCE, Predictions, Targets
from ciod_core.model.common.boxes import pairwise_iou

# How near to 0 and 1 a probability may come when it is split anew: a logit is finite, and no detector is as sure.
CLAMP = 1e-4


@dataclass(frozen=True)
class Knowledge:
    """Kept teacher boxes of a batch; an image may have none. For a single image, `image_K` is 0.

    Attributes:
        boxes_K4: boxes, xyxy, pixels of the input frame.
        labels_K: the teacher's best class of each, int64.
        scores_K: the score of that class, 0..1.
        class_logits_KC: class logits over the old classes.
        responses: further logits by name, (K, ...) each: the `responses` of the teacher's family.
        image_K: index of the image within the batch, int64, ascending.
        anchor_K: index of the anchor point that predicted the box, int64; −1 where it is not of this input.
        dense: the teacher's predictions at all anchor points, where the teacher provides them.
    """

    boxes_K4: Tensor
    labels_K: Tensor
    scores_K: Tensor
    class_logits_KC: Tensor
    responses: dict[str, Tensor]
    image_K: Tensor
    anchor_K: Tensor
    dense: Predictions | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.labels_K)

    @property
    def num_classes(self) -> int:
        """Number of old classes."""
        return self.class_logits_KC.shape[1]

    @classmethod
    def empty(cls, num_classes: int, responses: Sequence[str] = (PRESENCE,)) -> Knowledge:
        """The knowledge of an image in which the teacher detects nothing."""
        none = torch.zeros(0, dtype=torch.int64)
        return cls(
            boxes_K4=torch.zeros(0, 4),
            labels_K=none,
            scores_K=torch.zeros(0),
            class_logits_KC=torch.zeros(0, num_classes),
            responses={name: torch.zeros(0) for name in responses},
            image_K=none,
            anchor_K=none,
        )

    @classmethod
    def of_batch(cls, images: Sequence[Knowledge]) -> Knowledge:
        """The knowledge of a batch from that of its images, one per image and in their order."""
        joined = cls._concatenate(images)
        counts_B = torch.tensor([len(entry) for entry in images])
        return replace(joined, image_K=torch.repeat_interleave(torch.arange(len(images)), counts_B))

    @classmethod
    def _concatenate(cls, parts: Sequence[Knowledge]) -> Knowledge:
        return cls(
            boxes_K4=torch.cat([part.boxes_K4 for part in parts]),
            labels_K=torch.cat([part.labels_K for part in parts]),
            scores_K=torch.cat([part.scores_K for part in parts]),
            class_logits_KC=torch.cat([part.class_logits_KC for part in parts]),
            responses={name: torch.cat([part.responses[name] for part in parts]) for name in parts[0].responses},
            image_K=torch.cat([part.image_K for part in parts]),
            anchor_K=torch.cat([part.anchor_K for part in parts]),
        )

    def to(self, device: torch.device) -> Knowledge:
        """The same knowledge on another device; `dense` is where it was computed."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pick(self, chosen: Tensor) -> Knowledge:
        """The boxes that a boolean mask or an index tensor chooses."""
        # A GPU is waited for once, not by every field.
        index = chosen.nonzero().squeeze(1) if chosen.dtype == torch.bool else chosen
        return self._map(lambda tensor: tensor[index])

    def of_image(self, index: int) -> Knowledge:
        """The knowledge of one image of the batch."""
        kept = self.pick(self.image_K == index)
        return replace(kept, image_K=torch.zeros_like(kept.image_K), dense=None)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Knowledge:
        return Knowledge(
            boxes_K4=change(self.boxes_K4),
            labels_K=change(self.labels_K),
            scores_K=change(self.scores_K),
            class_logits_KC=change(self.class_logits_KC),
            responses={name: change(logits) for name, logits in self.responses.items()},
            image_K=change(self.image_K),
            anchor_K=change(self.anchor_K),
            dense=self.dense,
        )

    def presence_of(self, chosen: Tensor | slice) -> Tensor:
        """Probability that there is an object of any class; the score where a family predicts none.

        Args:
            chosen: mask, indices or slice of boxes.
        """
        logits = self.responses.get(PRESENCE)
        return self.scores_K[chosen] if logits is None else logits[chosen].sigmoid()

    def in_terms_of(self, student: Predictions) -> Knowledge:
        """The same scores with a student's split of them: into class and objectness, or as class alone.

        Without objectness, a teacher's best score of a box stands for it, as it does in boxes that list their scores.
        """
        split, wanted = PRESENCE in self.responses, PRESENCE in student.responses()
        if split == wanted:
            return self
        class_KC = self.class_logits_KC.sigmoid()
        if split:
            scores_KC = class_KC * self.presence_of(slice(None)).unsqueeze(1)
            others = {name: logits for name, logits in self.responses.items() if name != PRESENCE}
            return replace(self, class_logits_KC=_logit(scores_KC), responses=others)
        best_K1 = class_KC.amax(dim=1, keepdim=True)
        objectness = {PRESENCE: _logit(best_K1.squeeze(1))}
        return replace(self, class_logits_KC=_logit(class_KC / best_K1), responses=self.responses | objectness)

    def before(self, objects: Targets) -> Targets:
        """The kept boxes put before the ground truth, so that object k < len(self) is knowledge entry k."""
        return Targets(
            boxes_N4=torch.cat((self.boxes_K4, objects.boxes_N4)),
            labels_N=torch.cat((self.labels_K, objects.labels_N)),
            image_N=torch.cat((self.image_K, objects.image_N)),
        )

    def without_overlap(self, objects: Targets, iou_threshold: float, *, keep_same_class: bool = False) -> Knowledge:
        """Drop boxes whose IoU with a ground-truth box of their image reaches the threshold.

        A teacher labels unknown objects with the classes it knows; where the ground truth of the new classes covers
        an object, the teacher's box for it is wrong (CL-DETR's calibration, arXiv 2304.03110).

        Args:
            objects: ground truth; with replay some of it is of old classes.
            iou_threshold: IoU from which a box is dropped; 1 and above keep all.
            keep_same_class: keep boxes whose class is that of the ground truth.
        """
        if iou_threshold >= 1:
            return self
        iou_KN = pairwise_iou(self.boxes_K4, objects.boxes_N4)
        same_image_KN = self.image_K.unsqueeze(1) == objects.image_N
        covered_KN = (iou_KN >= iou_threshold) & same_image_KN
        if keep_same_class:
            covered_KN &= self.labels_K.unsqueeze(1) != objects.labels_N
        return self.pick(~covered_KN.any(dim=1))


def _logit(probability: Tensor) -> Tensor:
    return torch.logit(probability, eps=CLAMP)
