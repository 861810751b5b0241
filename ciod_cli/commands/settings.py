"""`ciod settings`: everything that can be set, and the presets."""

from __future__ import annotations

from typing import Any

from ciod_cli import console
from ciod_cli.options import JSON, argument, option
from ciod_core.errors import ConfigError


def settings(
    filter: str | None = argument("FILTER", "A section, such as training, or a part of a setting's name.", None),
    preset: str | None = option("--preset", "Print a preset as YAML, to begin a file of one's own.", metavar="NAME"),
    json: bool = JSON,
) -> None:
    """List every setting with its default and meaning; --set and --config take them."""
    from ciod_core.config.catalog import find_settings, preset_file, preset_names

    if preset is not None:
        if filter is not None:
            raise ConfigError("`preset` and `filter` exclude each other; pass one of them")
        _show_preset(preset_file(preset).read_text(encoding="utf-8"), json)
        return
    found = find_settings(filter)
    if json:
        rows = [{**setting._asdict(), "default": _plain(setting.default)} for setting in found]
        console.show_json({"settings": rows, "presets": list(preset_names())})
        return
    cells = [(setting.key, _text(setting.default), setting.values, setting.meaning) for setting in found]
    console.show(console.table("Settings", ("setting", "default", "values", "meaning"), cells, text_columns=4))
    console.note(f"Presets for --config: {', '.join(preset_names())}")


def _show_preset(text: str, json: bool) -> None:
    if not json:
        for line in text.rstrip().splitlines():
            console.show(line)
        return
    import yaml

    console.show_json(yaml.safe_load(text))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    """A value as it is written in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(_plain(value))
