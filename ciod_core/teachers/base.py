"""The teacher interface: a network, a bank or scored boxes, each of which gives knowledge for the images of a table.

Legend: B images of a batch, K boxes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import torch

from ciod_core.config.schema import ResamplerConfig
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.loading.dataset import Batch
from ciod_core.data.loading.placement import Placement, move_boxes
from ciod_core.model.knowledge import Knowledge
from ciod_core.records import Record

TeacherKind = Literal["ciod", "results", "onnx"]


class TeacherIdentity(Record):
    """Where knowledge comes from: teachers with equal identities give equal knowledge for equal images.

    Attributes:
        teacher_sha256: hash of the teacher's file.
        classes: names of the classes, by label.
        image_size: longer side in pixels at which the teacher sees images; 0 where its model decides.
        shorter_side: most pixels of the shorter side; None: no limit.
        flip: whether predictions are averaged with those for the mirrored image.
        scales: further sizes to average over, as multiples of `image_size`.
        resampler: the selection; its `ground_truth_iou` is not compared, because it applies while training.
        teacher: weights of ciod, the results file of another detector, or an ONNX model.
        teacher_ids: of a teacher that is not ciod's, its id of every class, by label.
    """

    teacher_sha256: str
    classes: tuple[str, ...]
    image_size: int
    flip: bool = False
    scales: tuple[float, ...] = ()
    resampler: ResamplerConfig
    teacher: TeacherKind = "ciod"
    teacher_ids: tuple[int, ...] = ()
    shorter_side: int | None = None

    @property
    def foreign(self) -> bool:
        """Whether the teacher is no detector of ciod, so that no student can start from its weights."""
        return self.teacher != "ciod"

    def difference(self, other: TeacherIdentity) -> str | None:
        """The first field in which another identity differs, in words; None where they are equal."""
        mine, theirs = _flat(self), _flat(other)
        return next(
            (f"{name} is {theirs[name]}, not {mine[name]}" for name in mine if mine[name] != theirs[name]), None
        )


class Teacher(Protocol):
    """A source of knowledge for the images of one table.

    Attributes:
        provides: what a method may need of it: "selected" boxes, "dense" predictions at all anchor points, "features".
        notes: what a user should know about how it fits, a line each.
    """

    provides: frozenset[str]
    notes: tuple[str, ...]

    @property
    def identity(self) -> TeacherIdentity:
        """Where its knowledge comes from."""
        ...

    @property
    def images(self) -> LocatedTable:
        """The images that it gives knowledge for; their boxes are not read."""
        ...

    def answer(self, batch: Batch) -> Knowledge:
        """Knowledge for a training batch of these images, boxes in pixels of the input frame.

        Raises:
            CiodError: an image without knowledge.
        """
        ...

    def annotate(self, chosen: Sequence[int]) -> Iterator[Knowledge]:
        """Knowledge for each of the images with these indices, boxes in pixels of the source image.

        Raises:
            DataError: an image that cannot be read, or predictions that make no sense.
        """
        ...


class SourceFrameTeacher(ABC):
    """A teacher with boxes of source images, which are moved into a batch as its images were moved."""

    provides = frozenset({"selected"})

    def __init__(self, identity: TeacherIdentity, images: LocatedTable, notes: tuple[str, ...] = ()) -> None:
        self.identity = identity
        self.images = images
        self.notes = notes

    @abstractmethod
    def knowledge_of(self, index: int) -> Knowledge:
        """Knowledge for the image with this index, boxes in pixels of the source image."""

    def annotate(self, chosen: Sequence[int]) -> Iterator[Knowledge]:
        """Knowledge for each of the images with these indices; see `Teacher`."""
        return map(self.knowledge_of, chosen)

    def answer(self, batch: Batch) -> Knowledge:
        """Knowledge for a batch; see `Teacher`."""
        placed = [(image, place) for image, places in enumerate(batch.placements_B) for place in places]
        knowledge = Knowledge.of_batch([self._move(place) for _, place in placed])
        # A mosaic holds several source images.
        image_of_place = torch.tensor([image for image, _ in placed])
        return replace(knowledge, image_K=image_of_place[knowledge.image_K]).to(batch.images_B3HW.device)

    def _move(self, placement: Placement) -> Knowledge:
        known = self.knowledge_of(placement.index)
        moved = move_boxes(placement, known.boxes_K4.numpy())
        return replace(known.pick(torch.from_numpy(moved.keep_G)), boxes_K4=torch.from_numpy(moved.boxes_K4))


def _flat(identity: TeacherIdentity) -> dict[str, Any]:
    fields = identity.model_dump(mode="json")
    selection = fields.pop("resampler")
    selection.pop("ground_truth_iou")
    return fields | {f"resampler.{name}": value for name, value in selection.items()}
