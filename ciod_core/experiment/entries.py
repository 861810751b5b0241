"""What a manifest lists: files, the dataset, the plan, steps and runs, as they were when they were recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ciod_core.data.annotations.protocols import Protocol
from ciod_core.data.annotations.split import StepStatistics
from ciod_core.data.annotations.stratify import HeldOut
from ciod_core.data.formats import FORMATS
from ciod_core.files import relative_if_inside, sha256_of_file
from ciod_core.records import Record

RunKind = Literal["step", "joint", "imported", "distilled"]
RunStatus = Literal["running", "finished", "failed", "interrupted"]
# What ends training: all planned epochs are done, or one of the settings `training.patience` and `training.max_hours`.
RunEnd = Literal["epochs", "patience", "max_hours"]


def _known_format(name: str) -> str:
    if name not in FORMATS:
        raise ValueError(f"{name!r} is not a format; the formats are {', '.join(FORMATS)}")
    return name


FormatName = Annotated[str, AfterValidator(_known_format)]


class FileRecord(Record):
    """One file as it was when it was recorded. `path` is relative to the experiment when it lies inside."""

    path: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)

    @classmethod
    def of(cls, path: Path, folder: Path) -> FileRecord:
        """Record `path` as it is now, seen from the experiment's `folder`."""
        return cls(path=relative_if_inside(path, folder), sha256=sha256_of_file(path), bytes=path.stat().st_size)

    def locate(self, folder: Path) -> Path:
        """Where the file lies, given the experiment's `folder`."""
        return folder / self.path


class AcceptedChange(Record):
    """A file that is another one than was recorded, by the user's will; seen from the experiment's folder."""

    path: str
    before: str = Field(description="SHA-256 as it was recorded")
    now: str = Field(description="SHA-256 from then on")
    accepted: str = Field(description="when, ISO 8601 with offset")


class SplitFilesRecord(Record):
    """Annotations and image folder of one split (train or val) of the dataset.

    `annotations` is a COCO file: the dataset's own, or one that was written because the dataset is of another format or
    some of its training images were held out.
    """

    annotations: FileRecord
    images: str
    converted_from: str | None = Field(None, description="the dataset's own file, where `annotations` is another one")
    converted_sha256: str | None = Field(None, description="hash of all annotation files that were converted")
    clipped_boxes: int = Field(0, description="boxes that stuck out of their image and were cut to it")
    dropped_boxes: int = Field(0, description="boxes without extent that were left out")
    held_out: HeldOut | None = Field(
        None, description="how these validation images were chosen from the training images; None: the dataset did"
    )


class DatasetRecord(Record):
    """The dataset the steps were cut from."""

    name: str
    format: FormatName = "coco"
    train: SplitFilesRecord
    val: SplitFilesRecord


class StepDataRecord(Record):
    """The data that an added step brought along."""

    name: str
    format: FormatName
    train: SplitFilesRecord
    val: SplitFilesRecord | None = Field(None, description="None: it came without validation data")
    val_classes: tuple[str, ...] = Field((), description="classes that its validation images label")
    left_out: tuple[str, ...] = Field((), description="classes that it lists, but shows on no training image")


class PlanRecord(Record):
    """How classes were ordered and grouped, and which images and boxes a step may see."""

    text: str = Field(description="classes per step, such as 70+10")
    order: str = Field(description="how the classes were ordered; 'listed' where a plan file names them")
    file: str | None = Field(None, description="name of the plan file that listed the classes")
    left_out: tuple[str, ...] = Field((), description="classes that no step learns; their boxes are hidden everywhere")
    protocol: Protocol = "overlap"
    seed: int | None = Field(None, description="of the shuffle or draw; None for a protocol without one")
    unlabelled_policy: Literal["keep-images-drop-boxes"] = Field(
        "keep-images-drop-boxes",
        description="boxes of other steps' classes leave the training file, their images stay",
    )
    unused_images: int | None = Field(
        None, description="training images that no step sees; None in manifests that did not count them"
    )

    @property
    def summary(self) -> str:
        """The choices in one line: `plan 70+10, order name, protocol overlap`."""
        parts = [f"plan {self.text}", f"order {self.order}", f"protocol {self.protocol}"]
        if self.file is not None:
            parts[0] += f" of {self.file}"
        if self.seed is not None:
            parts.append(f"seed {self.seed}")
        return ", ".join(parts)


class StepRecord(Record):
    """One step: its classes and its two COCO files.

    There are three kinds. A planned step was cut from the experiment's dataset; `data` is None, and its validation file
    has the whole validation split with the classes of all planned steps up to its own. An added step has `data` of its
    own, and its files hold what that labels. Of a step that was taught before the experiment began only the classes
    are known.
    """

    step: int = Field(ge=1)
    classes: tuple[str, ...] = Field(description="classes that no earlier step knows; an added step may have none")
    train: FileRecord | None = None
    val: FileRecord | None = None
    statistics: StepStatistics
    data: StepDataRecord | None = None

    @property
    def planned(self) -> bool:
        """Whether the step was cut from the experiment's dataset."""
        return self.train is not None and self.data is None

    @property
    def extended_classes(self) -> tuple[str, ...]:
        """Classes of earlier steps that the step has further labels of."""
        return tuple(name for name in self.statistics.boxes_per_class if name not in self.classes)


class ReplayedImage(Record):
    """An image of earlier steps that a run trained on again."""

    image_id: int
    file_name: str = Field(description="relative to the folder of its steps' training images")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    steps: tuple[int, ...] = Field(description="earlier steps whose labels it carries")


class RunRecord(Record):
    """One training run: what went in, what came out, how it was made and how good it is.

    `parent` names the run whose weights were the teacher; None for step 1, for joint runs and for a teacher
    from outside the experiment. An `imported` run was trained elsewhere: its weights are what the experiment began
    with, and what they do not say about themselves is None. A `distilled` run taught a student of another architecture
    what the weights of `parent` know, without labels; its step is that of its parent.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    kind: RunKind
    step: int = Field(ge=1)
    method: str
    choice: str | None = Field(None, description="why 'auto' chose the method; None: it was set")
    inherited: tuple[str, ...] = Field(
        (), description="settings that were not given, and are those of the parent's run"
    )
    parent: str | None = None
    status: RunStatus
    inputs: dict[str, FileRecord] = Field({})
    outputs: dict[str, FileRecord] = Field({})
    files: dict[str, FileRecord] = Field({}, description="what a finished run left besides: settings and logs, by name")
    config: dict[str, Any] = Field({})
    versions: dict[str, str] = Field({})
    seed: int | None = None
    device: str | None = None
    effective_batch_size: int | None = Field(None, ge=1)
    started: str | None = Field(None, description="ISO 8601 with offset")
    seconds: float | None = Field(None, description="of training and of the evaluations during it")
    epochs: int | None = Field(None, description="epochs trained; None: unknown, or not finished")
    ended_by: RunEnd | None = Field(None, description="what ended training; None as `epochs`")
    skipped_images: tuple[str, ...] = Field((), description="training images that could not be loaded, by file name")
    replayed: tuple[ReplayedImage, ...] = Field((), description="images of earlier steps, kept for this run")
    metrics: dict[str, Any] = Field({})
