"""The demo's experiment and settings; how it is compared is tested with the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ciod_core.demo.shapes import generate_shapes
from ciod_core.demo.story import FULL, QUICK, Story, demo_config, demo_experiment
from ciod_core.errors import CiodError, ConfigError
from ciod_core.experiment.create import create_experiment

IMAGES = {"train_images": 16, "val_images": 8}
TINY = replace(FULL, **IMAGES)


@pytest.mark.parametrize("story", [TINY, replace(QUICK, **IMAGES)], ids=["full", "quick"])
def test_images_are_painted_and_split_once(story: Story, tmp_path: Path) -> None:
    experiment = demo_experiment(tmp_path / "demo", 3, story)
    plan = experiment.read().plan
    assert plan is not None and plan.text == story.plan
    assert (experiment.folder / "data").is_dir()
    before = experiment.manifest_path.read_bytes()
    assert demo_experiment(tmp_path / "demo", 3, story).manifest_path.read_bytes() == before


def test_a_folder_made_with_another_seed_is_refused(tmp_path: Path) -> None:
    generate_shapes(tmp_path / "demo" / "data", **IMAGES, seed=1)
    with pytest.raises(CiodError, match="other parameters"):
        demo_experiment(tmp_path / "demo", 2, TINY)
    assert not (tmp_path / "demo" / "experiment.json").exists()


def test_another_experiment_in_the_way(tmp_path: Path) -> None:
    create_experiment(generate_shapes(tmp_path / "data", **IMAGES), "7+1", "name", tmp_path / "other")
    with pytest.raises(ConfigError, match="it holds another experiment; pass an empty folder"):
        demo_experiment(tmp_path / "other", 0, TINY)
    assert not (tmp_path / "other" / "data").exists()


def test_the_settings_are_those_of_a_small_detector() -> None:
    config = demo_config(FULL)
    assert (config.model.name, config.data.image_size, config.data.workers) == ("yolox-micro", 96, 0)
    assert (demo_config(QUICK).data.image_size, demo_config(QUICK).training.batch_size) == (64, 8)
