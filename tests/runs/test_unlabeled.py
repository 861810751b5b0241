"""Further images without labels: the teacher alone is learned from on them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ciod_core.config.schema import Config
from ciod_core.errors import ConfigError, DataError
from ciod_core.experiment.folder import Experiment
from ciod_core.runs.spec import plan_run
from ciod_core.runs.train import train_step, training_data
from tests.training.conftest import tiny_config


@pytest.fixture
def experiment(taught_folder: Path, tmp_path: Path) -> Experiment:
    return Experiment.open(Path(shutil.copytree(taught_folder, tmp_path / "experiment")))


def with_photos(folder: Path, method: str = "crs-ckd") -> Config:
    (folder / "more").mkdir(parents=True)
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "more" / f"{number}.png")
    config = tiny_config(method, epochs=1)
    return config.model_copy(update={"data": config.data.model_copy(update={"unlabeled": str(folder)})})


def test_they_are_added_without_labels(experiment: Experiment, tmp_path: Path) -> None:
    config = with_photos(tmp_path / "photos")
    spec = plan_run(experiment, config, teacher="step1")
    own = training_data(experiment, plan_run(experiment, tiny_config(), teacher="step1"), ())
    data = training_data(experiment, spec, ())
    assert data.beside_I is not None and own.beside_I is None
    assert data.beside_I.sum() == 3
    assert data.table.num_boxes == own.table.num_boxes
    assert not data.table.images_with(np.ones(data.table.num_boxes, dtype=np.bool_))[data.beside_I].any()
    assert len(set(data.table.image_ids_I.tolist())) == own.table.num_images + 3
    for name in data.table.file_names_I.tolist():
        assert (data.images / name).is_file()


@pytest.mark.parametrize("method", ["crs-ckd", "pseudo-label", "lwf", "auto", "frozen-branch"])
def test_a_run_with_them(method: str, experiment: Experiment, tmp_path: Path) -> None:
    run = train_step(experiment, with_photos(tmp_path / "photos", method), teacher="step1", run="with")
    assert run.status == "finished" and run.config["data"]["unlabeled"] == str(tmp_path / "photos")


def test_mistakes(experiment: Experiment, tmp_path: Path) -> None:
    config = with_photos(tmp_path / "photos")
    with pytest.raises(ConfigError, match="requires `teacher`"):
        plan_run(experiment, config)
    single = config.model_copy(update={"training": config.training.model_copy(update={"batch_size": 1})})
    with pytest.raises(ConfigError, match="fills half of every batch"):
        train_step(experiment, single, teacher="step1")
    shutil.rmtree(tmp_path / "photos")
    with pytest.raises(DataError, match="no such image folder"):
        train_step(experiment, config, teacher="step1")
