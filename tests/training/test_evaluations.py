"""Evaluations during training: they change nothing, tell the best weights, and may end a run."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL.Image import Image

from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.evaluation.average_precision import Metrics
from ciod_core.evaluation.report import EvaluationReport, GroupReport
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import STATE_FILE, Experiment
from ciod_core.files import sha256_of_file
from ciod_core.runs import weights as run_weights
from ciod_core.runs.train import train_step
from ciod_core.training.keeping import StateKeeper
from ciod_core.training.progress import EpochEvaluation, TrainingListener
from tests.training.conftest import tiny_config
from tests.training.test_tensorboard_log import scalars


class Judge:
    """Stands for the evaluation: gives weights that it sees for the first time the next AP."""

    def __init__(self, aps: Sequence[float | None]) -> None:
        self.to_come = list(aps)
        self.known: dict[str, float | None] = {}

    def __call__(self, experiment: Experiment, weights: Path, *rest: object, **named: object) -> EvaluationReport:
        digest = sha256_of_file(weights)
        if digest not in self.known:
            self.known[digest] = self.to_come.pop(0)
        metrics = Metrics(ap=self.known[digest])
        group = GroupReport(classes=(), classes_without_objects=(), boxes=0, metrics=metrics)
        groups = {"all": group, "new": group}
        counts = {"images": 1, "boxes": 0, "crowd_boxes": 0, "detections": 0}
        return EvaluationReport(
            run="step1", weights_sha256=digest, step=1, backend="hotcoco", groups=groups, per_class=(), **counts
        )


class Told(TrainingListener):
    """Notes what is told about evaluations and the end."""

    def __init__(self) -> None:
        self.measured_after: list[tuple[int, bool]] = []
        self.endings: list[str] = []
        self.pictures_at: list[tuple[int, list[tuple[int, int]]]] = []

    def measured(self, evaluation: EpochEvaluation) -> None:
        self.measured_after.append((evaluation.epoch, evaluation.best))

    def pictures(self, iteration: int, pictures: Mapping[str, Image]) -> None:
        self.pictures_at.append((iteration, [picture.size for picture in pictures.values()]))

    def ended_early(self, text: str) -> None:
        self.endings.append(text)


def judged(monkeypatch: pytest.MonkeyPatch, *aps: float | None) -> Judge:
    judge = Judge(aps)
    monkeypatch.setattr(run_weights, "evaluate_weights", judge)
    return judge


def train(experiment: Experiment, told: TrainingListener | None = None, **training: Any) -> RunRecord:
    overwrite, resume = training.pop("overwrite", False), training.pop("resume", False)
    config = tiny_config(**({"evaluate_every": 1} | training))
    return train_step(experiment, config, overwrite=overwrite, resume=resume, listener=told)


def evaluations(experiment: Experiment) -> list[dict[str, str]]:
    with (experiment.run_folder("step1") / "evaluations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def content(experiment: Experiment, run: RunRecord) -> dict[str, Any]:
    """All that a resumed run must have in common with one without a break."""
    folder = experiment.run_folder("step1")
    files = [experiment.weights_path("step1"), *folder.glob("*.safetensors"), folder / "evaluations.csv"]
    record = {key: getattr(run, key) for key in ("epochs", "ended_by", "metrics", "outputs", "status")}
    return record | {path.name: path.read_bytes() for path in files}


def test_a_run_writes_what_tensorboard_shows(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="no tensorboard")
    judged(monkeypatch, 0.2, 0.3)
    train(experiment, epochs=2, log="tensorboard")
    found = scalars(experiment.run_folder("step1") / "tensorboard")
    assert [value for _, value in found["AP/all"]] == pytest.approx([0.2, 0.3])
    assert [value for _, value in found["AP of the result/all"]] == pytest.approx([0.3])
    assert found["AP of the result/all"][0][0] == found["AP/all"][1][0] == found["loss/loss"][-1][0]


def test_evaluating_changes_nothing_but_adds_what_it_measures(experiment: Experiment) -> None:
    folder = experiment.run_folder("step1")
    plain = train(experiment, evaluate_every=0)
    assert (plain.epochs, plain.ended_by, plain.outputs.keys()) == (2, "epochs", {"weights", "metrics"})
    assert not (folder / "evaluations.csv").exists() and not list(folder.glob("*.safetensors"))

    told = Told()
    run = train(experiment, told, overwrite=True, log_images=3)
    # Small images are drawn enlarged.
    assert told.pictures_at == [(3, [(320, 320)] * 3), (6, [(320, 320)] * 3)]
    assert run.outputs["weights"] == plain.outputs["weights"] and run.metrics == plain.metrics
    assert [epoch for epoch, _ in told.measured_after] == [1, 2] and not told.endings
    rows = evaluations(experiment)
    assert list(rows[0]) == ["epoch", "iteration", "all", "old", "new"]
    assert float(rows[-1]["all"]) == pytest.approx(run.metrics["all"], rel=1e-5)
    assert [row["old"] for row in rows] == ["", ""], "step 1 has no old classes"
    assert [path.name for path in folder.glob("*.safetensors")] == ["best.safetensors"]
    assert run.outputs["best"].sha256 == sha256_of_file(folder / "best.safetensors")

    train(experiment, evaluate_every=0, overwrite=True)
    assert not (folder / "evaluations.csv").exists() and not list(folder.glob("*.safetensors"))


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_best_and_the_last_weights_are_kept(
    keep: str, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, told = judged(monkeypatch, 0.2, 0.5, 0.5), Told()
    run = train(experiment, told, epochs=3, keep=keep)
    first, best, last = judge.known
    assert told.measured_after == [(1, True), (2, True), (3, False)]
    other = "best" if keep == "last" else "last"
    found = {key: run.outputs[key].sha256 for key in ("weights", other)}
    assert found == {"weights": best if keep == "best" else last, other: last if keep == "best" else best}
    assert run.outputs[other].path == f"step1/{other}.safetensors"
    assert [path.stem for path in experiment.run_folder("step1").glob("*.safetensors")] == [other]
    assert [float(row["all"]) for row in evaluations(experiment)] == [0.2, 0.5, 0.5]
    assert not judge.to_come and first not in found.values()


def test_every_second_epoch_and_the_last(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, 0.2, 0.3)
    run = train(experiment, epochs=3, evaluate_every=2, keep="best")
    assert [row["epoch"] for row in evaluations(experiment)] == ["2", "3"]
    assert run.metrics["all"] == 0.3


def test_without_an_ap_nothing_is_best(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, None, None)
    run = train(experiment, keep="best", patience=2, epochs=5)
    assert (run.epochs, run.ended_by) == (2, "patience")
    assert run.outputs.keys() == {"weights", "metrics"}
    assert not list(experiment.run_folder("step1").glob("*.safetensors"))


def break_at(monkeypatch: pytest.MonkeyPatch, target: object, name: str, call: int) -> None:
    """End the process, in effect, at the given call of a function, before it does anything."""
    function, calls = getattr(target, name), iter(range(1, 100))

    def breaking(*arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments, **named)

    monkeypatch.setattr(target, name, breaking)


def settings_of(keep: str) -> dict[str, Any]:
    return {"epochs": 6, "keep": keep, "patience": 2}


@pytest.fixture(scope="module", params=["last", "best"])
def uninterrupted(
    request: pytest.FixtureRequest, untrained: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Judge, dict[str, Any]]:
    """Which weights are kept, who judges them, and what a run without a break leaves."""
    experiment = Experiment.open(Path(shutil.copytree(untrained, tmp_path_factory.mktemp("whole") / "experiment")))
    with pytest.MonkeyPatch.context() as patch:
        judge = judged(patch, 0.2, 0.5, 0.4, 0.5)
        expected = content(experiment, train(experiment, **settings_of(request.param)))
    assert expected["ended_by"] == "patience" and not judge.to_come
    return request.param, judge, expected


@pytest.mark.parametrize(
    ("target", "name", "call"),
    [
        (StateKeeper, "keep", 2),  # the best weights are measured, but not in the state
        (run_weights.RunWeights, "keep_best", 2),  # they are in the state, but not written
        (run_weights.RunWeights, "measure", 3),  # they are written
        (run_weights.RunWeights, "report", 1),  # patience ended the training
        (Experiment, "put_run", 2),  # all is done but for the record
    ],
)
def test_resumed_equals_uninterrupted(
    target: object,
    name: str,
    call: int,
    uninterrupted: tuple[str, Judge, dict[str, Any]],
    experiment: Experiment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep, judge, expected = uninterrupted
    settings = settings_of(keep)
    monkeypatch.setattr(run_weights, "evaluate_weights", judge)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        break_at(patch, target, name, call)
        train(experiment, **settings)
    assert content(experiment, train(experiment, **settings, resume=True)) == expected


@pytest.mark.parametrize("keep", ["last", "best"])
def test_best_weights_that_went_missing(keep: str, experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, 0.5, 0.2, 0.1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        break_at(patch, run_weights.RunWeights, "measure", 3)
        train(experiment, epochs=3, keep=keep)
    best = experiment.run_folder("step1") / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-1])
    if keep == "best":
        before = experiment.manifest_path.read_bytes()
        with pytest.raises(CheckpointError, match=r"best\.safetensors: the best weights are missing or were changed"):
            train(experiment, epochs=3, keep=keep, resume=True)
        assert experiment.manifest_path.read_bytes() == before
        assert (experiment.run_folder("step1") / STATE_FILE).exists()
    else:
        assert "best" not in train(experiment, epochs=3, keep=keep, resume=True).outputs


def test_patience_ends_a_run(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, 0.3, 0.4, 0.4, 0.1)
    told = Told()
    run = train(experiment, told, epochs=9, patience=2)
    assert (run.status, run.epochs, run.ended_by, run.config["training"]["epochs"]) == ("finished", 4, "patience", 9)
    [line] = told.endings
    assert line.startswith("Training ends after 4 of 9 epochs: the AP did not rise in the last 2 evaluations")


def test_a_time_limit_ends_a_run_after_an_epoch(experiment: Experiment) -> None:
    told = Told()
    run = train(experiment, told, epochs=9, max_hours=1e-6, evaluate_every=4)
    assert (run.status, run.epochs, run.ended_by) == ("finished", 1, "max_hours")
    assert [row["epoch"] for row in evaluations(experiment)] == ["1"], "the last epoch is evaluated"
    assert "of 9 epochs: the time of 1e-06 h is over" in told.endings[0]
    assert experiment.read().run("step1") == run


def test_without_validation_data_it_is_refused(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = experiment.read()
    steps = tuple(step.model_copy(update={"val": None}) for step in manifest.steps)
    blind = manifest.model_copy(update={"steps": steps})
    monkeypatch.setattr(experiment, "read", lambda: blind)
    with pytest.raises(ConfigError, match=r"^`training.evaluate_every` 1: no validation image [^\n]*$"):
        train(experiment)
