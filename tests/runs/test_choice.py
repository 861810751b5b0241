"""The method that `auto` chooses, and that it trains exactly what the chosen method would."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ciod_core.config.schema import Config, MethodConfig, ReplayConfig, ResamplerConfig, TrainingConfig
from ciod_core.data.annotations.merging import LocatedTable, merge_located
from ciod_core.errors import ConfigError
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.step_data import read_step
from ciod_core.model.checkpoint import Source, load_detector, read_info, save_detector
from ciod_core.runs import choice
from ciod_core.runs.choice import choose_method
from ciod_core.runs.compare.plan import Epochs, suite_runs
from ciod_core.runs.compare.runner import is_done
from ciod_core.runs.spec import PRETRAINED_LR, RunSpec, plan_run, settle
from ciod_core.runs.train import train_step, training_table
from tests.helpers.listeners import RecordKeeper, StopInEpoch2
from tests.training.conftest import tiny_config

CPU = torch.device("cpu")
# The teacher of a tiny run is sure of nothing.
LOW = {"resampler": ResamplerConfig(center_score=0.0, min_score=0.0)}


@pytest.fixture
def experiment(taught_folder: Path, tmp_path: Path) -> Experiment:
    return Experiment.open(Path(shutil.copytree(taught_folder, tmp_path / "experiment")))


def auto(**sections: Any) -> Config:
    return tiny_config("auto", epochs=1).model_copy(update=LOW | sections)


def spec_of(experiment: Experiment, config: Config) -> tuple[RunSpec, LocatedTable]:
    spec = settle(plan_run(experiment, config, teacher="step1"))
    return spec, training_table(experiment, spec)


def chosen(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, old: list[float], new: int) -> RunSpec:
    monkeypatch.setattr(choice, "_count_objects", lambda *_: (torch.tensor(old), new, 7))
    return choose_method(*spec_of(experiment, auto()), CPU)


def test_many_old_objects_mean_distillation_and_few_a_branch(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = chosen(experiment, monkeypatch, old=[30.0, 0.0, 10.0, 10.0, 0.0], new=100)
    assert many.config.method.name == "crs-ckd"
    seen = "0.50 old objects per new one in 7 images, enough for 3 of 5 old classes"
    assert many.choice == f"method crs-ckd: the teacher sees {seen}"
    few = chosen(experiment, monkeypatch, old=[9.0, 10.0, 10.0, 10.0, 10.0], new=100)
    assert few.config.method.name == "frozen-branch"
    assert few.choice is not None and "0.49 old objects per new one in 7 images" in few.choice
    assert few.choice.endswith("too few to hold them")


def test_many_objects_of_few_classes_hold_no_other(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    one = chosen(experiment, monkeypatch, old=[900.0, 10.0, 9.0, 0.0, 0.0], new=100)
    assert one.config.method.name == "frozen-branch"
    assert one.choice is not None and "enough for 2 of 5 old classes" in one.choice


def test_what_needs_no_look(experiment: Experiment) -> None:
    spec, images = spec_of(experiment, auto())
    assert choose_method(spec, images, CPU, from_bank=True).config.method.name == "crs-ckd"


def test_objects_are_counted_by_score_and_not_where_a_label_is(experiment: Experiment) -> None:
    spec, images = spec_of(experiment, auto())
    old, new, looked_at = choice._count_objects(spec, images, CPU)
    table = images.table
    assert looked_at == table.num_images <= choice.IMAGES_TO_LOOK_AT
    assert new == table.num_boxes
    assert old.shape == (5,) and old.sum() > 0
    # With labels that cover every image, each teacher's box conflicts with one.
    spec = settle(
        plan_run(
            experiment, auto(resampler=LOW["resampler"].model_copy(update={"ground_truth_iou": 0.0})), teacher="step1"
        )
    )
    assert not choice._count_objects(spec, images, CPU)[0].any()


def test_replayed_labels_of_old_classes_count_as_old_objects(experiment: Experiment) -> None:
    spec, images = spec_of(experiment, auto(resampler=ResamplerConfig(center_score=1.0)))
    _, first = spec_of(experiment, auto())
    before = choice._count_objects(spec, images, CPU)
    merged = merge_located([first, read_step(experiment, experiment.read(), 1)])
    after = choice._count_objects(spec, merged, CPU)
    assert not before[0].any() and after[0].sum() == after[0].long().sum() > 0


@pytest.mark.parametrize("threshold", [0.0, 1e9])
def test_a_run_is_what_the_chosen_method_would_have_trained(
    threshold: float, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "ENOUGH_OLD_OBJECTS", threshold)
    keeper = RecordKeeper()
    run = train_step(experiment, auto(), teacher="step1", listener=keeper)
    method = "frozen-branch" if threshold else "crs-ckd"
    assert keeper.notes[0] == run.choice
    assert [note.startswith("branches: 1, the last adds") for note in keeper.notes[1:]] == [True] * bool(threshold)
    assert (run.name, run.method) == ("step2", method)
    assert run.choice is not None and run.choice.startswith(f"method {method}")
    assert run.config["method"]["name"] == method
    plain = auto(method=MethodConfig(name=method))
    same = train_step(experiment, plain, teacher="step1", run="plain")
    assert same.choice is None
    ours, theirs = (load_detector(experiment.weights_path(name))[0].state_dict() for name in ("step2", "plain"))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_resumed_run_keeps_its_method_whatever_would_be_chosen_now(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "ENOUGH_OLD_OBJECTS", 1e9)
    config = auto(training=tiny_config(epochs=2).training)
    with pytest.raises(KeyboardInterrupt):
        train_step(experiment, config, teacher="step1", listener=StopInEpoch2())
    monkeypatch.setattr(choice, "ENOUGH_OLD_OBJECTS", 0.0)
    run = train_step(experiment, config, teacher="step1", resume=True)
    assert (run.method, run.status) == ("frozen-branch", "finished")
    assert run.choice is not None and "frozen-branch" in run.choice
    with pytest.raises(ConfigError, match=r"method\.name is crs-ckd"):
        claimed = config.model_copy(update={"method": MethodConfig(name="crs-ckd")})
        experiment.put_run(run.model_copy(update={"status": "interrupted"}))
        train_step(experiment, claimed, teacher="step1", run="step2", resume=True)


def test_a_comparison_finds_its_runs_again(experiment: Experiment) -> None:
    suite = {run.name: run for run in suite_runs(2, ["auto", "crs-ckd"], [0], upper_bounds=False)}
    assert list(suite) == ["step1", "step2", "step2-crs-ckd"]
    config = auto()
    assert not is_done(experiment, suite["step2"], config)
    train_step(experiment, config, teacher="step1")
    assert is_done(experiment, suite["step2"], config)
    assert Epochs(1, 1).of(suite["step2"]) == 1


def test_pretrained_weights_learn_slowly_where_a_method_changes_what_it_keeps(experiment: Experiment) -> None:
    detector, info = load_detector(experiment.weights_path("step1"))
    imported = info.model_copy(update={"source": Source(file="x.pth", sha256="0" * 64)})
    path = experiment.folder / "imported.safetensors"
    save_detector(path, detector.state_dict(), imported)

    def lr(method: str, teacher: str | Path = path, **training: Any) -> float:
        config = Config(method=MethodConfig(name=method), training=TrainingConfig(**training))
        return settle(plan_run(experiment, config, teacher=teacher)).config.training.lr

    usual = TrainingConfig().lr
    assert lr("crs-ckd") == lr("pseudo-label") == PRETRAINED_LR < usual
    assert lr("frozen-branch") == lr("finetune") == lr("auto") == usual
    assert lr("crs-ckd", lr=0.01) == 0.01
    assert lr("crs-ckd", teacher="step1") == usual
    run = train_step(experiment, tiny_config("finetune", epochs=1), teacher=path, run="child")
    child = read_info(experiment.weights_path(run.name))
    assert child.source == imported.source, "what a pretrained detector knows is still there to be lost"


def test_replay_alone_decides_nothing(experiment: Experiment) -> None:
    spec = settle(plan_run(experiment, auto(replay=ReplayConfig(images=2)), teacher="step1"))
    assert spec.name == "step2-replay"
