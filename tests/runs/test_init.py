"""Step 1 from weights of other classes: everything but class rows is taken over, recorded and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ciod_core.classes import class_table
from ciod_core.config.schema import Config, ModelConfig
from ciod_core.data.formats.source import DatasetSource
from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import Experiment
from ciod_core.files import sha256_of_file
from ciod_core.methods.registry import build_method
from ciod_core.model.checkpoint import CheckpointInfo, load_detector, read_info, save_detector
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.runs.compare.plan import Epochs, config_of, suite_runs
from ciod_core.runs.compare.runner import is_done
from ciod_core.runs.spec import plan_run, settle
from ciod_core.runs.train import _build_models, train_step
from tests.helpers.listeners import StopInEpoch2
from tests.helpers.networks import lively_detector
from tests.training.conftest import tiny_config

OTHER = class_table([[("cat", 7), ("dog", 3), ("owl", 9)]])


@pytest.fixture
def experiment(shapes_dataset: DatasetSource, tmp_path: Path) -> Experiment:
    return create_experiment(shapes_dataset, "5+3", "name", tmp_path / "experiment")


def write_init(path: Path, seed: int = 0) -> Path:
    info = CheckpointInfo(
        model=ModelConfig(name="yolox-micro", backbone_weights="none"),
        classes=OTHER,
        preprocessing=Preprocessing(image_size=96),
        run="other",
        step=1,
        method="base",
        parent_sha256=None,
    )
    save_detector(path, lively_detector("yolox-micro", 3, seed).state_dict(), info)
    return path


def starting_from(path: Path, **training: Any) -> Config:
    config = tiny_config(**training)
    model = ModelConfig(init=str(path))
    return Config(model=model, training=config.training, data={"workers": 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["auto", "joint"])
def test_everything_but_class_rows_is_taken_over(method: str, experiment: Experiment, tmp_path: Path) -> None:
    config = starting_from(write_init(tmp_path / "other.safetensors"))
    config = config.model_copy(update={"method": config.method.model_copy(update={"name": method})})
    spec = settle(plan_run(experiment, config))
    assert (spec.config.model.name, spec.config.data.image_size) == ("yolox-micro", 96)
    student, teacher = _build_models(spec, build_method(spec.config))
    assert teacher is None
    assert student.head_classes == (8 if method == "joint" else 5,)
    before = lively_detector("yolox-micro", 3).state_dict()
    for name, tensor in student.state_dict().items():
        if "cls_conv" not in name:
            assert torch.equal(tensor, before[name]), name


def test_a_run_records_where_it_started(experiment: Experiment, tmp_path: Path) -> None:
    path = write_init(tmp_path / "other.safetensors")
    run = train_step(experiment, starting_from(path, epochs=1))
    assert (run.name, run.status) == ("step1", "finished")
    assert run.inputs["init"].sha256 == sha256_of_file(path)
    info = read_info(experiment.weights_path("step1"))
    assert (len(info.classes), info.source, info.model.name) == (5, None, "yolox-micro")
    later = train_step(experiment, tiny_config("finetune", epochs=1), teacher="step1")
    assert "init" not in later.inputs


def test_resuming_needs_the_same_start(experiment: Experiment, tmp_path: Path) -> None:
    path = write_init(tmp_path / "other.safetensors")
    config = starting_from(path, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train_step(experiment, config, listener=StopInEpoch2())
    write_init(path, seed=1)
    with pytest.raises(ConfigError, match=r"began with another `model\.init`"):
        train_step(experiment, config, resume=True)
    write_init(path)
    assert train_step(experiment, config, resume=True).status == "finished"
    whole = train_step(experiment, config, run="whole")
    resumed, uninterrupted = (load_detector(experiment.weights_path(name))[0] for name in ("step1", whole.name))
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, uninterrupted.state_dict()[name]), name


def test_mistakes(experiment: Experiment, tmp_path: Path) -> None:
    path = write_init(tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="which is yolox-micro; leave it out"):
        settle(plan_run(experiment, Config(model=ModelConfig(name="yolox-s", init=str(path)))))
    with pytest.raises(CheckpointError, match="does not exist"):
        train_step(experiment, Config(model=ModelConfig(init=str(tmp_path / "nowhere.safetensors"))))
    torch.save({"x": torch.zeros(1)}, tmp_path / "published.pth")
    with pytest.raises(CheckpointError, match="ciod import"):
        train_step(experiment, Config(model=ModelConfig(init=str(tmp_path / "published.pth"))))
    assert not experiment.read().runs


def test_a_run_with_a_teacher_starts_from_it(experiment: Experiment, tmp_path: Path) -> None:
    path = write_init(tmp_path / "other.safetensors")
    config = starting_from(path, epochs=1)
    train_step(experiment, config)
    with pytest.raises(ConfigError, match="only step 1 and joint training start from it"):
        train_step(experiment, config, teacher="step1")
    runs = {run.name: config_of(run, config, Epochs(1, 1)) for run in suite_runs(2, ["finetune"], [0])}
    inits = {name: settings.model.init for name, settings in runs.items()}
    assert inits == {"step1": str(path), "joint2": str(path), "step2-finetune": None}
    train_step(experiment, runs["step2-finetune"], teacher="step1")
    wanted = next(run for run in suite_runs(2, ["finetune"], [0]) if run.name == "step2-finetune")
    assert is_done(experiment, wanted, runs["step2-finetune"])
