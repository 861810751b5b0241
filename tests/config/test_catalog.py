"""Every setting says what it does, and the presets are settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ciod_core.config.catalog import all_settings, find_settings, preset_file, preset_names
from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import Config, config_sections
from ciod_core.errors import ConfigError


def test_every_setting_is_there_with_default_and_meaning() -> None:
    keys = {f"{section}.{name}" for section, values in Config().model_dump().items() for name in values}
    settings = all_settings()
    assert {setting.key for setting in settings} == keys and len(settings) == len(keys)
    assert [setting.key for setting in settings if not setting.meaning or not setting.values] == []
    defaults = Config().model_dump()
    for setting in settings:
        section, name = setting.key.split(".")
        assert setting.default == defaults[section][name]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("training.optimizer", "sgd, adamw"),
        ("training.epochs", "whole number ≥ 1"),
        ("training.ema_decay", "number ≥ 0, < 1"),
        ("training.lr", "number > 0"),
        ("data.flip", "number ≥ 0, ≤ 1"),
        ("data.unlabeled", "text"),
        ("data.multi_scale", "true or false"),
        ("training.milestones", "list"),
        ("branch.depth", "head, neck"),
    ],
)
def test_what_a_setting_may_be(key: str, values: str) -> None:
    assert find_settings(key) == (next(setting for setting in all_settings() if setting.key == key),)
    assert find_settings(key)[0].values == values


def test_names_of_methods_are_choices() -> None:
    assert "crs-ckd" in find_settings("method.name")[0].values


def test_the_filter_is_a_section_or_a_part_of_a_name() -> None:
    assert {setting.key.split(".")[0] for setting in find_settings("training")} == {"training"}
    assert len(find_settings("training")) == len(config_sections()["training"].model_fields)
    keys = {setting.key for setting in find_settings("NMS")}
    assert keys >= {"resampler.nms_iou", "evaluation.nms_iou", "erd.nms_iou"}
    with pytest.raises(ConfigError, match=r"did you mean 'training'\?"):
        find_settings("trainign")


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_settings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = resolve_config(name)
    for section, values in yaml.safe_load(preset_file(name).read_text()).items():
        assert getattr(config, section).model_fields_set == set(values)


def test_a_file_comes_before_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("published").write_text("training: {epochs: 3}")
    assert resolve_config(Path("published")).training.epochs == 3


def test_neither_a_file_nor_a_preset(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing.yaml: no such file; pass a YAML file, or a preset: published"):
        resolve_config(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="did you mean 'published'"):
        preset_file("publshed")


def test_published_settings_are_the_published_ones() -> None:
    config = resolve_config("published")
    assert (config.resampler.min_score, config.resampler.nms_iou, config.resampler.ground_truth_iou) == (0.1, 0.95, 1.0)
    assert (config.distiller.weighting, config.distiller.target, config.distiller.background) == (
        "paper",
        "soft",
        "zero",
    )
    shared = (config.method.objectness, config.method.batch_norm, config.method.trunk_balance)
    assert shared == ("hard", "update", 0.0)
    assert (config.training.optimizer, config.training.lr, config.training.milestones) == ("sgd", 0.02, (8, 11))
