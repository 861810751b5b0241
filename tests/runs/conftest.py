"""A small chain whose first step is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciod_core.data.formats.source import DatasetSource
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import Experiment
from ciod_core.runs.train import train_step
from tests.training.conftest import tiny_config


@pytest.fixture(scope="package")
def taught_folder(shapes_dataset: DatasetSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 + 3 classes, the first step trained; read only."""
    folder = tmp_path_factory.mktemp("taught") / "experiment"
    create_experiment(shapes_dataset, "5+3", "name", folder)
    train_step(Experiment.open(folder), tiny_config(epochs=1))
    return folder
