"""Resolving settings: which layer wins, and what a user reads about a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ciod_core.config.resolve import config_text, resolve_config
from ciod_core.config.schema import Config, recorded_config
from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.migrations import RENAMED_SETTINGS


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_without_layers_the_defaults_stand() -> None:
    assert resolve_config() == Config()


def test_each_layer_overrides_the_one_before(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "training:\n  epochs: 2\n  lr: 0.5\n  batch_size: 4\ndata.workers: 0\n")
    config = resolve_config(
        file, {"training.lr": 0.25, "training.batch_size": 8, "training.seed": None}, ["training.batch_size=32"]
    )
    assert (config.training.epochs, config.training.lr, config.training.batch_size) == (2, 0.25, 32)
    assert config.data.workers == 0
    assert config.training.seed == Config().training.seed


def test_only_given_keys_count_as_set() -> None:
    config = resolve_config(None, {"data.image_size": 128, "data.workers": None})
    assert config.data.model_fields_set == {"image_size"}
    assert not config.model.model_fields_set


def test_values_of_set_are_yaml() -> None:
    config = resolve_config(
        assignments=["training.lr=1e-2", "training.milestones=[3, 5]", "data.flip=0", "training.deterministic=false"]
    )
    assert config.training.lr == 0.01
    assert config.training.milestones == (3, 5)
    assert config.data.flip == 0.0
    assert config.training.deterministic is False


def test_text_settings_stay_text() -> None:
    assert resolve_config(assignments=["model.backbone_weights=123"]).model.backbone_weights == "123"


@pytest.mark.parametrize(("text", "device"), [("0", "0"), ("0,1", "0,1"), ("cuda:1", "cuda:1")])
def test_a_device_may_be_a_number(tmp_path: Path, text: str, device: str) -> None:
    assert resolve_config(write(tmp_path / "c.yaml", f"training: {{device: '{text}'}}")).training.device == device
    assert resolve_config(write(tmp_path / "c.yaml", f"training:\n  device: {text}")).training.device == device
    assert resolve_config(assignments=[f"training.device={text}"]).training.device == device


def test_saved_configuration_reads_back(tmp_path: Path) -> None:
    config = resolve_config(assignments=["training.milestones=[3]", "training.lr=1e-5", "model.name=yolox-s"])
    assert resolve_config(write(tmp_path / "config.yaml", config_text(config))) == config


def test_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert resolve_config(write(tmp_path / "c.yaml", "# nothing\n")) == Config()


def test_numbers_are_decimal(tmp_path: Path) -> None:
    assert resolve_config(write(tmp_path / "c.yaml", "training: {epochs: 010}")).training.epochs == 10


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("training.epochs=0x10", "should be a valid integer, unable to parse string as an integer, got '0x10'"),
        ("training.epochs=1:30", "should be a valid integer, unable to parse string as an integer, got '1:30'"),
        ("training.epoch=3", "there is no setting 'training.epoch'; did you mean 'training.epochs'?"),
        ("epochs=3", "did you mean 'training.epochs'?"),
        ("image_size=64", "did you mean 'data.image_size'?"),
        ("qqqq=3", "sections are model, data, training"),
        ("training=3", "'training' is a section"),
        ("training.epochs", "expected key=value"),
        ("training.epochs=many", "should be a valid integer, unable to parse string as an integer, got 'many'"),
        ("training.epochs=yes", "training.epochs needs a number, got true"),
        ("training.epochs=0", "should be greater than or equal to 1, got 0"),
        ("training.epochs=2.5", "should be a valid integer"),
        ("training.epochs=", "should be a valid integer, got None"),
        ("training.milestones=[0]", "training.milestones=[0]: should be greater than or equal to 1, got [0]"),
        ("training.milestones=[1", "the value is not valid YAML"),
        ("method.name=crsckd", "did you mean 'crs-ckd'?"),
        ("data.image_size=100", "it must be a multiple of 32"),
        ("data.mosaic=1.5", "should be less than or equal to 1, got 1.5"),
        ("data.corrupt_images=ignore", "data.corrupt_images"),
    ],
)
def test_mistakes_in_set(assignment: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config(assignments=[assignment])
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trainning:\n  epochs: 3\n", "there is no section 'trainning'; did you mean 'training'?"),
        ("training:\n  epocs: 3\n", "there is no setting 'training.epocs'; did you mean 'training.epochs'?"),
        ("training: 3\n", "'training' is a section"),
        ("training:\n", "'training' is a section"),
        ("- a\n", "expected sections such as 'training:', got list"),
        ("training: {epochs: 3\n", "not valid YAML"),
        ("training:\n  epochs: [3]\n", "training.epochs: should be a valid integer, got [3]"),
        ("training:\n  epochs: 1\n  epochs: 2\n", "'epochs' is there twice"),
        ("1: 2\n", "there is no setting '1'"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, expected: str) -> None:
    file = write(tmp_path / "broken.yaml", text)
    with pytest.raises(ConfigError) as caught:
        resolve_config(file)
    message = str(caught.value)
    assert expected in message
    assert str(file) in message
    assert "\n" not in message


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        resolve_config(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="not a text file"):
        resolve_config(tmp_path / "binary.yaml")


def test_replay_has_one_budget() -> None:
    assert not Config().replay.on
    assert resolve_config(flags={"replay.images": 3}).replay.on
    assert resolve_config(assignments=["replay.images_per_class=3"]).replay.on
    with pytest.raises(ConfigError, match=r"^replay\.images is 3 and replay\.images_per_class is 2; set one of them$"):
        resolve_config(flags={"replay.images": 3}, assignments=["replay.images_per_class=2"])
    with pytest.raises(ConfigError, match=r"^--replay: replay\.images: should be greater"):
        resolve_config(flags={"replay.images": -1}, flag_names={"replay.images": "--replay"})


def test_a_mistake_in_a_flag_names_the_flag() -> None:
    with pytest.raises(ConfigError, match=r"^--epochs: training\.epochs: should be greater"):
        resolve_config(None, {"training.epochs": 0}, flag_names={"training.epochs": "--epochs"})


# Old name of a setting, its name today, and a value that is no default.
RENAMED: list[tuple[str, str, Any]] = [
    ("resampler.centre_score", "resampler.center_score", 0.125),
    ("replay.unlabelled", "data.missing_labels", "background"),
    ("replay.suspect_score", "data.missing_score", 0.375),
    ("replay.unlabeled", "data.missing_labels", "background"),
    ("replay.unlabeled_score", "data.missing_score", 0.375),
    ("distiller.batch_norm", "method.batch_norm", "update"),
    ("distiller.trunk_balance", "method.trunk_balance", 0.25),
    ("distiller.objectness", "method.objectness", "hard"),
]


def value_of(config: Config, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def test_every_renamed_setting_is_tested() -> None:
    assert {old: new for old, new, _ in RENAMED} == RENAMED_SETTINGS


@pytest.mark.parametrize(("old", "new", "value"), RENAMED)
@pytest.mark.parametrize("dotted", [True, False])
def test_a_file_may_use_the_old_name_of_a_setting(old: str, new: str, value: Any, dotted: bool, tmp_path: Path) -> None:
    section, name = old.split(".")
    file = write(tmp_path / "old.yaml", yaml.safe_dump({old: value} if dotted else {section: {name: value}}))
    config = resolve_config(file)
    assert value_of(config, new) == value != value_of(Config(), new)
    assert resolve_config(write(tmp_path / "new.yaml", config_text(config))) == config
    assert name not in yaml.safe_load(config_text(config))[section]


@pytest.mark.parametrize(("old", "new", "value"), RENAMED)
def test_set_may_use_the_old_name_of_a_setting(old: str, new: str, value: Any, tmp_path: Path) -> None:
    assert value_of(resolve_config(assignments=[f"{old}={value}"]), new) == value
    # An old name overrides the new one of an earlier layer, and the other way round.
    default = value_of(Config(), new)
    file = write(tmp_path / "new.yaml", yaml.safe_dump({new: default}))
    assert value_of(resolve_config(file, assignments=[f"{old}={value}"]), new) == value
    file = write(tmp_path / "old.yaml", yaml.safe_dump({old: value}))
    assert value_of(resolve_config(file, assignments=[f"{new}={default}"]), new) == default


def test_a_mistake_under_an_old_name_states_both() -> None:
    with pytest.raises(ConfigError, match=r"^`set` resampler\.centre_score=2: resampler\.center_score: should be less"):
        resolve_config(assignments=["resampler.centre_score=2"])


def test_a_run_that_records_less_was_trained_as_ciod_was_then() -> None:
    now = Config().model_dump(mode="json")
    assert recorded_config(now) == Config()
    del now["distiller"]["background"]
    for setting in ("batch_norm", "trunk_balance", "objectness"):
        del now["method"][setting]
    then = recorded_config(now)
    assert (then.distiller.background, then.method.batch_norm, then.method.trunk_balance) == ("zero", "update", 0.0)
    assert recorded_config({}).method.batch_norm == "update"


def test_a_run_of_a_later_version() -> None:
    recorded = Config().model_dump(mode="json")
    recorded["distiller"]["magic"] = 1
    with pytest.raises(CheckpointError, match=r"setting distiller\.magic is unknown to this version of ciod; use the"):
        recorded_config(recorded)
