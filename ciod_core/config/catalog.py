"""What can be set: every setting with its default and meaning, read off the schema; and the presets."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args

from pydantic.fields import FieldInfo

from ciod_core.config.schema import NO_BOUND, choices_of, config_sections
from ciod_core.errors import ConfigError, did_you_mean

_PRESETS = Path(__file__).parent / "presets"
_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
_KINDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


class Setting(NamedTuple):
    """One setting.

    Attributes:
        key: dotted, such as `training.lr`.
        default: its value where nothing is given.
        values: what it may be, in words.
        meaning: what it does.
    """

    key: str
    default: Any
    values: str
    meaning: str


def all_settings() -> tuple[Setting, ...]:
    """Every setting, in the order of the sections; those of the methods come last."""
    return tuple(
        Setting(f"{section}.{name}", field.default, _values(f"{section}.{name}", field), field.description or "")
        for section, kind in config_sections().items()
        for name, field in kind.model_fields.items()
    )


def find_settings(words: str | None = None) -> tuple[Setting, ...]:
    """The settings of a section, the one of this key, or else those whose key contains the words; all without words.

    Raises:
        ConfigError: there is none.
    """
    known = all_settings()
    if words is None:
        return known
    if words in config_sections():
        return tuple(setting for setting in known if setting.key.startswith(f"{words}."))
    found = tuple(setting for setting in known if setting.key == words)
    found = found or tuple(setting for setting in known if words.lower() in setting.key)
    if not found:
        hint = did_you_mean(words, [*config_sections(), *(setting.key for setting in known)], otherwise="")
        raise ConfigError(f"`filter` {words}: no setting has this in its name; {hint}")
    return found


def preset_names() -> tuple[str, ...]:
    """The names of the presets."""
    return tuple(sorted(path.stem for path in _PRESETS.glob("*.yaml")))


def preset_file(name: str) -> Path:
    """The YAML file of a preset.

    Raises:
        ConfigError: there is no preset of this name.
    """
    if name not in preset_names():
        raise ConfigError(f"`preset` {name}: there is no such preset; {did_you_mean(name, preset_names())}")
    return _PRESETS / f"{name}.yaml"


def _values(key: str, field: FieldInfo) -> str:
    choices = choices_of(key)
    if choices:
        return ", ".join(choices)
    kinds: tuple[Any, ...] = get_args(field.annotation) or (field.annotation,)
    if isinstance(field.default, tuple):
        return "list"
    text = next(_KINDS[kind] for kind in kinds if kind is not NoneType)
    bounds = [
        f"{sign} {getattr(bound, name):g}"
        for bound in field.metadata
        for name, sign in _SIGNS.items()
        if abs(getattr(bound, name, NO_BOUND)) < NO_BOUND
    ]
    return f"{text} {', '.join(bounds)}" if bounds else text
