"""Real runs of a family without objectness: every kind of step, banks, students of another family."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch

from ciod_core.config.schema import Config, ModelConfig, ResamplerConfig
from ciod_core.data.formats.source import DatasetSource
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import Experiment
from ciod_core.methods.erd import ErdConfig
from ciod_core.model.checkpoint import load_detector, read_info
from ciod_core.runs.consolidate import consolidate
from ciod_core.runs.distill_student import distill_into
from ciod_core.runs.train import train_step
from ciod_core.teachers.bank import KnowledgeBank
from ciod_core.teachers.distill import distill
from ciod_core.teachers.sources import TeacherOptions
from tests.helpers.logs import losses_logged
from tests.training.conftest import tiny_config

LOSSES = {
    "crs-ckd": {"old class", "old box"},
    "erd": {"old class", "old box"},
    "rilod": {"old class", "old box", "old feature"},
    "sid": {"old class", "old feature", "old relation"},
    "lwf": {"old class"},
    "held-branch": {"old class", "old box"},
    "frozen-branch": set[str](),
}


def config(method: str = "crs-ckd", model: str = "gfl-micro") -> Config:
    # The teacher of a tiny run is sure of nothing; what stands out a little has to do.
    return tiny_config(method, epochs=1, log_interval=1).model_copy(
        update={
            "model": ModelConfig(name=model, backbone_weights="none"),
            "resampler": ResamplerConfig(rule="fixed", fixed_score=1e-4),
            "erd": ErdConfig(num_std=1.0),
        }
    )


@pytest.fixture(scope="module")
def base_folder(shapes_dataset: DatasetSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps, 4 + 4 classes, the first one trained; read only."""
    folder = tmp_path_factory.mktemp("gfl") / "experiment"
    create_experiment(shapes_dataset, "4+4", "name", folder)
    train_step(Experiment.open(folder), config("finetune"))
    return folder


@pytest.fixture
def experiment(base_folder: Path, tmp_path: Path) -> Experiment:
    return Experiment.open(Path(shutil.copytree(base_folder, tmp_path / "experiment")))


@pytest.mark.parametrize("method", LOSSES)
def test_a_real_step(method: str, experiment: Experiment) -> None:
    run = train_step(experiment, config(method), teacher="step1", run="second")
    assert run.status == "finished" and run.metrics is not None
    for record in losses_logged(experiment, run):
        assert record.keys() == {"loss", "class", "box", "edges"} | LOSSES[method]
        assert all(math.isfinite(value) for value in record.values())
    assert losses_logged(experiment, run)[-1]["loss"] > 0
    info = read_info(experiment.weights_path("second"))
    assert (info.model.name, len(info.classes)) == ("gfl-micro", 8)


def test_a_bank_teaches_both_families(experiment: Experiment) -> None:
    bank = distill(experiment, config(), TeacherOptions("step1"))
    known = [knowledge for _, knowledge in KnowledgeBank(bank.path).items()]
    assert any(len(knowledge) for knowledge in known) and all(knowledge.responses == {} for knowledge in known)
    run = train_step(experiment, config(), teacher="step1", run="banked", knowledge=bank.path)
    assert run.status == "finished" and "knowledge" in run.inputs
    for model in ("gfl-micro", "yolox-micro"):
        student = distill_into(
            experiment, config(model=model), TeacherOptions("step1"), name=f"into-{model}", overwrite=True
        )
        assert student.status == "finished"
        assert all(math.isfinite(record["loss"]) for record in losses_logged(experiment, student))


def test_one_network_again(experiment: Experiment) -> None:
    train_step(experiment, config("frozen-branch"), teacher="step1", run="branched")
    teacher, one = load_detector(experiment.weights_path("step1"))[0], experiment.weights_path("one")
    branched = load_detector(experiment.weights_path("branched"))[0]
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255
    with torch.inference_mode():
        found, expected = branched(images).heads()[0], teacher(images)
    assert torch.equal(found.boxes_BA4, expected.boxes_BA4)
    assert torch.equal(found.class_logits_BAC[..., :4], expected.class_logits_BAC)
    run = consolidate(experiment, config(), teacher="branched", run="one")
    assert run.status == "finished" and read_info(one).head_classes == (8,)
