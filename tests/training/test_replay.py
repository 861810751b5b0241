"""Replay in whole runs: with every method, resumed, over three steps, and no trace of it when it is off."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciod_core.config.schema import Config, DataConfig, ReplayConfig
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource
from ciod_core.errors import CheckpointError
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import WEIGHTS_KEY, Experiment
from ciod_core.methods.registry import METHODS
from ciod_core.methods.unlabeled import unlabeled_mask
from ciod_core.model.checkpoint import load_detector
from ciod_core.runs.train import train_step
from ciod_core.training import trainer
from tests.helpers.listeners import StopInEpoch2
from tests.training.conftest import NUM_OLD, MakeTrainer, tiny_config

METHOD_NAMES = [name for name in METHODS if name != "joint"]


@pytest.fixture(scope="module")
def base_folder(shapes_dataset: DatasetSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps, 4 + 2 + 2 classes, each image in one step, the first step trained; read only."""
    folder = tmp_path_factory.mktemp("base") / "experiment"
    create_experiment(shapes_dataset, "4+2x2", "name", folder, protocol="loco")
    train_step(Experiment.open(folder), tiny_config(epochs=1))
    return folder


@pytest.fixture
def experiment(base_folder: Path, tmp_path: Path) -> Experiment:
    return Experiment.open(Path(shutil.copytree(base_folder, tmp_path / "experiment")))


def replaying(method: str = "finetune", epochs: int = 1, images: int = 5, **data: Any) -> Config:
    config = tiny_config(method, epochs=epochs, log_interval=1)
    settings = DataConfig.model_validate(config.data.model_dump() | data)
    return config.model_copy(update={"replay": ReplayConfig(images=images), "data": settings})


def weights_of(experiment: Experiment, run: str) -> dict[str, torch.Tensor]:
    return load_detector(experiment.weights_path(run))[0].state_dict()


def assert_same_weights(experiment: Experiment, run: str, other: str) -> None:
    first, second = weights_of(experiment, run), weights_of(experiment, other)
    assert first.keys() == second.keys()
    assert [name for name, tensor in first.items() if not torch.equal(tensor, second[name])] == []


def kept_ids(run: RunRecord) -> set[int]:
    return {image.image_id for image in run.replayed}


@pytest.mark.parametrize("missing_labels", ["ignore", "background"])
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_real_step_with_every_method(method: str, missing_labels: str, experiment: Experiment) -> None:
    # So low a score that suspicion, whose rule is tested elsewhere, plays a part from the first iteration on.
    config = replaying(method, missing_labels=missing_labels, missing_score=1e-5)
    run = train_step(experiment, config, teacher="step1")
    assert run.name == ("step2-replay" if method == "auto" else f"step2-{method}-replay")
    assert (run.status, len(run.replayed)) == ("finished", 5)
    assert experiment.read().run(run.name).replayed == run.replayed
    assert kept_ids(run) <= set(
        read_coco(experiment.read().train_file(1).locate(experiment.folder)).image_ids_I.tolist()
    )
    assert all(bool(tensor.isfinite().all()) for tensor in weights_of(experiment, run.name).values())


def test_what_counts_as_background_and_what_is_kept_makes_a_difference(experiment: Experiment) -> None:
    configs = {
        "ignore": replaying(missing_score=1e-5),
        "background": replaying(missing_score=1e-5, missing_labels="background"),
        "fewer": replaying(images=3),
        "off": replaying(images=0),
    }
    runs = [train_step(experiment, config, teacher="step1", run=name) for name, config in configs.items()]
    assert len({run.outputs[WEIGHTS_KEY].sha256 for run in runs}) == len(runs)
    biases = [weights_of(experiment, name)["head.levels.0.obj_conv.bias"] for name in configs]
    assert not any(torch.equal(biases[0], other) for other in biases[1:])


def test_resumed_equals_uninterrupted_and_chooses_nothing_anew(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_step(experiment, replaying(epochs=2), teacher="step1", run="whole")
    with pytest.raises(KeyboardInterrupt):
        train_step(experiment, replaying(epochs=2), teacher="step1", run="again", listener=StopInEpoch2())
    assert experiment.read().run("again").replayed == whole.replayed
    monkeypatch.setattr("ciod_core.runs.train.choose_replayed", None)
    resumed = train_step(experiment, replaying(epochs=2), teacher="step1", run="again", resume=True)
    assert (resumed.metrics, resumed.replayed) == (whole.metrics, whole.replayed)
    assert_same_weights(experiment, "again", "whole")


def test_resuming_uses_the_recorded_images_whatever_would_be_chosen_now(experiment: Experiment) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_step(experiment, replaying(epochs=2), teacher="step1", run="again", listener=StopInEpoch2())
    record = experiment.read().run("again")
    experiment.put_run(record.model_copy(update={"replayed": record.replayed[:2]}))
    assert len(train_step(experiment, replaying(epochs=2), teacher="step1", run="again", resume=True).replayed) == 2


def test_a_third_step_replays_what_the_second_kept_and_no_other(experiment: Experiment) -> None:
    second = train_step(experiment, replaying(images=3), teacher="step1")
    third = train_step(experiment, replaying(images=1000), teacher=second.name)
    assert third.name == "step3-finetune-replay"
    own = set(read_coco(experiment.read().train_file(2).locate(experiment.folder)).image_ids_I.tolist())
    assert kept_ids(third) == own | kept_ids(second)
    assert {image for image in third.replayed if image.steps == (1,)} == set(second.replayed)


def test_a_changed_image_stops_the_next_step_before_anything_is_written(experiment: Experiment) -> None:
    second = train_step(experiment, replaying(images=3), teacher="step1")
    changed = (second.replayed[0].model_copy(update={"sha256": "0" * 64}), *second.replayed[1:])
    experiment.put_run(second.model_copy(update={"replayed": changed}))
    before = experiment.manifest_path.read_bytes()
    with pytest.raises(
        CheckpointError, match=r"^[^\n]*was changed since run 'step2-finetune-replay' replayed it[^\n]*$"
    ):
        train_step(experiment, replaying(images=1000), teacher=second.name)
    assert experiment.manifest_path.read_bytes() == before


@pytest.mark.parametrize("method", ["finetune", "joint"])
def test_step_1_and_joint_runs_have_nothing_to_replay(method: str, experiment: Experiment) -> None:
    run = train_step(experiment, replaying(method, images=5), run="again")
    plain = train_step(experiment, replaying(method, images=0), run="plain")
    assert run.replayed == () and run.config["replay"]["images"] == 5
    assert run.metrics == plain.metrics
    assert_same_weights(experiment, "again", "plain")


def test_without_a_budget_no_other_setting_of_replay_matters(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    build = trainer.Trainer.__init__

    def spy(self: trainer.Trainer, **arguments: Any) -> None:
        build(self, **arguments)
        made.append(self.suspects)

    monkeypatch.setattr(trainer.Trainer, "__init__", spy)
    train_step(experiment, tiny_config("erd", epochs=1, log_interval=1), teacher="step1", run="plain")
    train_step(experiment, replaying("erd", images=0, missing_score=0.0), teacher="step1", run="off")
    assert made == [None, None]
    assert_same_weights(experiment, "plain", "off")


def test_batches_without_old_images_are_trained_on_as_ever(make_trainer: MakeTrainer) -> None:
    """Even where suspicion is at work in other batches."""
    plain, suspicious = make_trainer("crs-ckd"), make_trainer("crs-ckd")
    suspicious.suspects = partial(unlabeled_mask, min_score=0.0)
    dataset = suspicious.load_epoch(0)._loader.dataset
    dataset.missing_IC = np.zeros((len(dataset), NUM_OLD + 1), dtype=np.bool_)
    for each in (plain, suspicious):
        each.train_epoch()
    theirs = plain.student.state_dict()
    for name, tensor in suspicious.student.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
