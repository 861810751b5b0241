"""Options that stand for settings: each names its key once; default, choices and messages follow from the key."""

from __future__ import annotations

import re
from contextlib import suppress
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_args

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from ciod_core.config.schema import Config

SETTINGS_PANEL = "Settings"
_GIVEN = "ciod_cli.settings"
# A parameter (`overwrite`) or a setting (`training.lr`) in a message of ciod_core.
_NAME_IN_MESSAGE = re.compile(r"`([a-z_][a-z0-9_]*(?:\.[a-z0-9_]+)?)`")


# Settings whose values are registered by name; where there is no registry, the schema lists them.
_REGISTRIES = {
    "method.name": ("ciod_core.methods.registry", "METHODS"),
    "model.name": ("ciod_core.model.registry", "DETECTORS"),
}
_running: ContextVar[typer.Context | None] = ContextVar("running", default=None)


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


def setting(key: str, flag: str, text: str, *, metavar: str | None = None, default: str | None = None) -> Any:
    """An option for one setting. `settings` collects what the user gave.

    Args:
        key: of the setting, for example `training.lr`.
        flag: of the option.
        text: its help; choices and default are added to it.
        metavar: placeholder of the value.
        default: replaces the schema's default in the help, where the command has another.
    """

    def note_given(ctx: typer.Context, value: Any) -> Any:
        ctx.meta.setdefault(_GIVEN, {})[key] = (flag, value)
        return value

    ending = f"Default: {default}." if default else f"{{{key}}}"
    return typer.Option(
        flag,
        metavar=metavar,
        rich_help_panel=SETTINGS_PANEL,
        help=f"{text} {ending}",
        callback=note_given,
        autocompletion=lambda incomplete: [name for name in choices(key) if name.startswith(incomplete)],
    )


def settings(ctx: typer.Context) -> Config:
    """The configuration from the running command's `--config`, its options made by `setting`, and `--set`.

    Raises:
        ConfigError: a setting that is unknown, of the wrong type or out of range.
    """
    from ciod_core.config.resolve import resolve_config

    given: dict[str, tuple[str, Any]] = ctx.meta.get(_GIVEN, {})
    return resolve_config(
        ctx.params["config"],
        {key: value for key, (_, value) in given.items()},
        ctx.params["set_"] or (),
        flag_names={key: flag for key, (flag, _) in given.items()},
    )


def choices(key: str) -> tuple[str, ...]:
    """The values of a setting that has a list of them, else nothing."""
    from ciod_core.config import schema

    if key in _REGISTRIES:
        module, attribute = _REGISTRIES[key]
        with suppress(ModuleNotFoundError):
            return tuple(getattr(import_module(module), attribute))
    section, _, name = key.partition(".")
    field = getattr(schema.Config.model_fields[section].annotation, "model_fields")[name]  # noqa: B009
    return tuple(value for value in get_args(field.annotation) if isinstance(value, str))


def with_flags(message: str) -> str:
    """A message in the words of the running command: `` `training.lr` `` becomes --lr.

    A name without a flag loses its backticks; so a setting can be passed to --set as it is written.
    """
    ctx = _running.get()
    flags = _flags(ctx) if ctx else {}
    return _NAME_IN_MESSAGE.sub(lambda found: flags.get(found[1], found[1]), message)


def _flags(ctx: typer.Context) -> dict[str, str]:
    flags = {key: flag for key, (flag, _) in ctx.meta.get(_GIVEN, {}).items()}
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
