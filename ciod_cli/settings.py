"""Options that stand for settings: each is declared once; default, choices and messages follow from its key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from ciod_core.config.schema import Config

SETTINGS_PANEL = "Settings"
_GIVEN = "ciod_cli.settings"
# A parameter (`overwrite`) or a setting (`training.lr`) in a message of ciod_core.
_NAME_IN_MESSAGE = re.compile(r"`([a-z_][a-z0-9_]*(?:\.[a-z0-9_]+)?)`")

# Functions of the library that messages name, as commands.
_COMMANDS = {"accept_changes": "'ciod status --verify --accept-changed'"}

_running: ContextVar[typer.Context | None] = ContextVar("running", default=None)


class SettingOption(NamedTuple):
    """The option of a setting: its flag, the type of its value and its help, to which choices and default are added."""

    flag: str
    kind: type
    text: str


SETTING_OPTIONS = {
    "method.name": SettingOption("--method", str, "Learning method; joint trains the upper bound."),
    "replay.images": SettingOption("--replay", int, "Number of exemplar images of earlier steps to train on again."),
    "model.name": SettingOption("--model", str, "The detector."),
    "model.backbone_weights": SettingOption(
        "--backbone-weights", str, "Initial weights of the backbone: imagenet, none or a file."
    ),
    "model.init": SettingOption("--init", str, "Checkpoint that step 1 starts from, with fresh class rows."),
    "data.image_size": SettingOption("--image-size", int, "Longer side in pixels, a multiple of 32."),
    "data.unlabeled": SettingOption(
        "--unlabeled", str, "Folder of further photographs without new objects, half of every batch."
    ),
    "data.workers": SettingOption("--workers", int, "Processes that load images."),
    "training.epochs": SettingOption("--epochs", int, "Passes over the training images."),
    "training.batch_size": SettingOption("--batch-size", int, "Images per iteration."),
    "training.lr": SettingOption("--lr", float, "Learning rate."),
    "training.evaluate_every": SettingOption(
        "--evaluate-every", int, "Epochs between evaluations during training; 0: at the end alone."
    ),
    "training.seed": SettingOption("--seed", int, "Random seed."),
    "training.device": SettingOption("--device", str, "Device to run on: auto, cpu, cuda, a GPU's number or mps."),
    "training.log": SettingOption(
        "--log", str, "Where progress is written: CSV files, or TensorBoard's event files beside them."
    ),
    "training.precision": SettingOption("--precision", str, "Floating-point precision."),
    "evaluation.negatives": SettingOption(
        "--negatives", bool, "Validation images of earlier steps show none of the new classes: count detections there."
    ),
    "evaluation.batch_size": SettingOption("--batch-size", int, "Images per forward pass."),
}


class SettingsCommand(TyperCommand):
    """A command whose help states choices and default of each setting, and whose messages name its flags."""

    def invoke(self, ctx: Any) -> Any:
        token = _running.set(ctx)
        try:
            return super().invoke(ctx)
        finally:
            _running.reset(token)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        # Only now, because the schema takes longer to import than everything else that `ciod --help` needs.
        for parameter in self.params:
            described = getattr(parameter, "help", None)
            if described and "{" in described:
                parameter.help = re.sub(r"\{([\w.]+)\}", lambda found: _choices_and_default(found[1]), described)  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


def setting(key: str, text: str | None = None) -> Any:
    """The Typer option of a setting. `settings` collects what the user gave.

    Args:
        key: of the setting, for example `training.lr`.
        text: replaces the help of `SETTING_OPTIONS`; with a `Default: ` it replaces choices and default, too.
    """
    option = SETTING_OPTIONS[key]
    described = text or option.text

    def note_given(ctx: typer.Context, value: Any) -> Any:
        ctx.meta.setdefault(_GIVEN, {})[key] = (option.flag, value)
        return value

    return typer.Option(
        None,
        option.flag,
        metavar="NAME" if option.kind is str else None,
        rich_help_panel=SETTINGS_PANEL,
        help=described if "Default: " in described else f"{described} {{{key}}}",
        callback=note_given,
        autocompletion=lambda incomplete: [name for name in choices(key) if name.startswith(incomplete)],
    )


def settings(arguments: Mapping[str, tuple[str, Any]] | None = None, *, preset: Path | None = None) -> Config:
    """The configuration from the running command's `--config`, its options made by `setting`, and `--set`.

    Args:
        arguments: settings that are positional arguments: key → name of the argument and its value.
        preset: the file to read where the user gives no `--config`.

    Raises:
        ConfigError: a setting that is unknown, of the wrong type or out of range.
    """
    from ciod_core.config.resolve import resolve_config

    ctx = _running.get()
    assert ctx is not None, "settings are those of a running command"
    given: dict[str, tuple[str, Any]] = ctx.meta.get(_GIVEN, {}) | dict(arguments or {})
    return resolve_config(
        ctx.params.get("config") or preset,
        {key: value for key, (_, value) in given.items()},
        ctx.params.get("set_") or (),
        flag_names={key: flag for key, (flag, _) in given.items()},
    )


def choices(key: str) -> tuple[str, ...]:
    """The values of a setting that has a fixed or registered list of them, else nothing."""
    from ciod_core.config.schema import choices_of

    return choices_of(key)


def with_flags(message: str) -> str:
    """A message in the words of the running command: `` `training.lr` `` becomes --lr.

    A name without a flag loses its backticks; so a setting can be passed to --set as it is written.
    """
    ctx = _running.get()
    flags = _flags(ctx) if ctx else {}
    return _NAME_IN_MESSAGE.sub(lambda found: flags.get(found[1], found[1]), message)


def _flags(ctx: typer.Context) -> dict[str, str]:
    flags = _COMMANDS | {key: flag for key, (flag, _) in ctx.meta.get(_GIVEN, {}).items()}
    for parameter in ctx.command.params:
        is_option = parameter.param_type_name == "option"
        flag = parameter.opts[0] if is_option else parameter.metavar or str(parameter.name).upper()
        flags[parameter.name or ""] = flag
        flags[flag.lstrip("-").replace("-", "_")] = flag
    return flags


def _choices_and_default(key: str) -> str:
    from ciod_core.config import schema

    section, _, name = key.partition(".")
    default = getattr(schema.Config.model_fields[section].annotation, "model_fields")[name].default  # noqa: B009
    listed = f"One of {', '.join(choices(key))}. " if choices(key) else ""
    return f"{listed}Default: {default}."
