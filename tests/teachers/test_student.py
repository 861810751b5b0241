"""A student of another size learns from its teacher's answers alone, and says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import Config
from ciod_core.data.formats.coco import read_coco
from ciod_core.errors import ConfigError, DataError
from ciod_core.evaluation.chain import chain_to
from ciod_core.experiment.folder import Experiment
from ciod_core.files import sha256_of_file
from ciod_core.model.checkpoint import load_detector, read_info
from ciod_core.runs.distill_student import distill_into
from ciod_core.runs.train import train_step
from ciod_core.teachers.distill import distill
from ciod_core.teachers.sources import TeacherOptions
from ciod_core.training.progress import TrainingListener, TrainingRecord
from tests.cli.conftest import Ciod

LOW_THRESHOLDS = {"resampler.rule": "fixed", "resampler.fixed_score": 2e-5}
TINY = LOW_THRESHOLDS | {
    "model.name": "yolox-nano",
    "data.workers": 0,
    "training.epochs": 1,
    "training.batch_size": 8,
    "training.device": "cpu",
}


def config(**settings: object) -> Config:
    return resolve_config(flags=TINY | settings)


def test_the_student_and_its_record_say_what_it_learned_from(experiment: Experiment) -> None:
    run = distill_into(experiment, config(), TeacherOptions("step1"))
    assert (run.name, run.kind, run.method, run.step, run.parent) == (
        "step1-yolox-nano", "distilled", "distill", 1, "step1",
    )  # fmt: skip
    assert set(run.inputs) == {"teacher", "knowledge", "val"}, "labels went in"
    teacher, student = (read_info(experiment.weights_path(name)) for name in ("step1", run.name))
    assert {entry.learned_from for entry in teacher.classes.entries} == {"labels"}
    assert {entry.learned_from for entry in student.classes.entries} == {"knowledge"}
    assert student.classes.names == teacher.classes.names
    assert student.model.name == "yolox-nano" and student.preprocessing == teacher.preprocessing
    assert run.metrics.keys() == experiment.read().run("step1").metrics.keys()


def test_no_label_takes_part(experiment: Experiment, tmp_path: Path) -> None:
    """The same student comes out where every box of the step lies elsewhere and names another class."""
    folder = Path(shutil.copytree(experiment.folder, tmp_path / "relabeled"))
    path = experiment.read().train_file(2).locate(experiment.folder)
    labels = json.loads(path.read_text())
    for entry in labels["annotations"]:
        entry["bbox"], entry["category_id"] = [1, 1, 5, 5], labels["categories"][0]["id"]
    relabeled = Experiment.open(folder)
    changed = relabeled.read().train_file(2).locate(relabeled.folder)
    changed.write_text(json.dumps(labels))
    manifest = json.loads(relabeled.manifest_path.read_text())
    manifest["steps"][1]["train"] |= {"sha256": sha256_of_file(changed), "bytes": changed.stat().st_size}
    relabeled.manifest_path.write_text(json.dumps(manifest | {"checksum": None}))
    weights = []
    for each in (experiment, relabeled):
        run = distill_into(each, config(), TeacherOptions("step1"))
        weights.append(run.outputs["weights"].sha256)
    assert weights[0] == weights[1]


def test_frozen_stages_keep_their_first_weights(experiment: Experiment) -> None:
    settings = {"training.frozen_stages": 5, "training.ema_decay": 0.0}
    states = []
    for epochs in (1, 2):
        asked = config(**settings, **{"training.epochs": epochs})
        run = distill_into(experiment, asked, TeacherOptions("step1"), name=f"frozen-{epochs}")
        states.append(load_detector(experiment.weights_path(run.name))[0].state_dict())
    equal = {name for name, tensor in states[0].items() if torch.equal(tensor, states[1][name])}
    assert {name for name in states[0] if name.startswith("backbone.")} <= equal
    assert not any(name.startswith("head.") and name.endswith("weight") for name in equal)


def test_a_folder_of_images(experiment: Experiment, tmp_path: Path) -> None:
    table, source = (
        read_coco(experiment.read().train_file(2).locate(experiment.folder)),
        (experiment.folder / experiment.read().train_images(2)),
    )
    (tmp_path / "photos" / "deeper").mkdir(parents=True)
    for number, name in enumerate(table.file_names_I.tolist()[:5]):
        shutil.copy(source / name, tmp_path / "photos" / ("deeper" if number % 2 else "."))
    run = distill_into(experiment, config(), TeacherOptions("step2", images=tmp_path / "photos"), name="small")
    assert run.step == 2 and run.inputs["knowledge"].path == "small.knowledge.safetensors"
    assert len(read_info(experiment.weights_path("small")).classes) == 8


def test_what_is_learned_is_what_the_teacher_says(experiment: Experiment) -> None:
    """Where the teacher is sure of something everywhere, a student that listens comes to say it too."""
    losses: list[float] = []

    class Listener(TrainingListener):
        def record(self, record: TrainingRecord) -> None:
            losses.append(record.losses["old box"] + record.losses["old class"])
            assert record.losses["class"] == record.losses["box"] == 0.0
            assert record.kept_per_image and record.kept_per_image > 1

    settings = config(**{"training.epochs": 12, "training.lr": 0.01, "training.log_interval": 1000})
    distill_into(experiment, settings, TeacherOptions("step1"), listener=Listener())
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_an_interrupted_student_goes_on(experiment: Experiment) -> None:
    class Impatient(TrainingListener):
        def record(self, record: TrainingRecord) -> None:
            if record.epoch == 2:
                raise KeyboardInterrupt

    settings = config(**{"training.epochs": 2})
    whole = distill_into(experiment, settings, TeacherOptions("step1"), name="whole")
    with pytest.raises(KeyboardInterrupt):
        distill_into(experiment, settings, TeacherOptions("step1"), name="halved", listener=Impatient())
    assert experiment.read().run("halved").status == "interrupted"
    distill_into(experiment, settings, TeacherOptions("step1"), name="halved", resume=True)
    ours, theirs = (load_detector(experiment.weights_path(name))[0].state_dict() for name in ("halved", "whole"))
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert whole.status == experiment.read().run("halved").status == "finished"


def test_the_chain_goes_on_from_the_student(experiment: Experiment) -> None:
    distill_into(experiment, config(), TeacherOptions("step1"))
    live = Config.model_validate(experiment.read().run("step2").config)
    settings = resolve_config(
        flags={"training.epochs": 1, "training.batch_size": 8, "data.workers": 0, "training.device": "cpu"}
    )
    run = train_step(experiment, settings, teacher="step1-yolox-nano", run="onward")
    classes = read_info(experiment.weights_path("onward")).classes
    assert [entry.learned_from for entry in classes.entries] == ["knowledge"] * 5 + ["labels"] * 3
    assert run.config["model"]["name"] == "yolox-nano" != live.model.name
    chain = chain_to(experiment, run)
    assert chain is not None and chain.runs == ("step1-yolox-nano", "onward")


def test_chains_with_a_student_at_their_beginning_and_their_end(experiment: Experiment, tmp_path: Path) -> None:
    images = experiment.folder / experiment.read().train_images()
    last = distill_into(experiment, config(), TeacherOptions("step2", images=images))
    chain = chain_to(experiment, last)
    assert chain is not None and chain.runs == ("step1", "step2-yolox-nano")
    # Of a teacher that no run of the experiment wrote, nobody here knows the steps before.
    elsewhere = shutil.copy(experiment.weights_path("step2"), tmp_path / "elsewhere.safetensors")
    first = distill_into(experiment, config(), TeacherOptions(elsewhere, images=images), name="far")
    assert (first.parent, first.step) == (None, 2)
    chain = chain_to(experiment, first)
    assert chain is not None and chain.runs == ("far",)


def test_a_student_does_not_take_its_teachers_place(experiment: Experiment) -> None:
    before = {run.name for run in experiment.read().leaf_runs()}
    distill_into(
        experiment, config(), TeacherOptions("step2", images=experiment.folder / experiment.read().train_images())
    )
    assert {run.name for run in experiment.read().leaf_runs()} == before | {"step2-yolox-nano"}


def test_what_cannot_be(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"knows the classes of the last step; .*`images`"):
        distill_into(experiment, config(), TeacherOptions("step2"))
    with pytest.raises(ConfigError, match="'lwf' cannot learn from a bank"):
        distill_into(experiment, config(**{"method.name": "lwf"}), TeacherOptions("step1"))
    with pytest.raises(ConfigError, match="run 'joint2' exists already"):
        distill_into(experiment, config(), TeacherOptions("step1"), name="joint2")
    with pytest.raises(DataError, match="no such image folder"):
        distill_into(experiment, config(), TeacherOptions("step1", images=tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image in this folder"):
        distill_into(experiment, config(), TeacherOptions("step1", images=tmp_path / "empty"))
    assert experiment.read().find_run("step1-yolox-nano") is None


def test_the_bank_of_a_step_serves_both(experiment: Experiment) -> None:
    bank = distill(experiment, config(), TeacherOptions("step1")).path
    before = bank.stat().st_mtime_ns
    distill_into(experiment, config(), TeacherOptions("step1"))
    assert bank.stat().st_mtime_ns == before, "the teacher was asked again"


def test_the_command(ciod: Ciod, own_copy: Path) -> None:
    sets = [part for key, value in LOW_THRESHOLDS.items() for part in ("--set", f"{key}={value}")]
    options = ("--epochs", "1", "--batch-size", "8", "--workers", "0", "--device", "cpu")
    answer = ciod("distill-into", "yolox-nano", "--experiment", own_copy, "--teacher", "step1", *options, *sets)
    assert answer.code == 0, answer.err
    assert answer.out.strip() == str(own_copy / "step1-yolox-nano.safetensors")
    assert "trained without labels" in answer.err and "its teacher" in answer.err
    assert answer.err.count("Running the teacher") == 1
    # Without the guides of the tree and the breaks of long lines.
    status = " ".join(ciod("status", own_copy).out.replace("│", " ").split())
    assert "step1-yolox-nano distill finished" in status and "the same classes, without labels" in status


@pytest.mark.parametrize("spelling", [("--into", "yolox-nano"), ("--into=yolox-nano",)])
def test_the_old_spelling_says_where_it_went(ciod: Ciod, trained: Path, spelling: tuple[str, ...]) -> None:
    answer = ciod("distill", "--experiment", trained, *spelling, "--epochs", "30")
    assert answer.code == 2 and answer.err.splitlines() == [answer.error_line]
    assert "ciod distill-into MODEL" in answer.error_line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("yolox-nan",), "did you mean 'yolox-nano'?"), (("yolox-nano", "--name", "a/b"), "a run's name holds letters")],
)
def test_mistakes_on_the_command_line(ciod: Ciod, trained: Path, arguments: tuple[str, ...], message: str) -> None:
    answer = ciod("distill-into", *arguments, "--experiment", trained, "--teacher", "step1", "--workers", "0")
    assert answer.code == 2 and message in answer.error_line
