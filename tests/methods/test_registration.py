"""A method from outside: one class and one line in the registry, and the command line trains with it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ciod_core.config.schema import NonNegative, Section
from ciod_core.data.formats.source import DatasetSource
from ciod_core.experiment.create import create_experiment
from ciod_core.methods.base import Method, supervised
from ciod_core.methods.registry import METHODS, MethodEntry
from ciod_core.model.base import Detector, Losses, Predictions, Targets
from ciod_core.model.common.losses import box_loss, normalizer
from ciod_core.model.knowledge import Knowledge
from tests.cli.conftest import TINY, CommandResult

NAME = "own"
# A teacher of one epoch is sure of nothing: keep the boxes that stand out from their image.
SELECTION = ("--set", "resampler.rule=global-stat", "--set", "resampler.min_score=0")


class OwnConfig(Section):
    """Settings of the test's method."""

    weight: NonNegative = 1.0


class Own(Method):
    """Beside the labels' losses, the student's boxes are drawn to the teacher's selected boxes."""

    Config = OwnConfig
    section = NAME
    needs = frozenset({"selected"})
    config: OwnConfig

    def losses(
        self,
        detector: Detector,
        student: Predictions,
        objects: Targets,
        knowledge: Knowledge,
        ignored_BA: Tensor | None = None,
    ) -> Losses:
        old_objects = Targets(knowledge.boxes_K4, knowledge.labels_K, knowledge.image_K)
        image_P, anchor_P, object_P, _ = detector.assign(student, old_objects)
        box_sum = box_loss(student.boxes_BA4[image_P, anchor_P], old_objects.boxes_N4[object_P]).sum()
        own = self.config.weight * box_sum / normalizer(object_P >= 0)
        return {**supervised(detector, student, objects, ignored_BA), "old box": own}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The method is registered, and is not any more after the test."""
    with monkeypatch.context() as patch:
        patch.setitem(METHODS, NAME, MethodEntry(f"{__name__}:Own", "a method of the tests"))
        yield


def ciod(*arguments: object) -> CommandResult:
    return CommandResult(tuple(str(argument) for argument in arguments))


@pytest.fixture(scope="module")
def experiment(shapes_dataset: DatasetSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment 5+3 with its step 1."""
    folder = tmp_path_factory.mktemp("registration") / "experiment"
    create_experiment(shapes_dataset, "5+3", "name", folder)
    outcome = ciod("train-step", "--experiment", folder, *TINY, "--model", "yolox-micro")
    assert outcome.code == 0, outcome.err
    return folder


def train(experiment: Path, name: str, *more: str) -> dict[str, Any]:
    """Train step 2 with the method; the run as the command prints it."""
    outcome = ciod(
        "train-step", "--experiment", experiment, *TINY, "--teacher", "step1", "--method", NAME, "--name", name,
        *SELECTION, *more, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    document: dict[str, Any] = json.loads(outcome.out)
    return document


def first_record(experiment: Path, name: str) -> dict[str, float]:
    """The first row of a run's metrics."""
    (path,) = (path for path in experiment.rglob("metrics.csv") if path.parent.name == name)
    with path.open(newline="") as file:
        return {column: float(cell) for column, cell in next(csv.DictReader(file)).items() if cell}


@pytest.mark.usefixtures("registered")
def test_a_registered_method_trains_a_step_from_the_command_line(experiment: Path) -> None:
    document = train(experiment, "twofold", "--set", "own.weight=2")
    assert (document["method"], document["parent"], document["status"]) == (NAME, "step1", "finished")
    assert document["config"]["own"] == {"weight": 2.0}
    twofold = first_record(experiment, "twofold")
    assert twofold["kept_per_image"] > 0 and twofold["old box"] > 0

    assert train(experiment, "without", "--set", "own.weight=0")["config"]["own"] == {"weight": 0.0}
    without = first_record(experiment, "without")
    assert without["kept_per_image"] == twofold["kept_per_image"] and without["old box"] == 0


@pytest.mark.usefixtures("registered")
def test_a_registered_method_learns_from_a_bank(experiment: Path) -> None:
    """It needs selected boxes alone, so a bank is enough of a teacher."""
    outcome = ciod("distill", "--experiment", experiment, "--teacher", "step1", "--device", "cpu", *SELECTION)
    assert outcome.code == 0, outcome.err
    bank = outcome.out.splitlines()[-1]
    train(experiment, "from-bank", "--knowledge", bank)
    assert first_record(experiment, "from-bank")["old box"] > 0


@pytest.mark.usefixtures("registered")
def test_a_registered_method_is_listed_and_its_settings_are_checked(experiment: Path) -> None:
    assert NAME in ciod("train-step", "--help").out
    outcome = ciod("train-step", "--experiment", experiment, "--method", NAME, "--set", "own.weight=-1")
    assert outcome.error_line.startswith("error: --set own.weight=-1: should be greater than or equal to 0")
    outcome = ciod("train-step", "--experiment", experiment, "--method", NAME, "--set", "own.wieght=1")
    assert "did you mean 'own.weight'?" in outcome.error_line


def test_a_method_that_is_not_registered_is_unknown(experiment: Path) -> None:
    assert NAME not in METHODS
    outcome = ciod("train-step", "--experiment", experiment, "--method", NAME)
    assert outcome.code != 0 and "'own'" in outcome.error_line
    outcome = ciod("train-step", "--experiment", experiment, "--set", "own.weight=2")
    assert outcome.code != 0 and "there is no setting 'own.weight'" in outcome.error_line
