"""Runs of any experiment as those of a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciod_core.errors import CheckpointError
from ciod_core.experiment.entries import ReplayedImage
from ciod_core.report.examples import _shown_runs
from ciod_core.report.material import Material, as_suite
from tests.helpers.experiments import make_experiment, make_run


def test_a_run_has_the_method_of_its_path(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path)
    make_run(experiment, "step1", 1, method="base")
    make_run(experiment, "chosen", 2, parent="step1")
    experiment.put_run(experiment.read().run("chosen").model_copy(update={"choice": "many old objects"}))
    replayed = make_run(experiment, "replayed", 2, parent="step1", method="erd")
    image = ReplayedImage(image_id=1, file_name="a.jpg", sha256="0" * 64, steps=(1,))
    experiment.put_run(replayed.model_copy(update={"replayed": (image,)}))
    make_run(experiment, "joint2", 2, method="joint")
    make_run(experiment, "again", 2, parent="step1", method="erd")
    make_run(experiment, "twice", 2, parent="step1", method="erd")
    third = make_run(experiment, "third-seed1", 2, parent="step1", method="erd")
    fourth = make_run(experiment, "twice-seed1", 2, parent="step1", method="erd")
    for run in (third, fourth):
        experiment.put_run(run.model_copy(update={"seed": 1}))
    make_run(experiment, "other", 2, parent="again", method="sid")
    make_run(experiment, "outside", 2, method="lwf")
    make_run(experiment, "unfinished", 2, parent="step1", status="failed")
    assert {run.name: run.method for run in as_suite(experiment.read())} == {
        "step1": "base",
        "chosen": "auto",
        "replayed": "erd+replay",
        "joint2": "joint",
        "again": "erd",
        "twice": "erd (twice)",
        "third-seed1": "erd",
        "twice-seed1": "erd (twice)",
        "other": "erd → sid",
        "outside": "lwf",
    }


def test_parents_in_a_circle_are_refused(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path)
    make_run(experiment, "a", 1, parent="b")
    make_run(experiment, "b", 2, parent="a")
    with pytest.raises(CheckpointError, match="not an earlier run; restore"):
        as_suite(experiment.read())


def test_ends_are_one_run_of_every_method_with_the_lowest_seed(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path)
    for seed in (2, 0, 1):
        for name, step, method, parent in (("step1", 1, "base", None), ("erd", 2, "erd", "step1")):
            record = make_run(experiment, f"{name}-{seed}", step, parent and f"{parent}-{seed}", method=method)
            experiment.put_run(record.model_copy(update={"seed": seed}))
    material = Material.of(experiment)
    assert [end.name for end in material.ends] == ["erd-0"] and material.seeds == (0, 1, 2)
    assert material.rows == () and material.evaluated_path(material.ends[0]) == ()


def test_example_images_show_the_teacher_and_the_best_students(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path)
    make_run(experiment, "step1", 1, method="base")
    for method, ap in (("finetune", 0.1), ("erd", 0.4), ("lwf", 0.2), ("sid", None), ("crs-ckd", 0.3)):
        record = make_run(experiment, method, 2, "step1", method=method)
        experiment.put_run(record.model_copy(update={"metrics": {"all": ap}}))
    shown = _shown_runs(Material.of(experiment))
    assert [run.name for run in shown] == ["step1", "erd", "crs-ckd", "lwf"]
