"""The schema of `experiment.json`: dataset, plan, classes, steps, runs, and the hashes of their files.

The models are immutable: a change is a new manifest, written by `ciod_core.experiment.folder.Experiment.update`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from ciod_core.classes import ClassEntry, ClassTable
from ciod_core.data.annotations.protocols import Protocol
from ciod_core.data.annotations.split import StepStatistics
from ciod_core.data.annotations.stratify import HeldOut
from ciod_core.data.formats import FORMATS
from ciod_core.errors import CheckpointError, ConfigError, listed
from ciod_core.files import MostBytes, parse_json, read_bytes, relative_if_inside, sha256_of_file
from ciod_core.migrations import MANIFEST_VERSION, upgrade_manifest
from ciod_core.records import Record, first_problem

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


class ExperimentManifest(Record):
    """The whole of `experiment.json`; dataset and plan are None where no step was planned."""

    format_version: int = MANIFEST_VERSION
    created: str
    ciod_version: str
    dataset: DatasetRecord | None = None
    plan: PlanRecord | None = None
    classes: ClassTable
    steps: tuple[StepRecord, ...]
    runs: tuple[RunRecord, ...] = ()

    @model_validator(mode="after")
    def _check_consistency(self) -> ExperimentManifest:
        if [record.step for record in self.steps] != list(range(1, len(self.steps) + 1)):
            raise ValueError("steps are not numbered 1, 2, 3 … in order")
        if self.classes.last_step > len(self.steps):
            raise ValueError(f"the class table has {self.classes.last_step} steps, the manifest {len(self.steps)}")
        for record in self.steps:
            if record.classes != self.classes.of_step(record.step).names:
                raise ValueError(f"the classes of step {record.step} differ from the class table")
            if record.planned and (self.dataset is None or record.val is None or not record.classes):
                raise ValueError(
                    f"step {record.step} was planned, but its dataset, classes or validation file is missing"
                )
        names = [record.name for record in self.runs]
        if len(set(names)) != len(names):
            raise ValueError("run names repeat")
        return self

    def find_run(self, name: str) -> RunRecord | None:
        """The run of that name, None when there is none."""
        return next((record for record in self.runs if record.name == name), None)

    def run(self, name: str) -> RunRecord:
        """The run of that name.

        Raises:
            ConfigError: listing the runs there are.
        """
        record = self.find_run(name)
        if record is None:
            names = listed([run.name for run in self.runs]) or "none yet"
            raise ConfigError(f"there is no run '{name}'; runs: {names}")
        return record

    def leaf_runs(self) -> tuple[RunRecord, ...]:
        """Finished step runs that no other run continues; the finished joint runs when there is no step run."""
        finished = [run for run in self.runs if run.status == "finished"]
        # A distilled student is a side branch: its teacher stays the end of the chain.
        parents = {run.parent for run in finished if run.kind != "distilled"}
        steps = tuple(run for run in finished if run.kind != "joint" and run.name not in parents)
        return steps or tuple(finished)

    def children_of(self, name: str) -> tuple[str, ...]:
        """Names of the runs that run `name` taught."""
        return tuple(run.name for run in self.runs if run.parent == name)

    def path_to(self, name: str) -> tuple[RunRecord, ...]:
        """The runs from the root of the tree to run `name`, in order of training.

        Raises:
            ConfigError: there is no such run.
            CheckpointError: the parents form a circle, or one is missing.
        """
        path = [self.run(name)]
        while path[0].parent is not None:
            parent = self.find_run(path[0].parent)
            if parent is None or parent in path:
                raise CheckpointError(
                    f"run '{path[0].name}' names '{path[0].parent}' as its parent, which is not an earlier run; "
                    "restore experiment.json"
                )
            path.insert(0, parent)
        return tuple(path)

    def step(self, number: int) -> StepRecord:
        """The record of one step.

        Raises:
            ConfigError: there is none.
        """
        if not self.steps:
            raise ConfigError(f"there is no step {number}; there are none yet, add one with `data`")
        if not 1 <= number <= len(self.steps):
            raise ConfigError(f"there is no step {number}; the plan has steps 1 to {len(self.steps)}")
        return self.steps[number - 1]

    def train_file(self, step: int) -> FileRecord:
        """The COCO file of a step's training split.

        Raises:
            ConfigError: the step was trained before this experiment began.
        """
        record = self.step(step).train
        if record is None:
            raise ConfigError(
                f"step {step} was trained before this experiment began, its training data is not here; "
                "pass a `teacher` that has finished it, and leave out joint training and replay of that step"
            )
        return record

    def val_file(self, step: int) -> FileRecord:
        """The COCO file of a step's validation split; see `StepRecord` for the classes in it.

        Raises:
            ConfigError: the step has no validation data.
        """
        record = self.step(step).val
        if record is None:
            raise ConfigError(f"step {step} has no validation data; add a step that has some (`val`)")
        return record

    def train_images(self, step: int = 1) -> str:
        """The image folder of a step's training split, as recorded; all planned steps have the same."""
        self.train_file(step)
        return self._data_of(step).train.images

    def val_images(self, step: int = 1) -> str:
        """The image folder of a step's validation split, as recorded."""
        self.val_file(step)
        val = self._data_of(step).val
        assert val is not None, "a step with a validation file has validation data"
        return val.images

    def _data_of(self, step: int) -> DatasetRecord | StepDataRecord:
        data = self.step(step).data or self.dataset
        assert data is not None, "a step with files has data"
        return data

    def validation_steps(self, step: int) -> tuple[int, ...]:
        """The steps whose validation files a run of `step` is evaluated on; together they label its classes.

        They are those up to its own; of planned steps the last, which holds the earlier ones. Where none of them
        brought validation data, it is the first later step that labels one of the classes.
        """
        until_now, later = self.steps[:step], self.steps[step:]
        last_planned = max((record.step for record in until_now if record.planned), default=0)
        own = tuple(record.step for record in until_now if record.val and (record.data or record.step == last_planned))
        known = set(self.classes.up_to(step).names)
        return own or next(
            ((record.step,) for record in later if record.data and known & set(record.data.val_classes)), ()
        )

    def first_steps(self, count: int) -> ExperimentManifest:
        """This manifest with no steps and classes but those of steps 1 to `count`; the runs stay."""
        return self.model_copy(update={"steps": self.steps[:count], "classes": self.classes.up_to(count)})

    def with_step(self, record: StepRecord, classes: Iterable[ClassEntry]) -> ExperimentManifest:
        """This manifest with one step more, which teaches `classes`."""
        table = ClassTable(entries=(*self.classes.entries, *classes))
        return self.model_copy(update={"steps": (*self.steps, record), "classes": table})

    def with_run(self, record: RunRecord) -> ExperimentManifest:
        """This manifest with `record` added, or put in the place of the run of the same name."""
        if self.find_run(record.name) is None:
            return self.model_copy(update={"runs": (*self.runs, record)})
        runs = tuple(record if old.name == record.name else old for old in self.runs)
        return self.model_copy(update={"runs": runs})


def read_manifest(path: Path) -> ExperimentManifest:
    """Read and check an `experiment.json`.

    Raises:
        CheckpointError: when it cannot be read, is not JSON, contradicts itself or was written by a newer version.
    """
    try:
        return ExperimentManifest.model_validate(upgrade_manifest(parse_json(read_bytes(path, MostBytes.TEXT)), path))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); restore the file") from None
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_problem(error)}; restore the file or split the dataset again") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: Invalid JSON ({error}); restore the file or split the dataset again") from None


def manifest_text(manifest: ExperimentManifest) -> str:
    """The JSON text of a manifest."""
    return manifest.model_dump_json(indent=2) + "\n"
