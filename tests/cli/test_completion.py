"""What a shell completes, asked as typer's completion scripts ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ciod_cli.app import app
from ciod_core.methods.registry import AUTO


def completed(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that bash offers in a folder for the last one of a line, which may be empty."""
    monkeypatch.chdir(folder)
    asked = {"_CIOD_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    found = CliRunner().invoke(app, [], env=asked, prog_name="ciod", catch_exceptions=False)
    assert found.stderr == ""
    return found.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ciod distill", ["distill", "distill-into"]),
        ("ciod train-step --meth", ["--method"]),
        ("ciod train-step --method cr", ["crs-ckd"]),
        ("ciod train-step --model yolox-m", ["yolox-micro", "yolox-m"]),
        ("ciod distill-into yolox-n", ["yolox-nano"]),
        ("ciod evaluate step", ["step1", "step2"]),
        ("ciod evaluate step2 --backend ", ["hotcoco", "pycocotools"]),
        ("ciod train-step --teacher jo", ["joint2"]),
        ("ciod export step2 --format p", ["pt2"]),
        ("ciod distill --labels-format ", ["coco", "yolo"]),
        ("ciod split photos --protocol lo", ["loco"]),
        ("ciod predict photo", []),
    ],
)
def test_words(trained: Path, monkeypatch: pytest.MonkeyPatch, line: str, expected: list[str]) -> None:
    assert sorted(completed(line, trained, monkeypatch)) == sorted(expected)


def test_runs_of_another_folder_or_of_none(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(f"ciod evaluate --experiment {trained} jo", tmp_path, monkeypatch) == ["joint2"]
    assert completed(f"ciod evaluate --experiment {tmp_path} jo", trained, monkeypatch) == []
    assert completed("ciod evaluate ", tmp_path, monkeypatch) == []
    (tmp_path / "experiment.json").write_text("{")
    assert completed("ciod evaluate ", tmp_path, monkeypatch) == []
    assert AUTO in completed("ciod train-step --method ", tmp_path, monkeypatch)


@pytest.mark.parametrize("line", ["ciod evaluate st", "ciod train-step --method cr"])
def test_nothing_heavy_is_imported(trained: Path, line: str) -> None:
    """A process of its own, whose name is the command's, as the script of the shell starts it."""
    code = (
        "import os, sys\n"
        "os.environ |= {'_CIOD_COMPLETE': 'complete_bash', 'COMP_WORDS': sys.argv[1], 'COMP_CWORD': sys.argv[2]}\n"
        "sys.argv = ['ciod']\n"
        "from ciod_cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'PIL', 'pycocotools', 'onnx'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    command = [sys.executable, "-c", code, line, str(line.count(" "))]
    result = subprocess.run(command, cwd=trained, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and result.stdout, result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    code = "import sys; sys.argv = ['ciod', '--show-completion', sys.argv[1]]; from ciod_cli.app import main; main()"
    shown = subprocess.run([sys.executable, "-c", code, shell], capture_output=True, text=True, check=False)
    assert shown.returncode == 0 and "_CIOD_COMPLETE" in shown.stdout, shown.stderr
