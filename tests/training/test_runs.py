"""Whole runs of an experiment: repeated, interrupted, resumed, failed; the manifest is true at every moment."""

from __future__ import annotations

import csv
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ciod_core.config.schema import Config
from ciod_core.errors import CheckpointError, CiodError, ConfigError
from ciod_core.evaluation.report import EvaluationReport
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import STATE_FILE, WEIGHTS_KEY, Experiment
from ciod_core.files import sha256_of_file
from ciod_core.model.checkpoint import load_detector, save_detector
from ciod_core.runs.train import train_step
from ciod_core.training.progress import TrainingListener, TrainingRecord
from ciod_core.training.resume import TrainingState, load_state, save_state
from tests.training.conftest import tiny_config


class Interrupter(TrainingListener):
    """Raises at a given iteration, as a user's Ctrl-C or a bug would."""

    def __init__(self, iteration: int, exception: type[BaseException] = KeyboardInterrupt) -> None:
        self.iteration, self.exception = iteration, exception

    def record(self, record: TrainingRecord) -> None:
        if record.iteration >= self.iteration:
            raise self.exception


class Notes(TrainingListener):
    """Keeps the lines that are shown when a run begins."""

    shown: Sequence[str] = ()

    def begin(self, run: str, epochs: int, iterations: int, notes: Sequence[str]) -> None:
        self.shown = notes


class Diary(TrainingListener):
    """Notes the order of calls and the status that the manifest shows meanwhile."""

    def __init__(self, experiment: Experiment, run: str) -> None:
        self.experiment, self.run, self.calls = experiment, run, list[tuple[str, str]]()
        self.ap: float | None = None

    def note(self, call: str) -> None:
        self.calls.append((call, self.experiment.read().run(self.run).status))

    def begin(self, run: str, epochs: int, iterations: int, notes: object) -> None:
        self.note(f"begin {run} {epochs} {iterations}")

    def record(self, record: TrainingRecord) -> None:
        self.note(f"record {record.iteration}")

    def end(self, seconds: float) -> None:
        self.note("end")

    def evaluating(self, run: str) -> None:
        self.note(f"evaluating {run}")

    def evaluated(self, run: str, report: EvaluationReport) -> None:
        self.note(f"evaluated {run}")
        self.ap = report.groups["all"].metrics.ap


@pytest.fixture(scope="module")
def trained(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """The experiment with step1 and step2 trained without a break; read only."""
    folder = Path(shutil.copytree(untrained, tmp_path_factory.mktemp("trained") / "experiment"))
    experiment = Experiment.open(folder)
    train_step(experiment, tiny_config())
    train_step(experiment, tiny_config(), teacher="step1")
    return experiment


@pytest.fixture
def with_step1(trained: Experiment, experiment: Experiment) -> Experiment:
    """An own experiment that has step1."""
    shutil.copy(trained.weights_path("step1"), experiment.weights_path("step1"))
    experiment.put_run(trained.read().run("step1"))
    return experiment


def interrupt(experiment: Experiment, iteration: int, config: Config, run: str | None = None) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_step(experiment, config, teacher="step1", run=run, listener=Interrupter(iteration))


def iterations_per_epoch(experiment: Experiment, step: int) -> int:
    return -(-experiment.read().step(step).statistics.images // 8)


@pytest.fixture(scope="module")
def interrupted_folder(trained: Experiment, untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment whose step2 was interrupted in its second epoch; read only."""
    folder = Path(shutil.copytree(untrained, tmp_path_factory.mktemp("interrupted") / "experiment"))
    experiment = Experiment.open(folder)
    shutil.copy(trained.weights_path("step1"), experiment.weights_path("step1"))
    experiment.put_run(trained.read().run("step1"))
    interrupt(experiment, iterations_per_epoch(experiment, 2) + 1, tiny_config())
    return folder


@pytest.fixture
def interrupted(interrupted_folder: Path, tmp_path: Path) -> Experiment:
    """An own copy of the interrupted experiment."""
    return Experiment.open(Path(shutil.copytree(interrupted_folder, tmp_path / "interrupted")))


def refuse_to_resume(experiment: Experiment, config: Config, teacher: str | Path = "step1") -> str:
    """The one line that refuses; nothing on disk changes."""
    before = experiment.manifest_path.read_bytes()
    settings = (experiment.run_folder("step2-crs-ckd") / "config.yaml").read_bytes()
    with pytest.raises((ConfigError, CheckpointError)) as caught:
        train_step(experiment, config, teacher=teacher, resume=True)
    assert experiment.manifest_path.read_bytes() == before
    assert (experiment.run_folder("step2-crs-ckd") / "config.yaml").read_bytes() == settings
    assert "\n" not in str(caught.value)
    return str(caught.value)


def iterations_logged(experiment: Experiment, run: str) -> list[str]:
    with (experiment.run_folder(run) / "metrics.csv").open(newline="") as file:
        return [row["iteration"] for row in csv.DictReader(file)]


def test_the_same_commands_give_the_same_bytes(trained: Experiment, experiment: Experiment) -> None:
    first = train_step(experiment, tiny_config())
    second = train_step(experiment, tiny_config(), teacher="step1")
    for run in (first, second):
        assert run.outputs[WEIGHTS_KEY] == trained.read().run(run.name).outputs[WEIGHTS_KEY]
        assert run.metrics == trained.read().run(run.name).metrics
        assert experiment.weights_path(run.name).read_bytes() == trained.weights_path(run.name).read_bytes()


def test_a_finished_run_is_recorded_with_what_went_in_and_came_out(trained: Experiment) -> None:
    first, second = trained.read().run("step1"), trained.read().run("step2-crs-ckd")
    assert (first.step, first.parent, first.status) == (1, None, "finished")
    assert (second.step, second.parent, second.method, second.status) == (2, "step1", "crs-ckd", "finished")
    weights = trained.weights_path("step1")
    assert second.inputs["teacher"].sha256 == first.outputs[WEIGHTS_KEY].sha256 == sha256_of_file(weights)
    detector, info = load_detector(trained.weights_path("step2-crs-ckd"))
    assert info.classes == trained.read().classes
    assert info.parent_sha256 == sha256_of_file(weights)
    assert detector(torch.zeros(1, 3, 64, 64)).class_logits_BAC.shape[-1] == 8
    assert second.seconds is not None and second.seconds > 0
    assert iterations_logged(trained, "step2-crs-ckd")
    assert not (trained.run_folder("step2-crs-ckd") / STATE_FILE).exists()


@pytest.mark.parametrize("channels_last", [False, True])
def test_interrupted_and_resumed_equals_uninterrupted(
    channels_last: bool, with_step1: Experiment, trained: Experiment
) -> None:
    config = tiny_config(channels_last=channels_last)
    if channels_last:
        train_step(with_step1, config, teacher="step1", run="whole")
    whole, whole_run = (with_step1, "whole") if channels_last else (trained, "step2-crs-ckd")
    interrupt(with_step1, iterations_per_epoch(with_step1, 2) + 1, config)
    assert with_step1.read().run("step2-crs-ckd").status == "interrupted"
    assert not with_step1.weights_path("step2-crs-ckd").exists()

    resumed = train_step(with_step1, config, teacher="step1", resume=True)
    assert resumed.status == "finished"
    ours, _ = load_detector(with_step1.weights_path("step2-crs-ckd"))
    theirs, _ = load_detector(whole.weights_path(whole_run))
    found = ours.state_dict()
    assert [name for name, tensor in theirs.state_dict().items() if not torch.equal(tensor, found[name])] == []
    assert resumed.metrics == whole.read().run(whole_run).metrics
    assert iterations_logged(with_step1, "step2-crs-ckd") == iterations_logged(whole, whole_run)


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_without_a_completed_epoch_is_resumed_from_the_beginning(
    begun: bool, with_step1: Experiment, trained: Experiment
) -> None:
    if begun:
        interrupt(with_step1, 1, tiny_config(log_interval=1))
        assert with_step1.read().run("step2-crs-ckd").status == "interrupted"
    notes = Notes()
    resumed = train_step(with_step1, tiny_config(), teacher="step1", resume=True, listener=notes)
    assert any("has no completed epoch: it starts from the beginning" in note for note in notes.shown)
    assert resumed.outputs[WEIGHTS_KEY] == trained.read().run("step2-crs-ckd").outputs[WEIGHTS_KEY]


def test_an_interruption_during_the_recording_changes_nothing(
    with_step1: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_run = Experiment.put_run

    def interrupted_again(experiment: Experiment, record: RunRecord) -> None:
        if record.status == "interrupted":
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
        put_run(experiment, record)

    monkeypatch.setattr(Experiment, "put_run", interrupted_again)
    interrupt(with_step1, 1, tiny_config(log_interval=1))
    assert with_step1.read().run("step2-crs-ckd").status == "interrupted"


def test_an_interruption_after_a_run_was_recorded_as_finished_takes_nothing_from_it(
    with_step1: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_run = Experiment.put_run

    def interrupted_after(experiment: Experiment, record: RunRecord) -> None:
        put_run(experiment, record)
        if record.status == "finished":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "put_run", interrupted_after)
        with pytest.raises(KeyboardInterrupt):
            train_step(with_step1, tiny_config("finetune", epochs=1), teacher="step1")
    run = with_step1.read().run("step2-finetune")
    assert run.status == "finished" and with_step1.resolve_teacher("step2-finetune").run == run
    with pytest.raises(ConfigError, match="is finished"):
        train_step(with_step1, tiny_config("finetune", epochs=1), teacher="step1", resume=True)
    assert not with_step1.has_state("step2-finetune"), "the next command clears what the interrupted one had left"


class Mover(TrainingListener):
    """Moves the experiment's folder away in the middle of the training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(self, record: TrainingRecord) -> None:
        if self.folder.exists():
            self.folder.rename(self.folder.with_name("moved"))


def test_a_folder_that_vanishes_ends_the_training(experiment: Experiment) -> None:
    with pytest.raises(CiodError, match=r"step1: the run's folder was moved, removed or unmounted"):
        train_step(experiment, tiny_config(), listener=Mover(experiment.folder))
    assert not experiment.folder.exists()
    moved = Experiment.open(experiment.folder.with_name("moved"))
    assert moved.was_killed(moved.read().run("step1"))
    assert train_step(moved, tiny_config(), resume=True).status == "finished"


def test_a_damaged_state_gives_way_to_the_one_before(
    interrupted: Experiment, trained: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = interrupted.run_folder("step2-crs-ckd")
    save_state(folder, load_state(folder))
    state = folder / STATE_FILE
    state.write_bytes(state.read_bytes()[:-1] + b"!")
    notes = Notes()
    resumed = train_step(interrupted, tiny_config(), teacher="step1", resume=True, listener=notes)
    assert any("is damaged" in note and "goes on from the state before, of epoch 1" in note for note in notes.shown)
    assert resumed.outputs[WEIGHTS_KEY] == trained.read().run("step2-crs-ckd").outputs[WEIGHTS_KEY]


@pytest.mark.parametrize(
    ("owner", "problem"),
    [
        ({"run": "other"}, "is of run 'other'"),
        ({"config": tiny_config(lr=0.5).model_dump(mode="json")}, "is of a run with training.lr 0.5"),
        ({"inputs": {"teacher": "0" * 64}}, "is of a run with another teacher"),
    ],
)
def test_a_state_of_another_run_is_refused(owner: dict[str, Any], problem: str, interrupted: Experiment) -> None:
    folder = interrupted.run_folder("step2-crs-ckd")
    state = load_state(folder)
    assert state.owner is not None
    save_state(folder, replace(state, owner=state.owner.model_copy(update=owner)))
    assert problem in refuse_to_resume(interrupted, tiny_config())


def test_all_changed_settings_are_named(interrupted: Experiment) -> None:
    message = refuse_to_resume(interrupted, tiny_config(lr=0.5, epochs=3, batch_size=4))
    assert all(f"training.{name} is" in message for name in ("lr", "epochs", "batch_size"))
    assert message.endswith("leave them out")


def test_another_version_or_device_is_said(interrupted: Experiment) -> None:
    run = interrupted.read().run("step2-crs-ckd")
    versions = run.versions | {"torch": "2.0.0"}
    interrupted.put_run(run.model_copy(update={"versions": versions, "device": "cpu (99 threads)"}))
    notes = Notes()
    train_step(interrupted, tiny_config(), teacher="step1", resume=True, listener=notes)
    assert any("began with torch 2.0.0 and goes on with" in note for note in notes.shown)
    assert any("began with device cpu (99 threads)" in note for note in notes.shown)


def test_a_damaged_state_is_refused(interrupted: Experiment) -> None:
    state = interrupted.run_folder("step2-crs-ckd") / STATE_FILE
    state.write_bytes(state.read_bytes()[:1000])
    assert "may be damaged" in refuse_to_resume(interrupted, tiny_config())


def test_a_state_of_another_network_is_refused(interrupted: Experiment) -> None:
    network = {"student": {"head.levels.0.cls_conv.weight": torch.zeros(5, 64, 1, 1)}, "average": {}}
    save_state(interrupted.run_folder("step2-crs-ckd"), TrainingState(1, 0.0, (), network))
    refuse_to_resume(interrupted, tiny_config())


def test_a_state_without_its_parts_is_refused(interrupted: Experiment) -> None:
    state = TrainingState(1, 0.0, (), {"scaler": {"scale": torch.tensor(1.0)}})
    save_state(interrupted.run_folder("step2-crs-ckd"), state)
    refuse_to_resume(interrupted, tiny_config())


def test_resuming_with_another_teacher_is_refused(interrupted: Experiment, tmp_path: Path) -> None:
    detector, info = load_detector(interrupted.weights_path("step1"))
    state = detector.state_dict()
    state["head.levels.0.cls_conv.bias"] += 1.0
    save_detector(tmp_path / "other.safetensors", state, info)
    assert "teacher" in refuse_to_resume(interrupted, tiny_config(), tmp_path / "other.safetensors")


@pytest.mark.parametrize("setting", [{"lr": 0.5}, {"epochs": 3}, {"batch_size": 4}, {"seed": 9}, {"optimizer": "sgd"}])
def test_resuming_with_other_settings_is_refused(interrupted: Experiment, setting: dict[str, Any]) -> None:
    assert f"training.{next(iter(setting))}" in refuse_to_resume(interrupted, tiny_config(**setting))


def test_the_teacher_is_left_as_it_was(with_step1: Experiment) -> None:
    before = with_step1.weights_path("step1").read_bytes()
    train_step(with_step1, tiny_config(epochs=1), teacher="step1")
    assert with_step1.weights_path("step1").read_bytes() == before


def test_a_loss_that_is_no_number_marks_the_run_failed(with_step1: Experiment) -> None:
    reckless = tiny_config(optimizer="sgd", lr=1e30, clip_grad_norm=0.0, warmup_iterations=0, log_interval=1)
    with pytest.raises(CiodError, match=r"the loss is (nan|inf)"):
        train_step(with_step1, reckless, teacher="step1")
    assert with_step1.read().run("step2-crs-ckd").status == "failed"
    assert not with_step1.weights_path("step2-crs-ckd").exists()
    with pytest.raises(ConfigError, match="exists already"):
        train_step(with_step1, tiny_config(), teacher="step1")


def test_any_other_end_marks_the_run_failed(with_step1: Experiment) -> None:
    with pytest.raises(ZeroDivisionError):
        train_step(with_step1, tiny_config(), teacher="step1", listener=Interrupter(1, ZeroDivisionError))
    assert with_step1.read().run("step2-crs-ckd").status == "failed"


def test_the_manifest_says_running_while_it_runs(experiment: Experiment) -> None:
    diary = Diary(experiment, "step1")
    run = train_step(experiment, tiny_config(epochs=1, log_interval=100), listener=diary)
    iterations = iterations_per_epoch(experiment, 1)
    assert diary.calls == [
        (f"begin step1 1 {iterations}", "running"),
        (f"record {iterations}", "running"),
        ("end", "running"),
        ("evaluating step1", "running"),
        ("evaluated step1", "running"),
    ]
    assert diary.ap is not None and diary.ap == run.metrics["all"]
    assert experiment.read().run("step1").status == "finished"


def test_overwriting_replaces_weights_and_log(experiment: Experiment) -> None:
    first = train_step(experiment, tiny_config(epochs=2))
    second = train_step(experiment, tiny_config(epochs=1, seed=8), overwrite=True)
    assert [run.name for run in experiment.read().runs] == ["step1"]
    assert first.outputs[WEIGHTS_KEY].sha256 != second.outputs[WEIGHTS_KEY].sha256
    assert sha256_of_file(experiment.weights_path("step1")) == second.outputs[WEIGHTS_KEY].sha256
    assert int(iterations_logged(experiment, "step1")[-1]) == iterations_per_epoch(experiment, 1)


def test_joint_training_sees_the_labels_of_all_steps(experiment: Experiment) -> None:
    run = train_step(experiment, tiny_config("joint", epochs=1))
    assert (run.name, run.kind, run.step, run.parent) == ("joint2", "joint", 2, None)
    _, info = load_detector(experiment.weights_path("joint2"))
    assert info.classes == experiment.read().classes and info.parent_sha256 is None


class TestBatchesOfOneImage:
    """Batch normalization has nothing to normalize where the coarsest level has one value in all."""

    def at_32_pixels(self, batch_size: int, image_size: int = 32) -> Config:
        config = tiny_config(epochs=1, batch_size=batch_size)
        return config.model_copy(update={"data": config.data.model_copy(update={"image_size": image_size})})

    @pytest.mark.parametrize("left", [None, 1])
    def test_they_are_refused_before_training(self, experiment: Experiment, left: int | None) -> None:
        images = experiment.read().step(1).statistics.images
        with pytest.raises(ConfigError, match=r"`data.image_size` 32: .* pass 64"):
            train_step(experiment, self.at_32_pixels(images - left if left else 1))
        assert not experiment.read().runs

    @pytest.mark.parametrize(("left", "image_size"), [(2, 32), (1, 64)])
    def test_two_values_are_enough(self, experiment: Experiment, left: int, image_size: int) -> None:
        images = experiment.read().step(1).statistics.images
        assert train_step(experiment, self.at_32_pixels(images - left, image_size)).status == "finished"
