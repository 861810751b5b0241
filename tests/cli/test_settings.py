"""Options that stand for settings, and messages in the words of the running command."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ciod_cli.guard import guarded
from ciod_cli.options import DatasetFiles, argument, option, with_options
from ciod_cli.settings import SettingsCommand, settings, with_flags
from ciod_core.config.resolve import resolve_config
from ciod_core.errors import ConfigError
from tests.cli.conftest import Ciod


def run(*arguments: str, message: str = "") -> Any:
    app = typer.Typer()

    @guarded
    @with_options("training.lr")
    def command(
        weights: str = argument("WEIGHTS", "Weights.", ""),
        format_name: str = option("--format", "Format.", "onnx"),
        *,
        files: DatasetFiles,
    ) -> None:
        resolved = settings()
        if message:
            raise ConfigError(message)
        typer.echo(f"{resolved.training.lr} {resolved.training.epochs} {sorted(resolved.training.model_fields_set)}")

    app.command(cls=SettingsCommand)(command)
    return CliRunner().invoke(app, arguments)


def test_only_what_was_given_is_set(tmp_path: Path) -> None:
    assert run().stdout == "0.001 12 []\n"
    assert run("--lr", "0.5").stdout == "0.5 12 ['lr']\n"
    (tmp_path / "c.yaml").write_text("training: {lr: 0.2, epochs: 3}")
    assert run("--config", str(tmp_path / "c.yaml"), "--lr", "0.5").stdout == "0.5 3 ['epochs', 'lr']\n"
    assert run("--lr", "0.5", "--set", "training.lr=0.7").stdout == "0.7 12 ['lr']\n"


def test_a_group_of_options_is_one_parameter() -> None:
    given: list[tuple[str, DatasetFiles]] = []

    @with_options()
    def command(name: str = argument("NAME", "Name."), *, files: DatasetFiles) -> None:
        given.append((name, files))

    app = typer.Typer()
    app.command(cls=SettingsCommand)(command)
    assert CliRunner().invoke(app, ("a", "--val", "v.json", "--images", "folder")).exit_code == 0
    files = dict.fromkeys(field.name for field in fields(DatasetFiles))
    assert given == [("a", DatasetFiles(**files | {"val": Path("v.json"), "images": Path("folder")}))]


def test_a_value_out_of_range_names_the_flag() -> None:
    result = run("--lr", "-1")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --lr: training.lr: ")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("`data_root`: no such folder", "--data-root: no such folder"),
        ("`training.lr` is too high", "--lr is too high"),
        ("`format` and `format_name`", "--format and --format"),
        ("`weights`: missing", "WEIGHTS: missing"),
        ("`distiller.target` is soft", "distiller.target is soft"),
        ("set `nowhere`", "set nowhere"),
        ("class `not a name` stays", "class `not a name` stays"),
    ],
)
def test_messages_name_the_flags_of_the_command(message: str, expected: str) -> None:
    assert run(message=message).stderr == f"error: {expected}\n"


def test_outside_a_command_backticks_are_removed() -> None:
    assert with_flags("`training.lr`: x") == "training.lr: x"


class TestList:
    """`ciod settings`."""

    def test_table(self, ciod: Ciod) -> None:
        outcome = ciod("settings", "training")
        assert "training.lr" in outcome.out and "learning rate" in outcome.out and "erd" not in outcome.out
        assert "[8, 11]" in outcome.out
        assert "Presets for --config: published" in outcome.err

    def test_json(self, ciod: Ciod) -> None:
        document = json.loads(ciod("settings", "--json").out)
        defaults = {setting["key"]: setting["default"] for setting in document["settings"]}
        assert defaults["training.milestones"] == [8, 11] and defaults["data.unlabeled"] is None
        assert document["presets"] == ["published", "published-erd"]

    def test_a_preset_is_yaml_that_config_reads(self, ciod: Ciod, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text(ciod("settings", "--preset", "published").out)
        assert resolve_config(path) == resolve_config("published")
        assert json.loads(ciod("settings", "--preset", "published", "--json").out)["training"]["lr"] == 0.02

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (("lrr",), "FILTER lrr: no setting"),
            (("--preset", "x"), "--preset x: there is no such preset"),
            (("lr", "--preset", "published"), "exclude each other"),
        ],
    )
    def test_invalid_arguments(self, ciod: Ciod, arguments: tuple[str, ...], expected: str) -> None:
        outcome = ciod("settings", *arguments)
        assert outcome.code == 2 and expected in outcome.error_line
