"""Steps that follow those of a plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource
from ciod_core.errors import ConfigError
from ciod_core.experiment.add_step import add_step
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import Experiment
from ciod_core.runs.spec import plan_run
from ciod_core.runs.train import training_table
from tests.helpers.chains import JOINT, begin_run, data_source, refused, second_data, write_data


@pytest.fixture
def planned(shapes_dataset: DatasetSource, tmp_path: Path) -> Experiment:
    experiment = create_experiment(shapes_dataset, "5+3", "name", tmp_path / "planned")
    begin_run(experiment, "step1", 1)
    return experiment


def test_a_finished_plan_goes_on(planned: Experiment, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    begin_run(planned, "step2", 2, "step1")
    before = planned.read()
    source = data_source(write_data(tmp_path / "data", "new", {"a.png": ["moon", "circle"]}))
    with add_step(source, experiment=planned.folder, teacher="step2"):
        manifest = planned.read()
        assert manifest.steps[:2] == before.steps and manifest.dataset == before.dataset
        assert manifest.classes.names[8:] == ("moon",)
        assert manifest.steps[2].extended_classes == ("circle",)
        assert manifest.validation_steps(3) == (2,) and manifest.validation_steps(1) == (1,)
        every_id = read_coco(shapes_dataset.train.annotations).image_ids_I.tolist()
        assert not set(every_id) & set(
            read_coco(planned.read().train_file(3).locate(planned.folder)).image_ids_I.tolist()
        )
        joint = training_table(planned, plan_run(planned, JOINT))
        assert joint.table.num_images == len(every_id) + 1
        assert training_table(planned, plan_run(planned, JOINT, step=2)).image_dir == (
            planned.folder / planned.read().train_images()
        )


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        ("step1", "has a plan whose step 2 comes next; train it first, without `data`"),
        (None, "has a plan; pass a `teacher` that has finished all 2 steps"),
    ],
)
def test_an_unfinished_plan_comes_first(
    planned: Experiment, tmp_path: Path, teacher: str | None, expected: str
) -> None:
    source = second_data(tmp_path / "data")
    with (
        refused(planned, ConfigError, expected, "a new folder as `experiment`"),
        add_step(source, experiment=planned.folder, teacher=teacher),
    ):
        pass


def test_the_dataset_of_the_plan_may_have_gone(planned: Experiment, tmp_path: Path) -> None:
    begin_run(planned, "step2", 2, "step1")
    document = json.loads(planned.manifest_path.read_text())
    document["dataset"]["train"]["annotations"]["path"] = "gone.json"
    planned.manifest_path.write_text(json.dumps(document | {"checksum": None}))
    with add_step(second_data(tmp_path / "data"), experiment=planned.folder, teacher="step2"):
        first, last = (
            read_coco(planned.read().train_file(step).locate(planned.folder)).image_ids_I.tolist() for step in (1, 3)
        )
    assert not set(first) & set(last)
