"""A detector of ciod as a teacher, and test-time augmentation: the average of its predictions for several views.

Legend: B images of a batch, K selected boxes (of the first view), M boxes of another view, P pairs, C old classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, zip_longest

import numpy as np
import torch
from torch import Tensor, nn

from ciod_core.classes import ClassTable
from ciod_core.config.schema import TrainingConfig
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.loading.dataset import Batch, DetectionDataset
from ciod_core.data.loading.loader import make_loader
from ciod_core.data.loading.transforms import EvalTransform
from ciod_core.methods.base import Method
from ciod_core.model.base import PRESENCE, Detector
from ciod_core.model.common.boxes import pairwise_iou
from ciod_core.model.common.folding import fold_batch_norm
from ciod_core.model.knowledge import Knowledge
from ciod_core.runtime.device import AUTOCAST_DTYPES, autocast, placed
from ciod_core.runtime.distributed import rank, world_size
from ciod_core.runtime.group import Everywhere
from ciod_core.teachers.base import TeacherIdentity
from ciod_core.teachers.boxes import clip_to_image

# Boxes of one class show the same object when they overlap by half, as evaluation has it.
SAME_OBJECT_IOU = 0.5
# What a process does before it hands over its results: long enough to be worth starting loading processes.
IMAGES_PER_CALL = 1000


class NetworkTeacher:
    """A frozen detector whose predictions a method selects from."""

    provides = frozenset({"selected", "dense", "features"})
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        detector: Detector,
        method: Method,
        identity: TeacherIdentity,
        images: LocatedTable,
        *,
        precision: str = "fp32",
        batch_size: int = 1,
        workers: int = 0,
    ) -> None:
        """Take a detector as it is.

        Args:
            detector: in evaluation mode, on the device where it is to run.
            method: selects, and needs dense predictions and features or not.
            identity: its `flip` and `scales` are the further views that `annotate` averages over.
            images: the images to give knowledge for.
            precision: that it computes in, as in `training.precision`.
            batch_size, workers: images per batch and loading processes of `annotate`.
        """
        self.detector = detector
        self.identity = identity
        self.images = images
        self._method = method
        self._precision = precision
        self._batch_size = batch_size
        self._workers = workers

    @classmethod
    def beside_student(
        cls,
        detector: Detector,
        method: Method,
        identity: TeacherIdentity,
        images: LocatedTable,
        *,
        device: torch.device,
        training: TrainingConfig,
    ) -> NetworkTeacher:
        """Freeze a detector, in place, that computes as the settings of a training say; see `__init__`."""
        frozen = freeze(
            detector,
            device,
            channels_last=training.channels_last,
            precision=training.precision,
            compiled=training.compile,
        )
        return cls(frozen, method, identity, images, precision=training.precision)

    @torch.no_grad()
    def answer(self, batch: Batch) -> Knowledge:
        """Knowledge for a batch, together with the dense predictions; see `Teacher`."""
        images = batch.images_B3HW
        with autocast(images.device, self._precision):
            predictions = self.detector(images, features="features" in self._method.needs)
        return replace(self._method.select(predictions), dense=predictions)

    def annotate(self, chosen: Sequence[int]) -> Iterator[Knowledge]:
        """Knowledge for each of the images with these indices, averaged over all views; see `Teacher`.

        Processes take turns batch by batch, so each computes what one would.
        """
        if world_size() == 1:
            yield from self._annotate(chosen)
            return
        batches = [chosen[start : start + self._batch_size] for start in range(0, len(chosen), self._batch_size)]
        turns = world_size() * -(-IMAGES_PER_CALL // self._batch_size)
        device = next(self.detector.parameters()).device
        with Everywhere(device, _itself, self) as teachers:
            for start in range(0, len(batches), turns):
                parts = teachers.call(NetworkTeacher._annotate_share, batches[start : start + turns])
                yield from (known for turn in zip_longest(*parts) for batch in turn if batch for known in batch)

    def _annotate_share(self, batches: Sequence[Sequence[int]]) -> list[list[Knowledge]]:
        """The knowledge of every batch of which it is this process's turn."""
        own = batches[rank() :: world_size()]
        known = self._annotate([index for batch in own for index in batch])
        return [list(islice(known, len(batch))) for batch in own]

    def _annotate(self, chosen: Sequence[int]) -> Iterator[Knowledge]:
        table, image_dir = self.images
        located = LocatedTable(_rows(table, chosen), image_dir)
        size, shorter = self.identity.image_size, self.identity.shorter_side
        views = [EvalTransform(size, flip, shorter) for flip in (False, True)[: 1 + self.identity.flip]]
        for scale in self.identity.scales:
            views.append(EvalTransform(_multiple_of_32(scale * size), False, shorter and round(scale * shorter)))
        for of_image in zip(*(self._view(located, view) for view in views), strict=True):
            yield average_views(of_image)

    def _view(self, images: LocatedTable, view: EvalTransform) -> Iterator[Knowledge]:
        """Knowledge for every image of a table as seen at one size, mirrored or not."""
        dataset = DetectionDataset(*images, ClassTable(entries=()), view)
        for batch in make_loader(dataset, self._batch_size, shuffle=False, workers=self._workers):
            selected = self._select(batch).to(torch.device("cpu"))
            for index in range(len(batch.image_ids_B)):
                yield _in_source_frame(batch, index, selected.of_image(index), view.flip)

    @torch.inference_mode()
    def _select(self, batch: Batch) -> Knowledge:
        device = next(self.detector.parameters()).device
        with autocast(device, self._precision):
            predictions = self.detector(batch.images_B3HW.to(device, non_blocking=True))
        return self._method.select(predictions)


def _itself(teacher: NetworkTeacher) -> NetworkTeacher:
    return teacher


def freeze(
    detector: Detector, device: torch.device, *, channels_last: bool, precision: str = "fp32", compiled: bool = False
) -> Detector:
    """Prepare a detector for running beside a student: batch normalization is folded into the convolutions.

    Their weights take the precision that they are used in, once and not at every batch. It answers in that precision
    alone, as a `NetworkTeacher` of the same does.
    """
    frozen = detector.to(device).eval().requires_grad_(False)
    fold_batch_norm(frozen)
    if precision in AUTOCAST_DTYPES:
        for module in frozen.modules():
            if isinstance(module, nn.Conv2d):
                module.to(AUTOCAST_DTYPES[precision])
    return placed(frozen, device, channels_last=channels_last, compiled=compiled)


def _rows(table: AnnotationTable, chosen: Sequence[int]) -> AnnotationTable:
    chosen_I = np.zeros(table.num_images, dtype=np.bool_)
    chosen_I[list(chosen)] = True
    return table.select(np.zeros(table.num_boxes, dtype=np.bool_), chosen_I)


def _in_source_frame(batch: Batch, index: int, selected: Knowledge, flip: bool) -> Knowledge:
    """The boxes of one image in pixels of the source image, without those in the padding."""
    height, width = batch.sizes_B2[index].tolist()
    boxes_K4 = selected.boxes_K4.numpy().copy()
    if flip:
        boxes_K4[:, [0, 2]] = width - boxes_K4[:, [2, 0]]
    inside = clip_to_image(replace(selected, boxes_K4=torch.from_numpy(boxes_K4)), (width, height))
    source_K4 = (inside.boxes_K4.numpy() / float(batch.scales_B[index])).astype(np.float32)
    return replace(inside, boxes_K4=torch.from_numpy(source_K4))


def _multiple_of_32(side: float) -> int:
    return max(32, round(side / 32) * 32)


def average_views(views: Sequence[Knowledge]) -> Knowledge:
    """The boxes of the first view, each averaged with the best match in every further view.

    Boxes and logits are averaged; a box without a match stays as it is. Boxes that only a further view has are left
    out: what is worth teaching is decided at the size that training sees.
    """
    first, *others = views
    if not others or not len(first):
        return first
    sums = {name: tensor.clone() for name, tensor in _averaged_tensors(first).items()}
    count_K = torch.ones(len(first))
    for view in others:
        own_P, other_P = _matches(first, view)
        for name, tensor in _averaged_tensors(view).items():
            sums[name][own_P] += tensor[other_P]
        count_K[own_P] += 1
    mean = {name: total / count_K.view(-1, *[1] * (total.ndim - 1)) for name, total in sums.items()}
    own_logit_K = mean["class_logits_KC"].gather(1, first.labels_K[:, None]).squeeze(1)
    scores_K = _sigmoid(own_logit_K)
    if PRESENCE in mean:
        scores_K = scores_K * _sigmoid(mean[PRESENCE])
    boxes_K4, class_logits_KC = mean.pop("boxes_K4"), mean.pop("class_logits_KC")
    return replace(first, boxes_K4=boxes_K4, class_logits_KC=class_logits_KC, responses=mean, scores_K=scores_K)


def _averaged_tensors(view: Knowledge) -> dict[str, Tensor]:
    return {"boxes_K4": view.boxes_K4, "class_logits_KC": view.class_logits_KC, **view.responses}


def _matches(first: Knowledge, other: Knowledge) -> tuple[Tensor, Tensor]:
    """Indices into both views of the boxes that show the same object."""
    if not len(other):
        none = torch.zeros(0, dtype=torch.int64)
        return none, none
    iou_KM = pairwise_iou(first.boxes_K4, other.boxes_K4)
    iou_KM = torch.where(first.labels_K[:, None] == other.labels_K, iou_KM, 0.0)
    best_iou_K, best_K = iou_KM.numpy().max(axis=1), torch.from_numpy(iou_KM.numpy().argmax(axis=1))
    own_P = torch.from_numpy(best_iou_K >= SAME_OBJECT_IOU).nonzero().squeeze(1)
    return own_P, best_K[own_P]


def _sigmoid(logit_K: Tensor) -> Tensor:
    # In numpy, whose exp rounds otherwise than torch's: earlier banks hold these very scores.
    return torch.from_numpy(1 / (1 + np.exp(-logit_K.numpy())))
