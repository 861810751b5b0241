"""Tiny training runs on generated data: 24 images of 64 pixels, three iterations an epoch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ciod_core.classes import class_table
from ciod_core.config.schema import (
    Config,
    DataConfig,
    EvaluationConfig,
    MethodConfig,
    ModelConfig,
    ResamplerConfig,
    TrainingConfig,
)
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource
from ciod_core.data.loading.dataset import DetectionDataset
from ciod_core.data.loading.loader import make_loader
from ciod_core.data.loading.transforms import TrainTransform
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import Experiment
from ciod_core.methods.crs_ckd import DistillerConfig
from ciod_core.methods.registry import build_method
from ciod_core.teachers.base import TeacherIdentity
from ciod_core.teachers.network import NetworkTeacher
from ciod_core.training.progress import TrainingListener
from ciod_core.training.trainer import Trainer
from tests.helpers.networks import lively_detector

MakeTrainer = Callable[..., Trainer]
NUM_OLD, NUM_ALL = 5, 8


def tiny_config(method: str = "crs-ckd", **training: Any) -> Config:
    """A configuration for the tiny data with every setting that steers training spelled out."""
    settings: dict[str, Any] = {
        "epochs": 2, "batch_size": 8, "optimizer": "adamw", "lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4,
        "schedule": "cosine", "final_lr_ratio": 0.01, "warmup_iterations": 2, "warmup_ratio": 0.1,
        "clip_grad_norm": 10.0, "ema_decay": 0.998, "seed": 3, "device": "cpu", "precision": "fp32",
        "channels_last": False, "deterministic": True, "log_interval": 2,
    }  # fmt: skip
    return Config(
        model=ModelConfig(name="yolox-micro", backbone_weights="none"),
        data=DataConfig(image_size=64, multi_scale=True, photometric=True, flip=0.5, workers=0),
        training=TrainingConfig(**(settings | training)),
        method=MethodConfig(name=method),
        # The teacher of a tiny run is sure of nothing; low thresholds make it speak.
        resampler=ResamplerConfig(
            rule="crs", center_score=0.02, other_iou=0.65, min_score=0.001, nms_iou=0.95, ground_truth_iou=0.9
        ),
        distiller=DistillerConfig(weighting="balanced", target="soft"),
        evaluation=EvaluationConfig(batch_size=12),
    )


@pytest.fixture(scope="session")
def untrained(shapes_dataset: DatasetSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment 5+3 without runs; read only."""
    folder = tmp_path_factory.mktemp("untrained") / "experiment"
    create_experiment(shapes_dataset, "5+3", "name", folder)
    return folder


@pytest.fixture
def experiment(untrained: Path, tmp_path: Path) -> Experiment:
    """A copy of the experiment without runs that a test may train in."""
    return Experiment.open(Path(shutil.copytree(untrained, tmp_path / "experiment")))


@pytest.fixture(scope="session")
def make_trainer(shapes_dataset: DatasetSource) -> MakeTrainer:
    """Build a trainer of the tiny data: `make_trainer("crs-ckd", optimizer="sgd")` has a teacher of five classes."""
    table = read_coco(shapes_dataset.train.annotations)
    classes = class_table([[(category.name, category.id) for category in table.categories]])

    def make(
        method: str = "crs-ckd", listener: TrainingListener | None = None, device: str = "cpu", **training: Any
    ) -> Trainer:
        config = tiny_config(method, **training)
        dataset = DetectionDataset(
            table,
            shapes_dataset.train.image_dir,
            classes,
            TrainTransform(64, True, True, 0.5),
            seed=config.training.seed,
        )
        built, teacher = build_method(config), None
        if method == "crs-ckd":
            identity = TeacherIdentity(teacher_sha256="", classes=(), image_size=64, resampler=config.resampler)
            images = LocatedTable(table, shapes_dataset.train.image_dir)
            teacher = NetworkTeacher.beside_student(
                lively_detector(num_classes=NUM_OLD, seed=1),
                built,
                identity,
                images,
                device=torch.device(device),
                training=config.training,
            )
        student = lively_detector(num_classes=NUM_OLD, seed=1)
        torch.manual_seed(2)
        student.add_classes(NUM_ALL - NUM_OLD)
        return Trainer(
            student=student,
            teacher=teacher,
            method=built,
            load_epoch=lambda epoch: make_loader(dataset, 8, shuffle=True, seed=config.training.seed, epoch=epoch),
            config=config.training,
            device=torch.device(device),
            listeners=[listener] if listener else [],
        )

    return make
