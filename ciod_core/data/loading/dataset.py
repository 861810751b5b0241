"""A detection dataset: annotation table and image folder in, augmented samples out.

Legend: B images, G ground-truth objects of an image, N objects of a batch, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from ciod_core.arrays import BoolArray
from ciod_core.classes import ClassTable
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.images.decode import decode_image
from ciod_core.data.images.files import image_path
from ciod_core.data.loading.mixing import PAD_VALUE, DrawnImage, Mixing, Mixup, Mosaic, average, empty_frame, paste
from ciod_core.data.loading.placement import Placement, Size, move_boxes, place_alone
from ciod_core.data.loading.transforms import STRIDE_MULTIPLE, ImageArray, Transform, render
from ciod_core.errors import DataError
from ciod_core.model.base import Targets


class Sample(NamedTuple):
    """One image, ready to be put into a batch.

    Attributes:
        image_3HW: RGB, uint8.
        boxes_G4: boxes, xyxy, pixels of the input frame, float32.
        labels_G: labels, int64.
        image_id: the dataset's image id; of a mixed sample, that of its first image.
        scale: input pixels per original pixel, of the same image.
        size_hw: height and width of the image in pixels.
        placements: where each source image lies in the input frame; what moved the boxes moves others alike.
        skipped: file names of images that could not be loaded and were replaced.
        missing_C: mask of the classes that have no labels on an image in it; None where all labels are there.
    """

    image_3HW: Tensor
    boxes_G4: Tensor
    labels_G: Tensor
    image_id: int
    scale: float
    size_hw: tuple[int, int]
    placements: tuple[Placement, ...] = ()
    skipped: tuple[str, ...] = ()
    missing_C: BoolArray | None = None


class Batch(NamedTuple):
    """Images of a batch, padded at the right and the bottom to one size that is a multiple of 32.

    Attributes:
        images_B3HW: RGB, uint8.
        targets: boxes in pixels of the input frame and labels.
        image_ids_B: the dataset's image ids, int64.
        scales_B: input pixels per original pixel, float32.
        sizes_B2: height and width of the part that is not padding, int64.
        missing_BC: mask of the classes that have no labels on an image of a sample; None where all labels are there.
        skipped: file names of images that could not be loaded and were replaced.
        placements_B: where the source images of each sample lie in its input frame.
    """

    images_B3HW: Tensor
    targets: Targets
    image_ids_B: Tensor
    scales_B: Tensor
    sizes_B2: Tensor
    missing_BC: Tensor | None
    skipped: tuple[str, ...] = ()
    placements_B: tuple[tuple[Placement, ...], ...] = ()


@dataclass(frozen=True)
class _Opened:
    """A decoded source image, its index in the dataset, and its width and height there."""

    index: int
    size: Size
    image: Image.Image


class DetectionDataset(Dataset[Sample]):
    """Images of an annotation table with their boxes and labels.

    What is drawn for an image depends on the seed, the epoch and the image's index alone, so the number of loading
    workers changes nothing.
    """

    def __init__(
        self,
        table: AnnotationTable,
        image_dir: Path,
        classes: ClassTable,
        transform: Transform,
        seed: int = 0,
        skip_crowd: bool = True,
        mixing: Mixing | None = None,
        skip_corrupt: bool = False,
        missing_IC: BoolArray | None = None,
    ) -> None:
        """Prepare the dataset; no image is read yet.

        Args:
            table: images and boxes.
            image_dir: the folder that file names are relative to.
            classes: labels of the categories; boxes of other categories are left out.
            transform: draws what is done to each image.
            seed: start of all random draws.
            skip_crowd: leave crowd boxes out.
            mixing: mosaic and mixup; None leaves every image to itself.
            skip_corrupt: put the next image that can be loaded in the place of one that cannot.
            missing_IC: mask of the classes that have no labels on an image; None where all labels are there.
        """
        labels_N = classes.labels_of(table.category_ids_N)
        kept_N = (labels_N >= 0) & ~(table.crowd_N & skip_crowd)
        self.table = table.select(kept_N)
        self.labels_N = labels_N[kept_N]
        self.missing_IC = missing_IC
        self.image_dir = image_dir
        self.transform = transform
        self.seed = seed
        self.mixing = mixing
        self.skip_corrupt = skip_corrupt
        self.epoch = 0

    def __len__(self) -> int:
        return self.table.num_images

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the random draws; loaders started later see it in their workers."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> Sample:
        """Load and augment one image, together with those it is mixed with.

        Raises:
            DataError: the image is missing, broken or not of the annotated size; with `skip_corrupt`, all are.
        """
        rng = np.random.default_rng((self.seed, self.epoch, index))
        first = DrawnImage(index, self.transform.draw(rng))
        mosaic, mixup = None, None
        if self.mixing is not None:
            mosaic, mixup = self.mixing.draw(rng, self.transform, first, len(self))
        skipped: list[str] = []
        if mosaic is None:
            image_HW3, placements = self._render_alone(first, skipped)
        else:
            image_HW3, placements = self._render_mosaic(mosaic, skipped)
        if mixup is not None:
            image_HW3, placement = self._mix_up(image_HW3, mixup, skipped)
            placements = (*placements, placement)
        return self._sample(image_HW3, placements, tuple(skipped))

    def _render_alone(self, source: DrawnImage, skipped: list[str]) -> tuple[ImageArray, tuple[Placement, ...]]:
        opened, augmentation = self._open(source, skipped), source.augmentation
        placement = place_alone(opened.index, opened.size, augmentation.scale_of(opened.size), augmentation.flip)
        return render(opened.image, placement, augmentation), (placement,)

    def _render_mosaic(self, mosaic: Mosaic, skipped: list[str]) -> tuple[ImageArray, tuple[Placement, ...]]:
        parts = [self._open(source, skipped) for source in mosaic.sources]
        placements = mosaic.place([(part.index, part.size) for part in parts])
        frame_HW3 = empty_frame((mosaic.side, mosaic.side))
        for part, source, placement in zip(parts, mosaic.sources, placements, strict=True):
            paste(frame_HW3, render(part.image, placement, source.augmentation), placement)
        return frame_HW3, placements

    def _mix_up(self, image_HW3: ImageArray, mixup: Mixup, skipped: list[str]) -> tuple[ImageArray, Placement]:
        frame = (image_HW3.shape[1], image_HW3.shape[0])
        source = mixup.source_for(frame)
        opened = self._open(source, skipped)
        placement = mixup.place(opened.index, opened.size, frame)
        second_HW3 = empty_frame(frame)
        paste(second_HW3, render(opened.image, placement, source.augmentation), placement)
        return average(image_HW3, second_HW3), placement

    def _open(self, source: DrawnImage, skipped: list[str]) -> _Opened:
        """Decode an image, or with `skip_corrupt` the first after it that can be decoded, and note what was skipped."""
        longer_side = source.augmentation.longer_side if source.augmentation.fast else None
        for step in range(len(self)):
            index = (source.index + step) % len(self)
            size, file_name = self.table.size_of(index), str(self.table.file_names_I[index])
            path = image_path(self.image_dir, file_name, self.table.path)
            try:
                image = decode_image(path, size, longer_side=longer_side, annotations=self.table.path)
            except DataError:
                if not self.skip_corrupt:
                    raise
                skipped.append(file_name)
            else:
                return _Opened(index, size, image)
        raise DataError(
            f"{self.image_dir}: none of the {len(self)} images listed in {self.table.path or 'the annotations'} "
            "can be loaded; check that this is the right folder"
        )

    def _sample(self, image_HW3: ImageArray, placements: tuple[Placement, ...], skipped: tuple[str, ...]) -> Sample:
        rows = [self.table.rows_of(placement.index) for placement in placements]
        moved = [
            move_boxes(placement, self.table.boxes_N4[own]) for placement, own in zip(placements, rows, strict=True)
        ]
        labels = [self.labels_N[own][kept.keep_G] for own, kept in zip(rows, moved, strict=True)]
        missing_C: BoolArray | None = None
        if self.missing_IC is not None:
            missing_C = np.logical_or.reduce(self.missing_IC[[placement.index for placement in placements]])
        height, width = image_HW3.shape[:2]
        return Sample(
            image_3HW=torch.from_numpy(np.ascontiguousarray(image_HW3.transpose(2, 0, 1))),
            boxes_G4=torch.from_numpy(np.concatenate([kept.boxes_K4 for kept in moved])),
            labels_G=torch.from_numpy(np.concatenate(labels)),
            image_id=int(self.table.image_ids_I[placements[0].index]),
            scale=placements[0].scale,
            size_hw=(height, width),
            placements=placements,
            skipped=skipped,
            missing_C=missing_C,
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples of different sizes into one padded batch."""
    sizes_B2 = torch.tensor([sample.size_hw for sample in samples], dtype=torch.int64)
    height, width = (-(-int(side) // STRIDE_MULTIPLE) * STRIDE_MULTIPLE for side in sizes_B2.amax(dim=0))
    images_B3HW = torch.empty((len(samples), 3, height, width), dtype=torch.uint8)
    for image_3HW, sample in zip(images_B3HW, samples, strict=True):
        used_height, used_width = sample.size_hw
        image_3HW[:, :used_height, :used_width] = sample.image_3HW
        image_3HW[:, :used_height, used_width:] = PAD_VALUE
        image_3HW[:, used_height:] = PAD_VALUE
    missing = [sample.missing_C for sample in samples if sample.missing_C is not None]
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
        missing_BC=torch.from_numpy(np.stack(missing)) if missing else None,
        skipped=tuple(name for sample in samples for name in sample.skipped),
        placements_B=tuple(sample.placements for sample in samples),
    )


def padded_to(batch: Batch, height: int, width: int) -> Batch:
    """The batch with images that are padded, at the right and the bottom, to at least this height and width."""
    own_height, own_width = batch.images_B3HW.shape[2:]
    below, beside = max(height - own_height, 0), max(width - own_width, 0)
    if not below and not beside:
        return batch
    return batch._replace(images_B3HW=pad(batch.images_B3HW, (0, beside, 0, below), value=PAD_VALUE))
