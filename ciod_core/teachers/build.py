"""Ask a teacher about images, once, and keep what is worth teaching.

Legend: B images of a batch, K kept answers, I images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ciod_core.classes import ClassTable
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.images.files import image_path
from ciod_core.data.loading.dataset import Batch, DetectionDataset
from ciod_core.data.loading.loader import make_loader
from ciod_core.data.loading.transforms import EvalTransform
from ciod_core.errors import ConfigError, DataError
from ciod_core.files import sha256_of_file
from ciod_core.methods.selection import build_rule
from ciod_core.model.base import Detector
from ciod_core.model.knowledge import ImageKnowledge, Knowledge
from ciod_core.resampler.rules import select_knowledge
from ciod_core.teachers.averaging import averaged
from ciod_core.teachers.bank import BankInfo, KnowledgeBank, write_bank
from ciod_core.teachers.respondent import Respondent

# An interruption costs the answers since the last writing; a bank is cheap to write beside what it costs to make.
SECONDS_BETWEEN_WRITES = 60.0
IMAGES_PER_CHUNK = 128
SMALLEST_SIDE = 1.0


class Built(NamedTuple):
    """A finished bank.

    Attributes:
        bank: the bank.
        hashes_I: SHA-256 of every image of the table, in its order.
        num_asked: images that the teacher was asked about now; the bank knew the others.
    """

    bank: KnowledgeBank
    hashes_I: tuple[str, ...]
    num_asked: int


@dataclass(frozen=True)
class Interview:
    """How a teacher is asked about images.

    Attributes:
        teacher: in evaluation mode, on `device`.
        classes: what it can name.
        info: what is kept of its answers, and from how many looks.
        images_root: the folder that file names are relative to.
        device: where to compute.
        batch_size: images per batch.
        workers: loading processes.
        on_images: told the number of images of each finished batch, and 0 before the first.
    """

    teacher: Detector
    classes: ClassTable
    info: BankInfo
    images_root: Path
    device: torch.device
    batch_size: int
    workers: int = 0
    on_images: Callable[[int], None] | None = None

    def ask(self, table: AnnotationTable) -> list[ImageKnowledge]:
        """What is kept of the teacher's answers for every image of a table; its boxes are not looked at.

        Raises:
            DataError: an image that cannot be read.
        """
        if self.on_images is not None:
            self.on_images(0)
        size = self.info.image_size
        looks = [self._look(table, size, self.on_images)]
        if self.info.flip:
            looks.append(self._look(table, size, flip=True))
        looks += [self._look(table, _multiple_of_32(scale * size)) for scale in self.info.scales]
        return [averaged(of_image) for of_image in zip(*looks, strict=True)]

    @torch.inference_mode()
    def _look(
        self,
        table: AnnotationTable,
        longer_side: int,
        on_images: Callable[[int], None] | None = None,
        *,
        flip: bool = False,
    ) -> list[ImageKnowledge]:
        rule, nms_iou = build_rule(self.info.resampler), self.info.resampler.nms_iou
        dataset = DetectionDataset(table, self.images_root, self.classes, EvalTransform(longer_side, flip))
        answers = []
        for batch in make_loader(dataset, self.batch_size, shuffle=False, workers=self.workers):
            output = self.teacher(batch.images_B3HW.to(self.device, non_blocking=True))
            kept = select_knowledge(output, rule, nms_iou=nms_iou)
            for index in range(len(batch.image_ids_B)):
                answers.append(_in_source_frame(batch, index, kept.pick(kept.image_K == index), flip))
            if on_images is not None:
                on_images(len(batch.image_ids_B))
        return answers


def build_bank(path: Path, respondent: Respondent, table: AnnotationTable, *, overwrite: bool = False) -> Built:
    """Make a bank, or complete one: images that it knows by their hash are not asked about again.

    The bank is written about once a minute, each time complete in itself, so that an interrupted call goes on where
    it stopped.

    Args:
        path: the bank.
        respondent: whom to ask.
        table: the images.
        overwrite: forget what is there.

    Raises:
        ConfigError: a bank of other knowledge is there.
        DataError: an image that cannot be read.
    """
    answers = {} if overwrite or not path.exists() else _known(path, respondent.info)
    hashes_I = image_hashes(table, respondent.images_root)
    # Images that occur twice are asked about once.
    first_of = {sha256: index for index, sha256 in reversed(list(enumerate(hashes_I)))}
    missing = sorted(index for sha256, index in first_of.items() if sha256 not in answers)
    written = time.monotonic()
    for start in range(0, len(missing), IMAGES_PER_CHUNK):
        chunk = missing[start : start + IMAGES_PER_CHUNK]
        for index, known in zip(chunk, respondent.ask(_images(table, chunk)), strict=True):
            answers[hashes_I[index]] = known
        if time.monotonic() - written > SECONDS_BETWEEN_WRITES:
            write_bank(path, respondent.info, answers)
            written = time.monotonic()
    if missing or not path.exists() or overwrite:
        write_bank(path, respondent.info, answers)
    return Built(KnowledgeBank(path), hashes_I, len(missing))


def image_hashes(table: AnnotationTable, images_root: Path) -> tuple[str, ...]:
    """SHA-256 of every image file, in the order of the table.

    Raises:
        DataError: a file that cannot be read.
    """

    def hash_of(name: str) -> str:
        path = image_path(images_root, name, table.path)
        try:
            return sha256_of_file(path)
        except OSError as error:
            raise DataError(f"{path}: the image cannot be read ({error.strerror}); restore it") from None

    with ThreadPoolExecutor(4) as pool:
        return tuple(pool.map(hash_of, table.file_names_I.tolist()))


def _known(path: Path, info: BankInfo) -> dict[str, ImageKnowledge]:
    bank = KnowledgeBank(path)
    difference = info.difference(bank.info)
    if difference is not None:
        raise ConfigError(f"{path}: a bank is there whose {difference}; pass --overwrite or another --out")
    return dict(bank.all_answers())


def _images(table: AnnotationTable, chosen: Sequence[int]) -> AnnotationTable:
    chosen_I = np.zeros(table.num_images, dtype=np.bool_)
    chosen_I[list(chosen)] = True
    return table.select(np.zeros(table.num_boxes, dtype=np.bool_), chosen_I)


def _in_source_frame(batch: Batch, index: int, kept: Knowledge, flip: bool) -> ImageKnowledge:
    """The answers of one image, in pixels of the source image; what lies in the padding goes."""
    height, width = batch.sizes_B2[index].tolist()
    boxes_K4 = kept.boxes_K4.cpu().numpy().copy()
    if flip:
        boxes_K4[:, [0, 2]] = width - boxes_K4[:, [2, 0]]
    boxes_K4 = boxes_K4.clip(0, np.array([width, height, width, height], dtype=np.float32))
    inside_K = (boxes_K4[:, 2:] - boxes_K4[:, :2]).min(axis=1, initial=np.inf) >= SMALLEST_SIDE
    return ImageKnowledge(
        boxes_K4=(boxes_K4 / float(batch.scales_B[index])).astype(np.float32),
        labels_K=kept.labels_K.cpu().numpy(),
        class_logits_KC=kept.class_logits_KC.float().cpu().numpy(),
        obj_logits_K=kept.obj_logits_K.float().cpu().numpy(),
        scores_K=kept.scores_K.float().cpu().numpy(),
    ).pick(inside_K)


def _multiple_of_32(side: float) -> int:
    return max(32, round(side / 32) * 32)
