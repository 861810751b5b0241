"""From defaults, a YAML file, flags and assignments to one checked `Config`; each layer overrides the one before it.

Only given keys are passed to the models, so `config.model.model_fields_set` tells a given setting from a default.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from ciod_core.config.catalog import preset_file, preset_names
from ciod_core.config.schema import Config, config_sections
from ciod_core.config.yaml import parse_yaml, read_yaml
from ciod_core.errors import ConfigError, did_you_mean
from ciod_core.migrations import RENAMED_SETTINGS


class _Given(NamedTuple):
    value: Any
    origin: str


def resolve_config(
    config_file: Path | str | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    *,
    flag_names: Mapping[str, str] | None = None,
) -> Config:
    """Merge the layers and check the result.

    Args:
        config_file: YAML with sections as mappings (`training: {epochs: 12}`) or dotted keys, or the name of a preset.
        flags: dotted key → value; None means that the flag was not given.
        assignments: `key=value` texts; the value is read as YAML, so lists and numbers work.
        flag_names: dotted key → the flag's name in messages.

    Raises:
        ConfigError: unreadable file, unknown key (with a suggestion), value of the wrong type or out of range.
    """
    given: dict[str, _Given] = {}
    if config_file is not None:
        given.update(_from_file(config_file))
    for key, value in (flags or {}).items():
        if value is not None:
            given[_known_key(key, key)] = _Given(value, (flag_names or {}).get(key, key))
    for assignment in assignments:
        key, value = _from_assignment(assignment)
        given[key] = value
    for key, (value, origin) in given.items():
        _refuse_bool_as_number(key, value, origin)
    nested: dict[str, dict[str, Any]] = {}
    for key, (value, _) in given.items():
        section, field = key.split(".")
        nested.setdefault(section, {})[field] = value
    try:
        return Config.model_validate(nested)
    except ValidationError as error:
        raise _config_error(error, given) from None


def config_text(config: Config) -> str:
    """The configuration as YAML that `resolve_config` reads back to the same settings."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _known_keys() -> dict[str, Any]:
    """Every dotted key with the type of its value, in the order of the sections."""
    return {
        f"{section}.{name}": field.annotation
        for section, kind in config_sections().items()
        for name, field in kind.model_fields.items()
    }


def _known_key(key: str, origin: str) -> str:
    key = RENAMED_SETTINGS.get(key, key)
    if key in _known_keys():
        return key
    if key in config_sections():
        raise ConfigError(f"{origin}: '{key}' is a section; name one of its settings, for example '{_first_of(key)}'")
    raise ConfigError(f"{origin}: there is no setting '{key}'{_suggestion(key)}")


def _first_of(section: str) -> str:
    return next(key for key in _known_keys() if key.startswith(section + "."))


def _suggestion(key: str) -> str:
    known = _known_keys()
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not close:
        last = key.rpartition(".")[2]
        names = {path.rpartition(".")[2]: path for path in reversed(known)}
        close = [names[name] for name in difflib.get_close_matches(last, names, n=1, cutoff=0.75)]
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; sections are {', '.join(config_sections())}"


def _from_file(path: Path | str) -> dict[str, _Given]:
    origin = f"`config` {path}"
    if not Path(path).exists():
        if str(path) not in preset_names():
            raise ConfigError(f"{origin}: no such file; pass a YAML file, or a preset: {', '.join(preset_names())}")
        path = preset_file(str(path))
    document = read_yaml(Path(path), origin)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{origin}: expected sections such as 'training:', got {type(document).__name__}")
    return {key: _Given(value, origin) for key, value in _flatten(document, origin)}


def _flatten(document: Mapping[Any, Any], origin: str) -> Iterator[tuple[str, Any]]:
    sections = config_sections()
    for section, content in document.items():
        if section in sections:
            if not isinstance(content, dict):
                raise ConfigError(
                    f"{origin}: '{section}' is a section; put its settings under it, for example '{_first_of(section)}'"
                )
            for name, value in content.items():
                yield _known_key(f"{section}.{name}", origin), value
        elif isinstance(content, dict):
            hint = did_you_mean(section, sections, otherwise=f"sections are {', '.join(sections)}")
            raise ConfigError(f"{origin}: there is no section '{section}'; {hint}")
        else:
            yield _known_key(str(section), origin), content


def _from_assignment(assignment: str) -> tuple[str, _Given]:
    key, equals, text = assignment.partition("=")
    key = key.strip()
    origin = f"`set` {assignment}"
    if not equals:
        raise ConfigError(f"{origin}: expected key=value, for example training.epochs=12")
    key = _known_key(key, origin)
    if _known_keys()[key] is str:
        return key, _Given(text.strip(), origin)
    try:
        return key, _Given(parse_yaml(text), origin)
    except ValueError as error:
        raise ConfigError(f"{origin}: the value is not valid YAML: {error}") from None


def _refuse_bool_as_number(key: str, value: Any, origin: str) -> None:
    # pydantic reads True as 1; `epochs: yes` does not mean one epoch.
    if isinstance(value, bool) and _known_keys()[key] in (int, float):
        raise ConfigError(f"{origin}: {key} needs a number, got {str(value).lower()}")


def _config_error(error: ValidationError, given: Mapping[str, _Given]) -> ConfigError:
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    key = ".".join(str(part) for part in first["loc"][:2])
    if key not in given:
        return ConfigError(message)
    value, origin = given[key]
    prefix = origin if key in origin else f"{origin}: {key}"
    hint = ""
    if first["type"] == "literal_error":
        choices = first["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
    return ConfigError(f"{prefix}: {message.removeprefix('Input ')}, got {value!r}{hint}")
