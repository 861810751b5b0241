"""Settings that a step takes from its teacher's run unless they are set: what suited the data and the machine there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ciod_core.config.schema import Config, recorded_config
from ciod_core.experiment.entries import RunRecord

# With the words for a value of each.
INHERITED = {
    "training.batch_size": "batch size {}",
    "training.epochs": "{} epochs",
    "training.optimizer": "optimizer {}",
    "training.lr": "lr {:g}",
    "data.multi_scale": "multi-scale {}",
}
# What hardly anybody changes is not worth a word where it is the default.
RARELY_SET = ("training.optimizer", "data.multi_scale")


def inherit(config: Config, run: RunRecord, *, learning_rate: bool) -> tuple[Config, tuple[str, ...]]:
    """The settings with those of the teacher's run where none is set, and the keys of these.

    Args:
        config: of the step.
        run: of its teacher.
        learning_rate: take the optimizer and its learning rate, too; the rate for the same optimizer alone.

    Raises:
        CheckpointError: the run's record holds a value that cannot be.
    """
    recorded: dict[str, dict[str, Any]] = {}
    for key in INHERITED:
        section, name = key.split(".")
        if name in run.config.get(section, {}):
            recorded.setdefault(section, {})[name] = run.config[section][name]
    # Of the other recorded settings, this version may not know all.
    theirs = recorded_config(recorded)

    def fits(key: str) -> bool:
        if key == "training.lr" and is_set(config, "training.optimizer"):
            return learning_rate and config.training.optimizer == theirs.training.optimizer
        return learning_rate or key not in ("training.lr", "training.optimizer")

    keys = tuple(key for key in INHERITED if is_set(theirs, key) and not is_set(config, key) and fits(key))
    return with_set(config, {key: _value(theirs, key) for key in keys}), keys


def spelled_out(config: Config) -> Config:
    """The same settings, of which none is left to a teacher's run."""
    return with_set(config, {key: _value(config, key) for key in INHERITED})


def with_set(config: Config, values: Mapping[str, Any]) -> Config:
    """The settings with these values by key, as if the user had set them."""
    for key, value in values.items():
        section, name = key.split(".")
        config = config.model_copy(update={section: getattr(config, section).model_copy(update={name: value})})
    return config


def describe_inherited(config: Config, keys: Sequence[str], run: str) -> str | None:
    """A line that says which settings are those of the run, and what changes them; None: nothing worth a word."""
    told = [key for key in keys if key not in RARELY_SET or _value(config, key) != _value(Config(), key)]
    values = [INHERITED[key].format(_value(config, key)) for key in told]
    values = ["1 epoch" if value == "1 epochs" else value for value in values]
    changing = ", ".join(f"`{key}`" for key in told)
    return f"{', '.join(values)} as in {run}; change with {changing}" if told else None


def _value(config: Config, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def is_set(config: Config, key: str) -> bool:
    """Whether the user, or `with_set`, chose the value of this key."""
    section, name = key.split(".")
    return name in getattr(config, section).model_fields_set
