"""A detection dataset: annotation table and image folder in, augmented samples out.

Legend: B images, G ground-truth objects of an image, N objects of a batch, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ciod_core.classes import ClassTable
from ciod_core.data.annotations import AnnotationTable
from ciod_core.data.images import decode_image, image_path
from ciod_core.data.transforms import STRIDE_MULTIPLE, Transform, apply_augmentation
from ciod_core.model.output import Targets

PAD_VALUE = 114


class Sample(NamedTuple):
    """One image, ready to be put into a batch.

    Attributes:
        image_3HW: RGB, uint8.
        boxes_G4: boxes, xyxy, pixels of the input frame, float32.
        labels_G: labels, int64.
        image_id: the dataset's image id.
        scale: input pixels per original pixel.
        size_hw: height and width of the image in pixels.
    """

    image_3HW: Tensor
    boxes_G4: Tensor
    labels_G: Tensor
    image_id: int
    scale: float
    size_hw: tuple[int, int]


class Batch(NamedTuple):
    """Images of a batch, padded at the right and the bottom to one size that is a multiple of 32.

    Attributes:
        images_B3HW: RGB, uint8.
        targets: boxes in pixels of the input frame and labels.
        image_ids_B: the dataset's image ids, int64.
        scales_B: input pixels per original pixel, float32.
        sizes_B2: height and width of the part that is not padding, int64.
    """

    images_B3HW: Tensor
    targets: Targets
    image_ids_B: Tensor
    scales_B: Tensor
    sizes_B2: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        images_B3HW, targets, image_ids_B, scales_B, sizes_B2 = self
        return Batch(
            images_B3HW.to(device, non_blocking=True),
            targets.to(device),
            image_ids_B.to(device, non_blocking=True),
            scales_B.to(device, non_blocking=True),
            sizes_B2.to(device, non_blocking=True),
        )


class DetectionDataset(Dataset[Sample]):
    """Images of an annotation table with their boxes and labels.

    What is drawn for an image depends on the seed, the epoch and the image's index alone, so the number of loading
    workers changes nothing.
    """

    def __init__(
        self,
        table: AnnotationTable,
        images_root: Path,
        classes: ClassTable,
        transform: Transform,
        seed: int = 0,
        skip_crowd: bool = True,
    ) -> None:
        """Prepare the dataset; no image is read yet.

        Args:
            table: images and boxes.
            images_root: the folder that file names are relative to.
            classes: labels of the categories; boxes of other categories are left out.
            transform: draws what is done to each image.
            seed: start of all random draws.
            skip_crowd: leave crowd boxes out.
        """
        labels_N = classes.labels_of(table.category_ids_N)
        kept_N = labels_N >= 0
        if skip_crowd:
            kept_N &= ~table.crowd_N
        self.table = table.select(kept_N)
        self.labels_N = labels_N[kept_N]
        self.images_root = images_root
        self.classes = classes
        self.transform = transform
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.table.num_images

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the random draws; loaders started later see it in their workers."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> Sample:
        """Load and augment one image.

        Raises:
            DataError: the image is missing, broken or not of the annotated size.
        """
        table = self.table
        rows = table.rows_of(index)
        size = (int(table.widths_I[index]), int(table.heights_I[index]))
        augmentation = self.transform.draw(np.random.default_rng((self.seed, self.epoch, index)))
        path = image_path(self.images_root, str(table.file_names_I[index]), table.path)
        decoded_side = augmentation.longer_side if augmentation.fast_decoding else None
        image = decode_image(path, size, longer_side=decoded_side, annotations=table.path)
        moved = apply_augmentation(image, table.boxes_N4[rows], size, augmentation)
        height, width = moved.image_HW3.shape[:2]
        return Sample(
            image_3HW=torch.from_numpy(np.ascontiguousarray(moved.image_HW3.transpose(2, 0, 1))),
            boxes_G4=torch.from_numpy(moved.boxes_G4),
            labels_G=torch.from_numpy(self.labels_N[rows][moved.keep_G]),
            image_id=int(table.image_ids_I[index]),
            scale=moved.scale,
            size_hw=(height, width),
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples of different sizes into one padded batch."""
    sizes_B2 = torch.tensor([sample.size_hw for sample in samples], dtype=torch.int64)
    height, width = (-(-int(side) // STRIDE_MULTIPLE) * STRIDE_MULTIPLE for side in sizes_B2.amax(dim=0))
    images_B3HW = torch.full((len(samples), 3, height, width), PAD_VALUE, dtype=torch.uint8)
    for index, sample in enumerate(samples):
        images_B3HW[index, :, : sample.size_hw[0], : sample.size_hw[1]] = sample.image_3HW
    objects_B = torch.tensor([len(sample.labels_G) for sample in samples])
    return Batch(
        images_B3HW=images_B3HW,
        targets=Targets(
            boxes_N4=torch.cat([sample.boxes_G4 for sample in samples]),
            labels_N=torch.cat([sample.labels_G for sample in samples]),
            image_N=torch.repeat_interleave(torch.arange(len(samples)), objects_B),
        ),
        image_ids_B=torch.tensor([sample.image_id for sample in samples], dtype=torch.int64),
        scales_B=torch.tensor([sample.scale for sample in samples], dtype=torch.float32),
        sizes_B2=sizes_B2,
    )
