"""A small experiment with three trained runs, shared by the tests of the commands that need weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ciod_cli.app import app
from ciod_core.data.formats.source import DatasetSource
from ciod_core.experiment.create import create_experiment
from tests.export.conftest import checkpoint, detector, onnx_model

__all__ = ["checkpoint", "detector", "onnx_model"]

TINY = ("--image-size", "64", "--epochs", "1", "--batch-size", "8", "--workers", "0", "--device", "cpu")


class CommandResult:
    """What a command left: exit code, stdout and stderr."""

    def __init__(self, arguments: tuple[str, ...]) -> None:
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr

    @property
    def error_line(self) -> str:
        """The only line a failed command may write besides notes: it starts with `error: `."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert self.err.rstrip().endswith(lines[0])
        assert "Traceback" not in self.err
        return lines[0]


Ciod = Callable[..., CommandResult]


@pytest.fixture(scope="session")
def ciod() -> Ciod:
    """Run a command in this process: `ciod("status", folder)`."""
    return lambda *arguments: CommandResult(tuple(str(argument) for argument in arguments))


@pytest.fixture(scope="session")
def trained(shapes_dataset: DatasetSource, tmp_path_factory: pytest.TempPathFactory, ciod: Ciod) -> Path:
    """An experiment 5+3 with the runs step1, step2 and joint2; read only."""
    folder = tmp_path_factory.mktemp("trained") / "experiment"
    create_experiment(shapes_dataset, "5+3", "name", folder)
    for arguments in (
        ("--model", "yolox-micro"),
        ("--teacher", "step1", "--method", "crs-ckd", "--name", "step2"),
        ("--model", "yolox-micro", "--method", "joint"),
    ):
        outcome = ciod("train-step", "--experiment", folder, *TINY, *arguments)
        assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture
def own_copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained experiment that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "experiment"))
