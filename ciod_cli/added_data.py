"""`ciod train-step --data`: the dataset that a step is added with, as the user typed it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ciod_cli import console
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from ciod_core.config.schema import Config
    from ciod_core.experiment.folder import Experiment
    from ciod_core.experiment.manifest import StepRecord


@dataclass(frozen=True)
class AddedData:
    """What `--data` and the options beside it say; `dataset` is None where no step is to be added."""

    dataset: str | None
    images: Path | None
    val: Path | None
    val_images: Path | None
    data_root: Path | None

    def check(self, config: Config, step: int | None, name: str | None) -> None:
        """Refuse what cannot be meant, before anything is read.

        Raises:
            ConfigError: options of a dataset without one, joint training, or a run that cannot be called so.
        """
        from ciod_core.experiment.folder import check_run_name

        if self.dataset is None:
            for option in ("images", "val", "val_images", "data_root"):
                if getattr(self, option) is not None:
                    raise ConfigError(f"`{option}`: it belongs to the dataset of `data`; pass both or neither")
            return
        if config.method.name == "joint":
            raise ConfigError("`data`: joint training uses the data of the existing steps; leave `data` out")
        if step is not None:
            raise ConfigError("`data`: the teacher determines which step is added; leave `step` out")
        if name is not None:
            check_run_name(name)

    @contextmanager
    def experiment(
        self, folder: Path | None, teacher: Path | None, config: Config, name: str | None, *, overwrite: bool
    ) -> Iterator[Experiment]:
        """The experiment that is meant, with the step added where there is a dataset; see `added_step` for errors."""
        from ciod_core.experiment.folder import Experiment, run_name

        if self.dataset is None:
            yield Experiment.find(folder, teacher)
            return

        from ciod_core.data.formats.source import resolve_dataset
        from ciod_core.experiment.add_step import add_step

        def run_to_be(step: int) -> str:
            return name or run_name(step, config.method.name, replay=config.replay.on)

        source = resolve_dataset(
            self.dataset,
            data_root=self.data_root,
            val=self.val,
            images=self.images,
            val_images=self.val_images,
            val_optional=True,
        )
        with add_step(source, experiment=folder, teacher=teacher, overwrites=run_to_be if overwrite else None) as added:
            _tell(added.experiment, added.experiment.read().step(added.number))
            yield added.experiment


def _tell(experiment: Experiment, step: StepRecord) -> None:
    """Say which classes the step has, and what may be amiss with its data."""
    assert step.data is not None
    more = f", more of {', '.join(step.extended_classes)}" if step.extended_classes else ""
    classes = ", ".join(step.classes) or "no new class"
    place = f"Step {step.step} of {experiment.folder.resolve()}"
    console.note(f"{place}: {classes}{more} ({step.statistics.images:,} images)")
    for half in (step.data.train, step.data.val):
        if half is not None and half.clipped_boxes:
            console.warn(f"{half.annotations.path}: {half.clipped_boxes} boxes were clipped to the image")
        if half is not None and half.dropped_boxes:
            console.warn(f"{half.annotations.path}: {half.dropped_boxes} zero-area boxes were dropped")
    if step.data.left_out:
        console.warn(f"no training image shows {', '.join(step.data.left_out)}; skipped")
    unmeasured = [name for name in step.classes if name not in step.data.val_classes]
    if unmeasured:
        console.warn(f"no validation image shows {', '.join(unmeasured)}; their AP is not measured")
