"""Making an experiment: complete, verifiable, and all or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ciod_core import experiment_files
from ciod_core.data.coco import read_coco
from ciod_core.data.source import DatasetSource, resolve_dataset
from ciod_core.errors import ConfigError
from ciod_core.experiment import Experiment
from ciod_core.experiment_files import create_experiment
from ciod_core.files import sha256_of_file
from tests.experiments import make_run


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_manifest_and_files_agree(shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    experiment = create_experiment(shapes_dataset, "5+3", "name", tmp_path / "new" / "experiment")

    manifest = experiment.manifest
    assert [len(step.classes) for step in manifest.steps] == [5, 3]
    assert list(manifest.classes.names) == sorted(manifest.classes.names)
    for step in manifest.steps:
        experiment.check_step_files(step.step)
        table = read_coco(experiment.step_train_path(step.step))
        assert {category.name for category in table.categories} == set(step.classes)
        assert table.num_images == step.statistics.images
        assert table.num_boxes == sum(step.statistics.boxes_per_class.values())
    source = shapes_dataset.train.annotations
    assert manifest.dataset.train.annotations.sha256 == sha256_of_file(source)
    assert experiment.train_images().samefile(shapes_dataset.train.images)


def test_nothing_else_stays_in_the_folder(shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    create_experiment(shapes_dataset, "5+3", "name", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experiment.json", "splits"]


def test_same_input_same_files(shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    first, second = (create_experiment(shapes_dataset, "5+3", "id", tmp_path / name) for name in "ab")
    assert first.manifest.steps == second.manifest.steps
    assert everything_in(tmp_path / "a" / "splits") == everything_in(tmp_path / "b" / "splits")


@pytest.mark.parametrize(("plan", "order"), [("5+4", "name"), ("5+3", "nmae"), ("x", "name")])
def test_a_mistake_leaves_nothing(shapes_dataset: DatasetSource, tmp_path: Path, plan: str, order: str) -> None:
    with pytest.raises(ConfigError):
        create_experiment(shapes_dataset, plan, order, tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_failure_while_writing_leaves_nothing(
    shapes_dataset: DatasetSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(experiment_files, "atomic_write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        create_experiment(shapes_dataset, "5+3", "name", tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


class TestOverwrite:
    def test_refused_without_it(self, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
        create_experiment(shapes_dataset, "5+3", "name", tmp_path)
        before = everything_in(tmp_path)
        with pytest.raises(ConfigError, match="--overwrite"):
            create_experiment(shapes_dataset, "4+4", "name", tmp_path)
        assert everything_in(tmp_path) == before

    def test_replaces_an_experiment_without_runs(self, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
        create_experiment(shapes_dataset, "2x4", "name", tmp_path)
        experiment = create_experiment(shapes_dataset, "5+3", "name", tmp_path, overwrite=True)
        assert experiment.manifest.plan.text == "5+3"
        assert len(list((tmp_path / "splits").iterdir())) == 4
        experiment.check_step_files(2)

    def test_never_an_experiment_with_runs(self, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
        make_run(create_experiment(shapes_dataset, "5+3", "name", tmp_path), "step1", 1)
        before = everything_in(tmp_path)
        with pytest.raises(ConfigError, match="has runs"):
            create_experiment(shapes_dataset, "4+4", "name", tmp_path, overwrite=True)
        assert everything_in(tmp_path) == before

    def test_a_failure_brings_the_old_one_back(
        self, shapes_dataset: DatasetSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create_experiment(shapes_dataset, "5+3", "name", tmp_path)
        before = everything_in(tmp_path)

        def interrupt(path: Path, text: str) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(experiment_files, "atomic_write_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            create_experiment(shapes_dataset, "4+4", "name", tmp_path, overwrite=True)
        assert everything_in(tmp_path) == before
        Experiment.open(tmp_path).check_step_files(1)

    def test_a_foreign_splits_folder_is_left_alone(self, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
        (tmp_path / "splits").mkdir()
        (tmp_path / "splits" / "mine.txt").write_text("keep")
        with pytest.raises(ConfigError, match="something else"):
            create_experiment(shapes_dataset, "5+3", "name", tmp_path, overwrite=True)
        assert (tmp_path / "splits" / "mine.txt").read_text() == "keep"


def test_coco_excerpt(real_data: Path, tmp_path: Path) -> None:
    experiment = create_experiment(resolve_dataset(str(real_data / "coco-tiny")), "70+10", "name", tmp_path)
    first, second = experiment.manifest.steps
    assert first.classes[0] == "airplane"
    assert second.classes[-1] == "zebra"
    document = json.loads(experiment.step_train_path(2).read_text())
    assert {annotation["category_id"] for annotation in document["annotations"]} <= set(
        experiment.manifest.classes.of_step(2).category_ids
    )
