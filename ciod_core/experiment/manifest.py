"""The manifest, `experiment.json`: dataset, plan, classes, steps and runs, whose records are in `entries`.

The models are immutable: a change is a new manifest, written by `ciod_core.experiment.folder.Experiment.update`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from ciod_core.classes import ClassEntry, ClassTable
from ciod_core.errors import CheckpointError, ConfigError, listed
from ciod_core.experiment.entries import (
    AcceptedChange,
    DatasetRecord,
    FileRecord,
    PlanRecord,
    RunRecord,
    StepDataRecord,
    StepRecord,
)
from ciod_core.files import MostBytes, parse_json, read_bytes
from ciod_core.migrations import MANIFEST_VERSION, upgrade_manifest
from ciod_core.records import CHECKSUM_KEY, Record, first_problem


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
    accepted: tuple[AcceptedChange, ...] = ()

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


def read_manifest(path: Path, *, edited: bool = False) -> ExperimentManifest:
    """Read and check an `experiment.json`.

    Args:
        path: the file.
        edited: take what somebody has edited, if it makes sense.

    Raises:
        CheckpointError: when it cannot be read, is not JSON, contradicts itself or was written by a newer version.
    """
    try:
        raw = parse_json(read_bytes(path, MostBytes.TEXT))
        document = upgrade_manifest(raw, path)
        checksum = document.pop(CHECKSUM_KEY, "")
        manifest = ExperimentManifest.model_validate(document)
        if not edited and checksum not in (None, _checksum(raw)):
            raise CheckpointError(
                f"{path}: its content does not have its checksum: it is damaged, or was edited; restore it, or accept "
                "the edit with `accept_changes`"
            )
        return manifest
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); restore the file") from None
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_problem(error)}; restore the file or split the dataset again") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: Invalid JSON ({error}); restore the file or split the dataset again") from None


def manifest_text(manifest: ExperimentManifest) -> str:
    """The JSON text of a manifest, with a checksum of all values."""
    document = json.loads(manifest.model_dump_json())
    return json.dumps(document | {CHECKSUM_KEY: _checksum(document)}, indent=2, ensure_ascii=False) + "\n"


def _checksum(document: dict[str, Any]) -> str:
    values = {key: value for key, value in document.items() if key != CHECKSUM_KEY}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
