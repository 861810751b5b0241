"""`--devices`: what it means, and what becomes of a run when one of its processes fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from ciod_cli import launch
from ciod_core.data.formats.source import DatasetSource
from ciod_core.data.loading.loader import batch_indices
from ciod_core.experiment.folder import STATE_FILE, Experiment
from ciod_core.runs.claim import PROCESS_FILE
from tests.cli.conftest import Ciod

# Batch statistics stay the teacher's, so that one process can continue what two began with the same result.
STEP_2 = (
    "train-step", "--teacher", "step1", "--method", "lwf", "--epochs", "20", "--batch-size", "8", "--workers", "0",
    "--device", "cpu", "--lr", "0.01", "--set", "training.optimizer=sgd",
)  # fmt: skip


def started(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ciod_cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def only_error(process: subprocess.Popen[str], seconds: float) -> str:
    """The error of a command that ends in this time; it says nothing else but what training says anyway."""
    out, err = process.communicate(timeout=seconds)
    assert not out
    of_training = ("Training ", "iteration ", "  ", "warning: the teacher detects no old object")
    assert [line for line in err.splitlines() if not line.startswith((*of_training, "error: "))] == []
    (error,) = (line for line in err.splitlines() if line.startswith("error: "))
    return error


def test_two_processes_predict_what_one_does(
    trained: Path, shapes_dataset: DatasetSource, tmp_path: Path, ciod: Ciod
) -> None:
    """Five images in batches of two are a turn of both processes and one of the first alone; one cannot be read."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted(shapes_dataset.val.image_dir.iterdir())[:4]:
        shutil.copy(path, folder)
    (folder / "broken.png").write_bytes(b"no image")
    given = ("predict", trained / "step2.safetensors", folder, "--score", "0.001", "--batch-size", 2, "--json")
    alone = ciod(*given, "--device", "cpu")
    process = started(*given, "--device", "cpu", "--devices", 2)
    out, err = process.communicate(timeout=120)
    assert process.returncode == alone.code == 3
    assert json.loads(out) == json.loads(alone.out) and len(json.loads(out)["images"]) == 4
    assert "1 of 5 images cannot be read" in err


def test_what_is_wrong_from_the_start_is_said_once(trained: Path, tmp_path: Path) -> None:
    process = started("predict", trained / "step2.safetensors", tmp_path / "none", "--device", "cpu", "--devices", 2)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, len(err.splitlines())) == (3, 1) and "no such file or folder" in err


def test_an_onnx_model_is_not_shared(tmp_path: Path, ciod: Ciod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ciod_cli.commands.predict.number_of_processes", lambda: 2)
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    outcome = ciod("predict", tmp_path / "m.onnx", tmp_path)
    assert outcome.code == 2 and "--devices: an ONNX model runs in one process" in outcome.error_line


def test_terminated_in_two_processes(own_copy: Path) -> None:
    folder = Experiment.open(own_copy).run_folder("begun")
    process = started(*STEP_2, "--experiment", own_copy, "--name", "begun", "--devices", 2)
    while not (folder / STATE_FILE).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.terminate()
    assert only_error(process, seconds=60) == "error: terminated"
    assert process.returncode == 128 + signal.SIGTERM


def test_killed_in_two_processes_and_resumed_in_one(own_copy: Path, ciod: Ciod) -> None:
    given = (*STEP_2, "--experiment", own_copy)
    folder = Experiment.open(own_copy).run_folder("begun")
    process = started(*given, "--name", "begun", "--devices", 2)
    while not (folder / STATE_FILE).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(json.loads((folder / PROCESS_FILE).read_text())["pid"], signal.SIGKILL)
    error = only_error(process, seconds=60)
    assert error.startswith("error: rank 0: killed by SIGKILL")
    assert error.endswith("run the command again with --resume")
    assert process.returncode == 1
    resumed = ciod(*given, "--name", "begun", "--resume")
    assert resumed.code == 0, resumed.err
    assert ciod(*given, "--name", "whole").code == 0
    found, expected = (load_file(own_copy / f"{name}.safetensors") for name in ("begun", "whole"))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_rank_that_fails_ends_all_with_its_error(ciod: Ciod, own_copy: Path) -> None:
    experiment = Experiment.open(own_copy)
    manifest = experiment.read()
    listed = json.loads((own_copy / manifest.train_file(2).path).read_text())["images"]
    of_rank_1 = batch_indices(len(listed), 8, order_seed=(0, 0))[0][1]
    broken = experiment.folder / manifest.train_images(2) / listed[of_rank_1]["file_name"]
    sound, times = broken.read_bytes(), broken.stat()
    try:
        broken.write_bytes(b"no image")
        assert ciod("status", own_copy, "--verify", "--accept-changed").code == 0
        process = started(*STEP_2, "--experiment", own_copy, "--devices", 2)
        error = only_error(process, seconds=120)
    finally:
        broken.write_bytes(sound)
        os.utime(broken, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert error.startswith("error: rank 1: ") and broken.name in error
    assert process.returncode == 3
    assert experiment.read().run("step2-lwf").status in ("failed", "running")


@pytest.mark.parametrize(
    ("devices", "more", "expected"),
    [
        ("two", (), "--devices two: pass how many (2), the numbers of GPUs (0,1), or all"),
        ("0", (), "--devices 0: pass how many"),
        ("1,", (), "--devices 1,: pass how many"),
        ("2", ("--device", "cuda:1"), "--device cuda:1: processes cannot share it; leave it out"),
        ("2", ("--lr", "-1"), "--lr: training.lr: should be greater than 0"),
        ("all", ("--device", "cpu"), "--devices all: there is no GPU; pass the number of processes"),
        ("0,1", ("--device", "cpu"), "--devices 0,1: here are 0 GPUs"),
    ],
)
def test_impossible_devices(ciod: Ciod, devices: str, more: tuple[str, ...], expected: str) -> None:
    outcome = ciod("train-step", "--devices", devices, *more)
    assert outcome.code == 2
    assert expected in outcome.error_line


def test_a_single_device_needs_no_launcher(ciod: Ciod, trained: Path) -> None:
    outcome = ciod("evaluate", "step1", "--experiment", trained, "--workers", 0, "--device", "cpu", "--devices", 1)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ({}, {"CUDA_VISIBLE_DEVICES": "1,3"}),
        ({"CUDA_VISIBLE_DEVICES": "4,5,6,7", "OMP_NUM_THREADS": "2"}, {"CUDA_VISIBLE_DEVICES": "5,7"}),
    ],
)
def test_gpus_are_counted_among_those_that_are_visible(now: Mapping[str, str], expected: Mapping[str, str]) -> None:
    added = launch._environment(launch._Chosen(2, gpus=(1, 3)), now)
    assert added["CUDA_VISIBLE_DEVICES"] == expected["CUDA_VISIBLE_DEVICES"]
    assert ("OMP_NUM_THREADS" in added) == ("OMP_NUM_THREADS" not in now)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({0: launch.LOST_ANOTHER, 1: 3}, 3),
        ({0: 1, 1: launch.LOST_ANOTHER}, 1),
        ({0: 4, 1: -signal.SIGTERM}, 4),
        ({0: launch.LOST_ANOTHER, 1: -signal.SIGKILL}, "rank 1: killed by SIGKILL"),
        ({0: -signal.SIGTERM, 1: -signal.SIGSEGV}, "rank 1: killed by SIGSEGV"),
        ({0: launch.LOST_ANOTHER, 1: -signal.SIGTERM}, "rank 1: killed by SIGTERM"),
    ],
)
def test_the_exit_code_is_that_of_who_failed_first(
    codes: dict[int, int], expected: int | str, capsys: pytest.CaptureFixture[str]
) -> None:
    failures: dict[int, Any] = {rank: SimpleNamespace(exitcode=code) for rank, code in codes.items()}
    code = launch._reported(failures, can_resume=False)
    said = capsys.readouterr().err
    assert (code, said) == (expected, "") if isinstance(expected, int) else (code == 1 and expected in said)
