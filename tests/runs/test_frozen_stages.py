"""Frozen stages of the backbone, through whole runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ciod_core.config.schema import Config, MethodConfig
from ciod_core.experiment.folder import Experiment
from ciod_core.model.checkpoint import load_detector
from ciod_core.runs.train import train_step
from tests.training.conftest import tiny_config


@pytest.mark.parametrize("method", ["finetune", "held-branch"])
def test_they_keep_weights_and_statistics_while_all_else_of_the_trunk_learns(
    method: str, taught_folder: Path, tmp_path: Path
) -> None:
    experiment = Experiment.open(shutil.copytree(taught_folder, tmp_path / "experiment"))
    config = tiny_config(frozen_stages=2, epochs=1)
    updating: Config = config.model_copy(update={"method": MethodConfig(name=method, batch_norm="update")})
    run = train_step(experiment, updating, teacher="step1")
    before, after = (load_detector(experiment.weights_path(name))[0].state_dict() for name in ("step1", run.name))
    trunk = {name for name, tensor in before.items() if name.startswith(("backbone.", "neck.")) and tensor.ndim > 1}
    still = {name for name in trunk if torch.equal(after[name], before[name])}
    assert still == {name for name in trunk if name.startswith(("backbone.stem.", "backbone.stage2."))}
    statistics = [name for name in before if name.startswith("backbone.stem.") and "running" in name]
    assert statistics and all(torch.equal(after[name], before[name]) for name in statistics)
