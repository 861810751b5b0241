"""Joint runs that are no upper bounds are found in the manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciod_core.evaluation.bounds import doubtful_bounds
from ciod_core.experiment.folder import Experiment
from tests.helpers.experiments import make_experiment, make_run

AP = dict[str, float]


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return make_experiment(tmp_path)


def add(experiment: Experiment, name: str, step: int, epochs: int, metrics: AP, parent: str | None = None) -> None:
    record = make_run(experiment, name, step, parent, method="joint" if name.startswith("joint") else "crs-ckd")
    update = {"metrics": metrics, "config": {"training": {"epochs": epochs}}}
    experiment.put_run(record.model_copy(update=update))


def doubts(experiment: Experiment, epochs: int, joint: AP, step2: AP) -> list[str]:
    add(experiment, "step1", 1, 4, {"all": 0.5, "new": 0.5})
    add(experiment, "step2", 2, 2, step2, parent="step1")
    add(experiment, "joint2", 2, epochs, joint)
    return doubtful_bounds(experiment.read())


def test_a_bound_above_the_run_is_one(experiment: Experiment) -> None:
    aps = {"all": 0.5, "old": 0.4, "new": 0.6}
    assert doubts(experiment, 6, aps, aps) == []


def test_a_lower_ap_is_named_by_group(experiment: Experiment) -> None:
    joint, run = {"all": 0.2, "old": 0.5, "new": 0.001}, {"all": 0.5, "old": 0.4, "new": 0.6}
    [line] = doubts(experiment, 6, joint, run)
    assert line == (
        "joint2 is no upper bound: its AP is lower than that of step2 (all classes 20.0 to 50.0, the new classes "
        "0.1 to 60.0); ratios are left out"
    )
    assert doubtful_bounds(experiment.read(), {"step1", "step2"}) == []


def test_shorter_training_than_the_chain(experiment: Experiment) -> None:
    aps = {"all": 0.5, "old": 0.4, "new": 0.6}
    [line] = doubts(experiment, 5, aps, aps)
    assert line == "joint2 may be no upper bound: it was trained for 5 epochs, step1 → step2 for 6"
    [line] = doubts(experiment, 1, {"all": 0.1}, aps)
    assert "no upper bound" in line and line.endswith("it was trained for 1 epoch, step1 → step2 for 6")


def test_what_counts_is_how_long_a_run_was_trained(experiment: Experiment) -> None:
    aps = {"all": 0.5, "old": 0.4, "new": 0.6}
    assert doubts(experiment, 6, aps, aps) == []
    joint = experiment.read().run("joint2")
    experiment.put_run(joint.model_copy(update={"epochs": 3, "ended_by": "patience"}))
    [line] = doubtful_bounds(experiment.read())
    assert "it was trained for 3 epochs" in line


def test_runs_of_other_steps_and_seeds_are_not_compared(experiment: Experiment) -> None:
    add(experiment, "joint2", 2, 6, {"all": 0.1})
    add(experiment, "step1", 1, 4, {"all": 0.5})
    assert doubtful_bounds(experiment.read()) == []
