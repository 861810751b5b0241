"""Options that several commands share: each is declared once, alone or in a group, with its help.

A group is a frozen dataclass whose fields are options. A command takes it as one parameter; `with_options` gives the
command the options of the group.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import typer

from ciod_cli import console
from ciod_cli.completion import run_names
from ciod_cli.settings import SETTING_OPTIONS, SETTINGS_PANEL, setting
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ciod_core.data.formats.source import DatasetSource
    from ciod_core.data.hold_out import HoldOut
    from ciod_core.experiment.entries import SplitFilesRecord
    from ciod_core.experiment.folder import Experiment, Teacher

DATASET_PANEL = "Dataset"
# What holding out images does for a while, for a progress display.
LOOKING_AT_IMAGES = "Looking for images that are alike …"


def argument(metavar: str, text: str, default: Any = ..., **rest: Any) -> Any:
    """The Typer argument of a command's parameter, required without a default; `rest` is passed on to Typer."""
    return typer.Argument(default, metavar=metavar, help=text, **rest)


def option(flag: str, text: str, default: Any = None, *, panel: str | None = None, **rest: Any) -> Any:
    """The Typer option of a command's parameter, with a flag and a help text; `rest` is passed on to Typer."""
    return typer.Option(default, flag, help=text, rich_help_panel=panel, **rest)


WEIGHTS = argument("WEIGHTS", "Weights file, or a run of the experiment.", autocompletion=run_names)
EXPERIMENT = option(
    "--experiment",
    "Experiment folder. Default: the nearest folder upwards that has an experiment.json.",
    metavar="FOLDER",
)
JSON = option("--json", "Print the result as one JSON document on stdout.", False)
OVERWRITE = option("--overwrite", "Replace existing output.", False)
RESUME = option("--resume", "Continue an interrupted run.", False)
CONFIG = option(
    "--config", "YAML file with settings, or a preset; flags override it.", panel=SETTINGS_PANEL, metavar="FILE|PRESET"
)
SET = option(
    "--set",
    "Any setting, for example training.lr=0.01; 'ciod settings' lists them. Repeatable.",
    panel=SETTINGS_PANEL,
    metavar="KEY=VALUE",
)
TRAINING_KEYS = (
    "data.image_size",
    "training.epochs",
    "training.batch_size",
    "training.lr",
    "data.workers",
    "training.device",
)


@dataclass(frozen=True)
class DatasetFiles:
    """Where the files of a dataset are, as far as its name does not say it, and what its validation half is."""

    data_root: Path | None = option(
        "--data-root",
        "Root folder of the datasets 'coco' and 'voc'. Default: $CIOD_DATA_ROOT.",
        panel=DATASET_PANEL,
        metavar="FOLDER",
    )
    val: Path | None = option(
        "--val", "COCO file: validation annotations. Default: auto-detected.", panel=DATASET_PANEL, metavar="FILE"
    )
    images: Path | None = option(
        "--images", "COCO file: training image folder. Default: auto-detected.", panel=DATASET_PANEL, metavar="FOLDER"
    )
    val_images: Path | None = option(
        "--val-images",
        "COCO file: validation image folder. Default: auto-detected.",
        panel=DATASET_PANEL,
        metavar="FOLDER",
    )
    hold_out: float | None = option(
        "--hold-out",
        "Data without validation images: make them out of this share of the training images (0.2), or of so many.",
        panel=DATASET_PANEL,
        metavar="SHARE|NUMBER",
    )
    hold_out_seed: int | None = option(
        "--hold-out-seed",
        "Seed of the choice of --hold-out. Default: 0.",
        panel=DATASET_PANEL,
        min=0,
        max=2**32 - 1,
    )

    def find(self, dataset: str) -> DatasetSource:
        """The dataset; see `resolve_dataset` for the errors."""
        from ciod_core.data.formats.source import resolve_dataset

        return resolve_dataset(
            dataset, data_root=self.data_root, val=self.val, images=self.images, val_images=self.val_images
        )

    def to_hold_out(self) -> HoldOut | None:
        """What --hold-out asks for; None without it.

        Raises:
            ConfigError: neither a share nor a number, or a seed alone.
        """
        if self.hold_out is None:
            if self.hold_out_seed is not None:
                raise ConfigError("`hold_out_seed`: nothing is held out; pass `hold_out`, too, or leave it out")
            return None
        from ciod_core.data.hold_out import HoldOut

        return HoldOut(self.hold_out, self.hold_out_seed or 0)


def with_options(
    *keys: str, texts: dict[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of its groups and of settings, which its body reads with `settings`.

    Args:
        keys: of the settings; the options --config and --set come with them.
        texts: help by key, where it differs from that of `SETTING_OPTIONS`.
    """
    of_settings = []
    for key in keys:
        name = SETTING_OPTIONS[key].flag.lstrip("-").replace("-", "_")
        of_settings.append(_parameter(name, SETTING_OPTIONS[key].kind | None, setting(key, (texts or {}).get(key))))
    if keys:
        of_settings += [_parameter("config", Path | None, CONFIG), _parameter("set_", list[str] | None, SET)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        groups: dict[str, Any] = {}
        parameters: list[inspect.Parameter] = []
        for name, parameter in own.items():
            if is_dataclass(parameter.annotation):
                groups[name] = parameter.annotation
                types = get_type_hints(parameter.annotation)
                for field in fields(parameter.annotation):
                    parameters.append(_parameter(field.name, types[field.name], field.default))
            else:
                parameters.append(_parameter(name, parameter.annotation, parameter.default))
        parameters += of_settings

        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {name: given[name] for name in own if name not in groups}
            for name, group in groups.items():
                values[name] = group(**{field.name: given[field.name] for field in fields(group)})
            command(**values)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def locate_weights(weights: str, experiment: Path | None) -> tuple[Experiment | None, Teacher]:
    """Find weights, and the experiment they belong to if there is one.

    A file stands for itself: without `--experiment` only its own folder may say more about it.

    Raises:
        ConfigError: neither a file nor a run, or a name without an experiment.
        CheckpointError: the file is not the one its run wrote.
    """
    from ciod_core.experiment.folder import MANIFEST_NAME, Experiment, Teacher
    from ciod_core.files import sha256_of_file, weights_file

    path = weights_file(Path(weights))
    if path.is_file() and experiment is None:
        if not (path.parent / MANIFEST_NAME).is_file():
            return None, Teacher(path, sha256_of_file(path), None)
        experiment = path.parent
    try:
        found = Experiment.find(experiment)
    except ConfigError:
        if experiment is None and (path.suffix or len(path.parts) > 1):
            raise ConfigError(f"{path}: there is no such file; check the path") from None
        raise
    return found, found.resolve_teacher(weights)


def note_held_out(val: SplitFilesRecord | None) -> None:
    """Say how many of the training images a dataset's validation half was made of, if it was."""
    if val is not None and val.held_out is not None:
        held = val.held_out
        console.note(f"Held out for validation: {held.images:,} of {held.of_images:,} images (seed {held.seed})")


def warn_about_data(halves: Iterable[SplitFilesRecord | None], classes: Iterable[str]) -> None:
    """Warn about boxes of a dataset's halves that were changed or dropped, and about classes that look alike."""
    from ciod_core.classes import look_alikes

    for half in halves:
        if half is not None and half.clipped_boxes:
            console.warn(f"{half.annotations.path}: {half.clipped_boxes} boxes were clipped to the image")
        if half is not None and half.dropped_boxes:
            console.warn(f"{half.annotations.path}: {half.dropped_boxes} zero-area boxes were dropped")
    for sentence in look_alikes(classes):
        console.warn(sentence)
