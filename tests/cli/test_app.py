"""The command as a whole: quick, complete, and stable in its flags."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ciod_cli.app import app, main
from ciod_cli.settings import choices
from ciod_core import __version__
from ciod_core.config.schema import Config
from tests.cli.conftest import Ciod

# Scripts depend on these names: change them only on purpose.
FLAGS = {
    "check": "--data-root --hold-out --hold-out-seed --images --json --skip-images --strict --val --val-images",
    "split": (
        "--data --data-root --hold-out --hold-out-seed --images --json --leave-out --order --out --overwrite --plan "
        "--protocol --seed --val --val-images"
    ),
    "run": (
        "--batch-size --config --device --epochs --first-epochs --gpus --image-size --init --jobs --joint-epochs "
        "--json --log --lr --methods --model --negatives --no-upper-bounds --on --seed --seeds --set --upper-bounds "
        "--workers"
    ),
    "reproduce": (
        "--batch-size --config --data-root --dataset --device --dry-run --epochs --image-size --json --list --lr "
        "--no-upper-bounds --out --seeds --set --upper-bounds --workers"
    ),
    "train-step": (
        "--backbone-weights --batch-size --config --data --data-root --device --devices --dry-run --epochs "
        "--evaluate-every --experiment --hold-out --hold-out-seed --image-size --images --init --json --knowledge "
        "--log --lr --method --model --name --negatives --overwrite --precision --replay --resume --seed --set "
        "--step --teacher --unlabeled --val --val-images --workers"
    ),
    "distill": (
        "--config --device --devices --draw --experiment --flip --json --labels-format --out --overwrite --scales "
        "--set --step --teacher --teacher-classes --unlabeled --workers --write-labels"
    ),
    "distill-into": (
        "--batch-size --config --device --devices --epochs --experiment --flip --image-size --images --json --lr "
        "--name --out --overwrite --resume --scales --seed --set --step --teacher --teacher-classes --workers"
    ),
    "consolidate": (
        "--batch-size --config --device --devices --epochs --experiment --image-size --json --lr --name --negatives "
        "--overwrite --resume --seed --set --unlabeled --workers"
    ),
    "evaluate": (
        "--backend --batch-size --config --device --devices --experiment --json --negatives --per-class "
        "--per-class-group --save-detections --set --upper-bound --workers"
    ),
    "compare": "--device --experiment --json --samples --seed",
    "predict": (
        "--batch-size --classes --crops --device --devices --experiment --format --json --out --recursive --score"
    ),
    "export": (
        "--experiment --fixed --format --json --license --max-detections --nms --nms-iou --no-nms --out --overwrite "
        "--score --yield-iou"
    ),
    "import": "--classes --image-size --json --legacy --license --no-legacy --out --overwrite",
    "report": "--detections --device --experiment --format --images --json --out",
    "status": "--accept-changed --experiment --json --verify",
    "demo": "--full --json --out --seed --seeds",
    "settings": "--json --preset",
}
FLAGS["eval"] = FLAGS["evaluate"]


def flags_of(name: str) -> set[str]:
    command = typer.main.get_command(app).commands[name]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    return {flag for option in options for flag in (*option.opts, *option.secondary_opts)}


def test_every_command_is_listed_here() -> None:
    assert set(typer.main.get_command(app).commands) == set(FLAGS)


@pytest.mark.parametrize("name", FLAGS)
def test_flags_do_not_change(name: str) -> None:
    assert flags_of(name) == set(FLAGS[name].split())


@pytest.mark.parametrize("name", FLAGS)
def test_every_command_has_a_help_text(ciod: Ciod, name: str) -> None:
    outcome = ciod(name, "--help")
    assert outcome.code == 0
    assert "Usage" in outcome.out


def test_version(ciod: Ciod) -> None:
    assert ciod("--version").out == f"ciod {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("unknown",), "No such command 'unknown'"),
        (("exprt",), "'export'"),
        (("--nope",), "--nope"),
        (("split", "x", "--nope"), "--nope"),
        (("split",), "'DATASET'; see 'ciod split --help'"),
        (("split", "x"), "'--plan'"),
        (("split", "x", "--plan"), "'--plan' requires an argument"),
        (("status", "a", "b"), "unexpected extra argument"),
        (("demo", "--seeds", "0"), "'--seeds'"),
        (("demo", "--seed", "a"), "'--seed'"),
    ],
)
def test_usage_errors_are_one_line_and_exit_with_2(ciod: Ciod, arguments: tuple[str, ...], expected: str) -> None:
    outcome = ciod(*arguments)
    assert outcome.code == 2
    assert not outcome.out
    assert outcome.err == f"{outcome.error_line}\n"
    assert expected in outcome.error_line


def test_without_arguments_the_help_is_shown(ciod: Ciod) -> None:
    outcome = ciod()
    assert outcome.code == 2
    assert "train-step" in outcome.out + outcome.err and "error:" not in outcome.err


def test_ctrl_c_before_a_command_has_begun_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ciod_cli.app.app", interrupted)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130


@pytest.mark.parametrize("name", ["", *FLAGS])
def test_help_imports_nothing_heavy(name: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from ciod_cli.app import main\n"
        f"sys.argv = ['ciod', *{name!r}.split(), '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'torchvision', 'numpy', 'PIL', 'pycocotools', 'onnx', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_help_is_quick() -> None:
    """What counts is the work it has to do beside that of the libraries it is made with, in processor time."""

    def seconds(*arguments: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    libraries, command = zip(
        *(
            (seconds("-c", "import typer.rich_utils, typer.main"), seconds("-m", "ciod_cli", "--help"))
            for _ in range(4)
        ),
        strict=True,
    )
    assert min(command) < 3 * min(libraries)


@pytest.mark.parametrize(
    ("name", "flag", "key"),
    [
        ("train-step", "--lr", "training.lr"),
        ("train-step", "--method", "method.name"),
        ("train-step", "--replay", "replay.images"),
        ("evaluate", "--batch-size", "evaluation.batch_size"),
        ("predict", "--device", "training.device"),
    ],
)
def test_help_ends_with_the_default_of_the_configuration(ciod: Ciod, name: str, flag: str, key: str) -> None:
    section, field = key.split(".")
    ciod(name, "--help")
    command = typer.main.get_command(app).commands[name]
    command.get_help(typer.Context(command))
    text = next(parameter.help for parameter in command.params if flag in parameter.opts)
    assert text.endswith(f"Default: {getattr(getattr(Config(), section), field)}.")


def test_help_and_completion_list_the_methods(ciod: Ciod) -> None:
    words = " ".join(ciod("train-step", "--help").out.replace("│", " ").split())
    assert "One of auto, crs-ckd, erd, sid," in words
    assert "pseudo-label" in choices("method.name")
