"""`ciod train-step`: what it trains, what it refuses, and how it ends early."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ciod_core.data.formats.source import DatasetSource
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import Experiment
from ciod_core.files import sha256_of_file
from ciod_core.runs.inherited import INHERITED
from tests.cli.conftest import TINY, Ciod
from tests.helpers.processes import start_heeding

TRAIN = [sys.executable, "-m", "ciod_cli", "train-step", "--model", "yolox-micro", *TINY]


@pytest.fixture
def untrained(shapes_dataset: DatasetSource, tmp_path: Path) -> Path:
    return create_experiment(shapes_dataset, "5+3", "name", tmp_path / "experiment").folder


def test_the_tree_of_runs(trained: Path) -> None:
    runs = {run.name: run for run in Experiment.open(trained).read().runs}
    assert {name: (run.kind, run.parent, run.status) for name, run in runs.items()} == {
        "step1": ("step", None, "finished"),
        "step2": ("step", "step1", "finished"),
        "joint2": ("joint", None, "finished"),
    }
    assert runs["step2"].config["data"]["image_size"] == 64
    for name, run in runs.items():
        assert run.outputs["weights"].sha256 == sha256_of_file(trained / f"{name}.safetensors")


def test_stdout_is_the_weights_file(ciod: Ciod, untrained: Path) -> None:
    outcome = ciod("train-step", "--experiment", untrained, *TINY, "--model", "yolox-micro", "--name", "mine")
    assert outcome.out == f"{untrained / 'mine.safetensors'}\n"
    assert "Training mine: 3 iterations in 1 epoch\n" in outcome.err
    assert "images/s" in outcome.err


def test_json_is_the_run(ciod: Ciod, own_copy: Path) -> None:
    outcome = ciod(
        "train-step",
        "--experiment",
        own_copy,
        *TINY,
        "--teacher",
        own_copy / "step1.safetensors",
        "--method",
        "finetune",
        "--json",
    )
    document = json.loads(outcome.out)
    assert document["name"] == "step2-finetune"
    assert document["weights"] == str(own_copy / "step2-finetune.safetensors")
    assert document["parent"] == "step1"
    assert document["metrics"].keys() >= {"all", "old", "new"}
    before = Experiment.open(own_copy).read().run("step1").metrics["all"]
    assert document["outcome"] == {
        "ap": document["metrics"]["all"],
        "old": pytest.approx(document["metrics"]["old"]),
        "old_before": pytest.approx(before),
        "new": document["metrics"]["new"],
    }


def test_what_was_measured_is_said_at_the_end(ciod: Ciod, own_copy: Path, trained: Path) -> None:
    aps = {name: Experiment.open(trained).read().run(name).metrics for name in ("step1", "step2")}
    shown = {name: {group: f"{100 * ap:.1f}" for group, ap in groups.items()} for name, groups in aps.items()}
    again = ("--experiment", own_copy, *TINY, "--overwrite")
    outcome = ciod("train-step", *again, "--teacher", "step1", "--method", "crs-ckd", "--name", "step2")
    step2, before = shown["step2"], shown["step1"]["all"]
    sentence = f"AP {step2['all']}; old classes {step2['old']} ({before} before); new classes {step2['new']}. Next:"
    assert f": {sentence}" in outcome.err


def test_settings_of_the_teachers_run(ciod: Ciod, own_copy: Path) -> None:
    step2 = ("train-step", "--experiment", own_copy, "--teacher", "step1", "--method", "finetune", "--device", "cpu")
    outcome = ciod(*step2, "--set", "data.workers=0", "--json")
    assert outcome.code == 0, outcome.err
    run = json.loads(outcome.out)
    assert (run["config"]["training"]["batch_size"], run["config"]["training"]["epochs"]) == (8, 1)
    assert "  batch size 8, 1 epoch, lr 0.001 as in step1; change with --batch-size, --epochs, --lr\n" in outcome.err
    assert run["inherited"] == list(INHERITED) and (run["epochs"], run["ended_by"]) == (1, "epochs")


def test_the_replay_flag(ciod: Ciod, own_copy: Path) -> None:
    outcome = ciod("train-step", "--experiment", own_copy, *TINY, "--teacher", "step1", "--replay", "3", "--json")
    document = json.loads(outcome.out)
    assert document["name"] == "step2-replay"
    assert len(document["replayed"]) == 3 == document["config"]["replay"]["images"]
    assert "images of earlier steps that are trained on again: 3" in outcome.err


def test_config_file_and_set(ciod: Ciod, untrained: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model:\n  name: yolox-micro\ntraining:\n  lr: 0.5\n  epochs: 7\n")
    outcome = ciod(
        "train-step",
        "--experiment",
        untrained,
        *TINY,
        "--config",
        tmp_path / "c.yaml",
        "--set",
        "training.lr=0.01",
        "--json",
    )
    config = json.loads(outcome.out)["config"]
    assert (config["model"]["name"], config["training"]["lr"], config["training"]["epochs"]) == ("yolox-micro", 0.01, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("--epochs", "0"), 2, "--epochs"),
        (("--image-size", "100"), 2, "multiple of 32"),
        (("--method", "crsckd"), 2, "did you mean 'crs-ckd'"),
        (("--set", "training.epoch=3"), 2, "did you mean 'training.epochs'"),
        (("--config", "missing.yaml"), 2, "missing.yaml"),
        (("--step", "2"), 2, "--step: only joint"),
        (("--method", "joint", "--step", "9"), 2, "steps 1 to 2"),
        (("--resume", "--overwrite"), 2, "pass one of them"),
        (("--teacher", "step7"), 2, "step7"),
        (("--teacher", "step2"), 2, "--teacher step2"),
        (("--device", "warp", "--name", "x"), 2, "warp"),
        (("--name", "../evil"), 2, "--name ../evil"),
        ((), 2, "exists already"),
        (("--resume",), 2, "is finished"),
        (("--overwrite",), 2, "teacher of step2"),
        (("--backbone-weights", "nowhere.pth", "--name", "x"), None, "nowhere.pth"),
    ],
)
def test_invalid_arguments(
    ciod: Ciod, trained: Path, arguments: tuple[str, ...], code: int | None, expected: str
) -> None:
    before = (trained / "experiment.json").read_bytes()
    outcome = ciod("train-step", "--experiment", trained, *TINY, "--model", "yolox-micro", *arguments)
    assert expected in outcome.error_line
    assert outcome.code in ((code,) if code else (2, 4))
    assert outcome.out == ""
    assert (trained / "experiment.json").read_bytes() == before


def test_changed_teacher(ciod: Ciod, own_copy: Path) -> None:
    weights = own_copy / "step1.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    outcome = ciod("train-step", "--experiment", own_copy, *TINY, "--teacher", weights, "--name", "x")
    assert outcome.code == 4
    assert "was changed since run 'step1' wrote it" in outcome.error_line


def test_edited_split(ciod: Ciod, own_copy: Path) -> None:
    (own_copy / "splits" / "step2.train.json").write_text("{}")
    outcome = ciod("train-step", "--experiment", own_copy, *TINY, "--teacher", "step1", "--name", "x")
    assert outcome.code == 4
    assert "step2.train.json" in outcome.error_line


def test_no_experiment(ciod: Ciod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = ciod("train-step")
    assert outcome.code == 2
    assert "ciod split" in outcome.error_line


def test_ctrl_c_and_resume(ciod: Ciod, untrained: Path) -> None:
    command = [*TRAIN, "--experiment", str(untrained), "--epochs", "8"]
    process = start_heeding(signal.SIGINT, *command)
    assert process.stderr is not None
    # The first line of progress of the second epoch: one complete epoch can be resumed.
    while "epoch 2/8" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in err
    experiment = Experiment.open(untrained)
    assert experiment.read().run("step1").status == "interrupted"
    assert not experiment.weights_path("step1").exists()

    refused = ciod("train-step", "--experiment", untrained, *TINY, "--model", "yolox-micro")
    assert "exists already (interrupted); pass --resume to continue it, --overwrite" in refused.error_line
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    first_line = next(line for line in resumed.stderr.splitlines() if line.startswith("iteration"))
    assert int(first_line.split()[1].split("/")[0]) > 3, "it does not start over"
    assert experiment.read().run("step1").status == "finished"


def test_a_full_disk_leaves_no_partial_file(untrained: Path) -> None:
    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    result = subprocess.run(
        [*TRAIN, "--experiment", str(untrained)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit_file_size,
        env={**os.environ},
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: {untrained}")
    assert "File too large" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not list(untrained.rglob(".tmp-*"))
    assert Experiment.open(untrained).read().run("step1").status == "failed"
