"""The size at which a detector sees images: it travels with the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ciod
from ciod_core.config.resolve import resolve_config
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource
from ciod_core.data.loading.dataset import DetectionDataset
from ciod_core.data.loading.loader import make_loader
from ciod_core.data.loading.transforms import EvalTransform
from ciod_core.errors import ConfigError
from ciod_core.evaluation.evaluate import predict
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import Experiment
from ciod_core.model.checkpoint import load_detector
from ciod_core.runs.spec import plan_run, settle
from ciod_core.runs.train import train_step
from ciod_core.teachers.bank import KnowledgeBank
from ciod_core.teachers.distill import distill
from ciod_core.teachers.sources import TeacherOptions

FLAGS = {
    "model.name": "yolox-micro", "data.image_size": 96, "data.shorter_side": 64, "data.workers": 0,
    "training.epochs": 1, "training.batch_size": 8, "training.device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def experiment(shapes_dataset: DatasetSource, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A trained step 1 whose images, all of them square, are seen at 64 pixels instead of 96."""
    found = create_experiment(shapes_dataset, "5+3", "name", tmp_path_factory.mktemp("sizes") / "experiment")
    train_step(found, resolve_config(flags=FLAGS))
    return found


def test_weights_tell_how_images_are_resized(experiment: Experiment, shapes_dataset: DatasetSource) -> None:
    weights = experiment.weights_path("step1")
    detector, info = load_detector(weights)
    assert info.preprocessing.sizes == {"image_size": 96, "shorter_side": 64}
    # What evaluation detects at that size is what users get.
    images = shapes_dataset.val.image_dir
    dataset = DetectionDataset(read_coco(shapes_dataset.val.annotations), images, info.classes, EvalTransform(64))
    loader = make_loader(dataset, 4, shuffle=False)
    config = resolve_config(flags={"evaluation.score_threshold": 1e-5}).evaluation
    expected = predict(detector.eval(), loader, info.classes, config, torch.device("cpu"))
    name = str(dataset.table.file_names_I[0])
    found = ciod.load(weights, device="cpu").predict(images / name, score=1e-5)
    own_D = expected.image_ids_D == dataset.table.image_ids_I[0]
    assert len(found) == own_D.sum() > 0
    np.testing.assert_allclose(found.scores, np.sort(expected.scores_D[own_D])[::-1], atol=1e-5)


def test_a_step_sees_images_as_its_teacher_did(experiment: Experiment) -> None:
    def sizes(**data: int) -> tuple[int | None, ...]:
        config = resolve_config(flags={f"data.{key}": value for key, value in data.items()})
        return tuple(settle(plan_run(experiment, config, teacher="step1")).config.data.sizes.values())

    assert sizes() == (96, 64)
    assert sizes(image_size=128) == (128, None)
    assert sizes(shorter_side=32) == (96, 32)
    assert sizes(image_size=128, shorter_side=96) == (128, 96)


def test_a_bank_of_another_size_is_refused(experiment: Experiment, tmp_path: Path) -> None:
    config = resolve_config(flags={"training.device": "cpu", "data.workers": 0, "training.epochs": 1})
    bank = distill(experiment, config, TeacherOptions("step1"), out=tmp_path / "bank.safetensors").path
    identity = KnowledgeBank(bank).identity
    assert (identity.image_size, identity.shorter_side) == (96, 64)
    other = resolve_config(flags=FLAGS | {"training.seed": 1, "data.shorter_side": 32})
    train_step(experiment, other, run="seen-smaller")
    with pytest.raises(ConfigError, match=r"its (teacher_sha256|shorter_side) is"):
        train_step(experiment, config, teacher="seen-smaller", knowledge=bank)


def test_pairs_and_a_limit_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"data\.shorter_side is 64, but data\.scale_pairs draws it"):
        resolve_config(flags={"data.shorter_side": 64, "data.scale_pairs": True})
