"""Knowledge: the teacher's answers that are worth teaching, whatever produced them: of a batch, and of a single image.

Legend: K kept answers of the whole batch (flat), C old classes, N objects of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ciod_core.arrays import Float32Array, Int64Array
from ciod_core.model.boxes import pairwise_iou
from ciod_core.model.output import Targets


@dataclass(frozen=True)
class Knowledge:
    """Kept teacher answers of a batch; an image may own none.

    Attributes:
        boxes_K4: boxes, xyxy, pixels of the input frame.
        labels_K: the teacher's best class of each, int64.
        class_logits_KC: class logits over the old classes.
        obj_logits_K: objectness logits.
        scores_K: class score × objectness, 0..1.
        image_K: index of the image within the batch, int64, ascending.
        anchor_K: index of the anchor point that gave the answer, int64; −1 where none of this input did.
    """

    boxes_K4: Tensor
    labels_K: Tensor
    class_logits_KC: Tensor
    obj_logits_K: Tensor
    scores_K: Tensor
    image_K: Tensor
    anchor_K: Tensor

    def __len__(self) -> int:
        return len(self.labels_K)

    def to(self, device: torch.device) -> Knowledge:
        """The same knowledge on another device."""
        return Knowledge(**{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()})

    def pick(self, chosen: Tensor) -> Knowledge:
        """The entries that a boolean mask or an index tensor names."""
        return Knowledge(**{name: tensor[chosen] for name, tensor in vars(self).items()})

    def before(self, targets: Targets) -> Targets:
        """The kept boxes put before the ground truth, so that object k < len(self) is knowledge entry k."""
        return Targets(
            boxes_N4=torch.cat((self.boxes_K4, targets.boxes_N4)),
            labels_N=torch.cat((self.labels_K, targets.labels_N)),
            image_N=torch.cat((self.image_K, targets.image_N)),
        )

    def without_overlap(self, targets: Targets, iou_threshold: float, *, spare_agreeing: bool = False) -> Knowledge:
        """Drop answers whose IoU with a ground-truth box of their image reaches the threshold.

        A teacher calls objects it does not know by the names it knows; where the ground truth of the new classes
        says what an object is, the teacher's answer for it is wrong (CL-DETR's calibration, arXiv 2304.03110).

        Args:
            targets: ground truth; with replay some of it names old classes.
            iou_threshold: from which IoU an answer is dropped.
            spare_agreeing: keep the answers that name the class of the ground truth.
        """
        iou_KN = pairwise_iou(self.boxes_K4, targets.boxes_N4)
        same_image_KN = self.image_K.unsqueeze(1) == targets.image_N
        covered_KN = (iou_KN >= iou_threshold) & same_image_KN
        if spare_agreeing:
            covered_KN &= self.labels_K.unsqueeze(1) != targets.labels_N
        return self.pick(~covered_KN.any(dim=1))


@dataclass(frozen=True)
class ImageKnowledge:
    """The kept answers for one image, in arrays: as a bank keeps them and as they are moved with the image.

    Attributes:
        boxes_K4: boxes, xyxy, pixels of the source image.
        labels_K: the teacher's best class of each.
        class_logits_KC: class logits over the old classes.
        obj_logits_K: objectness logits.
        scores_K: class score × objectness, 0..1.
    """

    boxes_K4: Float32Array
    labels_K: Int64Array
    class_logits_KC: Float32Array
    obj_logits_K: Float32Array
    scores_K: Float32Array

    def __len__(self) -> int:
        return len(self.labels_K)

    def pick(self, chosen: npt.NDArray[Any]) -> ImageKnowledge:
        """The entries that a boolean mask or an index array names."""
        return ImageKnowledge(**{name: array[chosen] for name, array in vars(self).items()})


def joined(parts: Sequence[ImageKnowledge]) -> ImageKnowledge:
    """The answers of several images, one after the other."""
    return ImageKnowledge(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def no_answers(num_classes: int) -> ImageKnowledge:
    """What is known of an image in which the teacher sees nothing."""
    return ImageKnowledge(
        boxes_K4=np.zeros((0, 4), np.float32),
        labels_K=np.zeros(0, np.int64),
        class_logits_KC=np.zeros((0, num_classes), np.float32),
        obj_logits_K=np.zeros(0, np.float32),
        scores_K=np.zeros(0, np.float32),
    )


def batched(images: Sequence[ImageKnowledge]) -> Knowledge | None:
    """The knowledge of a batch from that of all its images; None where there is none of any."""
    if not images:
        return None
    together = joined(images)
    return Knowledge(
        boxes_K4=torch.from_numpy(together.boxes_K4),
        labels_K=torch.from_numpy(together.labels_K),
        class_logits_KC=torch.from_numpy(together.class_logits_KC),
        obj_logits_K=torch.from_numpy(together.obj_logits_K),
        scores_K=torch.from_numpy(together.scores_K),
        image_K=torch.from_numpy(np.repeat(np.arange(len(images)), [len(entry) for entry in images])),
        anchor_K=torch.full((len(together),), -1),
    )
