"""`ciod train-step`: train the next step of an experiment, planned or added with data of its own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ciod_cli import console
from ciod_cli.completion import run_names
from ciod_cli.estimates import ESTIMATE_COLUMNS, estimate_cells
from ciod_cli.options import (
    DATASET_PANEL,
    EXPERIMENT,
    JSON,
    LOOKING_AT_IMAGES,
    OVERWRITE,
    RESUME,
    TRAINING_KEYS,
    DatasetFiles,
    note_held_out,
    option,
    warn_about_data,
    with_options,
)
from ciod_cli.settings import SETTING_OPTIONS, settings
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ciod_core.config.schema import Config
    from ciod_core.data.formats.source import DatasetSource
    from ciod_core.data.hold_out import HoldOut
    from ciod_core.evaluation.chain import Outcome
    from ciod_core.experiment.add_step import AddedStep
    from ciod_core.experiment.entries import RunRecord, StepRecord
    from ciod_core.experiment.folder import Experiment


@with_options(
    "method.name",
    "replay.images",
    "model.name",
    "model.backbone_weights",
    "model.init",
    *TRAINING_KEYS,
    "data.unlabeled",
    "training.evaluate_every",
    "training.seed",
    "training.precision",
    "training.log",
    "evaluation.negatives",
    texts={
        key: f"{SETTING_OPTIONS[key].text[:-1]}; with a teacher, as in its run."
        for key in ("data.image_size", "training.epochs", "training.batch_size", "training.lr")
    },
)
def train_step(
    *,
    experiment: Path | None = EXPERIMENT,
    teacher: Path | None = option(
        "--teacher",
        "Weights (or run) of the previous step. Omit to train step 1.",
        metavar="FILE",
        autocompletion=run_names,
    ),
    data: list[str] | None = option(
        "--data",
        "Add a step with the classes of this dataset (as for split); begins an experiment if there is none. "
        "joint: repeatable, trains on all of them.",
        panel=DATASET_PANEL,
        metavar="DATASET",
    ),
    files: DatasetFiles,
    knowledge: str = option(
        "--knowledge",
        "Bank written by 'ciod distill'; 'none' runs the live teacher. Default: the step's bank, if it fits.",
        "auto",
        metavar="BANK",
        show_default=False,
    ),
    step: int | None = option("--step", "joint: train on steps 1..N. Default: the last step.", min=1),
    name: str | None = option("--name", "Name of the run. Default: step2, step2-erd-replay, joint2, …"),
    resume: bool = RESUME,
    overwrite: bool = OVERWRITE,
    dry_run: bool = option("--dry-run", "Only measure the first iterations: time and memory; writes nothing.", False),
    json: bool = JSON,
) -> None:
    """Train the next step: step 1 without a teacher, a later step with the teacher of the step before."""
    from ciod_core.experiment.folder import Experiment, run_name

    config = settings()

    def run_of(added_step: int) -> str:
        return name or run_name(added_step, config.method.name, replay=config.replay.on)

    hold_out = files.to_hold_out()
    _check_data(data, files, config, step, name)
    sources = [files.find(dataset) for dataset in data or ()]
    all_have_val = all(source.val is not None for source in sources)
    with ExitStack() as undone_on_failure:
        if not data:
            found = Experiment.find(experiment, teacher)
        for finished, source in enumerate(sources):
            overwrites = run_of if overwrite else None
            # Where several datasets are given, it is for those without a validation half.
            wanted = hold_out if source.val is None or all_have_val else None
            added = undone_on_failure.enter_context(
                _add_step(source, experiment, teacher, finished, overwrites, wanted)
            )
            found, experiment = added.experiment, added.experiment.folder
        if data and config.method.name == "joint":
            step = len(data)

        if dry_run:
            _show_estimate(found, config, teacher, step, name, knowledge, json)
            # Left by an exception, the context takes an added step back.
            raise typer.Exit

        from ciod_cli.progress import TrainingDisplay
        from ciod_core.runs import train

        with TrainingDisplay() as display:
            run = train.train_step(
                found,
                config,
                teacher=teacher,
                run=name,
                step=step,
                resume=resume,
                overwrite=overwrite,
                knowledge=knowledge,
                listener=display,
            )
        from ciod_core.evaluation.chain import outcome_of

        outcome = outcome_of(found, run)
    _show_outcome(found, run, outcome, json)


def _show_outcome(experiment: Experiment, run: RunRecord, outcome: Outcome | None, json: bool) -> None:
    weights = experiment.weights_path(run.name)
    if json:
        document = {"experiment": str(experiment.folder), "weights": str(weights), **run.model_dump(mode="json")}
        console.show_json({**document, "outcome": outcome.model_dump(mode="json") if outcome else None})
        return
    took = "" if run.seconds is None else f" in {console.duration(run.seconds)}"
    following = f"Next: ciod evaluate {run.name} --experiment {experiment.folder}"
    if not run.metrics:
        following = "Not evaluated: there is no validation data (`val`, `hold_out`)"
    console.note(f"Trained {run.name}{took}{f': {_describe(outcome)}' if outcome else ''}. {following}")
    console.show(str(weights))


def _show_estimate(
    experiment: Experiment,
    config: Config,
    teacher: Path | None,
    step: int | None,
    name: str | None,
    knowledge: str,
    json: bool,
) -> None:
    from ciod_core.runs.estimate import estimate_run

    found = estimate_run(experiment, config, teacher=teacher, step=step, run=name, knowledge=knowledge)
    if json:
        console.show_json({**found._asdict(), "seconds": found.seconds, "images_per_second": found.images_per_second})
        return
    for text in found.notes:
        console.note(text)
    console.show(console.table(f"{found.run}, method {found.method}", ESTIMATE_COLUMNS, [estimate_cells(found)]))


def _describe(outcome: Outcome) -> str:
    """AP of all, old and new classes, and that of the old ones before."""
    parts = [f"AP {console.percent(outcome.ap)}"]
    if outcome.old is not None:
        before = "" if outcome.old_before is None else f" ({console.percent(outcome.old_before)} before)"
        parts.append(f"old classes {console.percent(outcome.old)}{before}")
    if outcome.old is not None and outcome.new is not None:
        parts.append(f"new classes {console.percent(outcome.new)}")
    return "; ".join(parts)


def _add_step(
    source: DatasetSource,
    experiment: Path | None,
    teacher: Path | None,
    finished: int,
    overwrites: Callable[[int], str] | None,
    hold_out: HoldOut | None,
) -> AddedStep:
    from ciod_cli.progress import progress_counter
    from ciod_core.experiment.add_step import add_step

    with progress_counter(LOOKING_AT_IMAGES, "images", at_once=False) as on_image:
        added = add_step(
            source,
            experiment=experiment,
            teacher=teacher,
            finished=finished,
            overwrites=overwrites,
            hold_out=hold_out,
            on_image=on_image,
        )
    _report_added_step(added.experiment, added.experiment.read().step(added.number))
    return added


def _check_data(
    data: list[str] | None, files: DatasetFiles, config: Config, step: int | None, name: str | None
) -> None:
    """Refuse options that contradict `--data`, or its absence, before anything is read."""
    from ciod_core.experiment.folder import check_run_name

    if not data:
        for file, path in vars(files).items():
            if path is not None:
                raise ConfigError(f"`{file}`: it belongs to the dataset of `data`; pass both or neither")
        return
    if len(data) > 1 and config.method.name != "joint":
        raise ConfigError("`data`: a step has one dataset; pass one, or train on all of them with method 'joint'")
    if len(data) > 1 and any(path is not None for path in (files.val, files.images, files.val_images)):
        raise ConfigError("`data`: the paths of its files belong to one dataset; pass folders that need none")
    if step is not None:
        raise ConfigError("`data`: it determines which step is trained; leave `step` out")
    if name is not None:
        check_run_name(name)


def _report_added_step(experiment: Experiment, step: StepRecord) -> None:
    """Print which classes the step has, and what may be amiss with its data."""
    assert step.data is not None
    more = f", more of {', '.join(step.extended_classes)}" if step.extended_classes else ""
    classes = ", ".join(step.classes) or "no new class"
    place = f"Step {step.step} of {experiment.folder.resolve()}"
    console.note(f"{place}: {classes}{more} ({step.statistics.images:,} images)")
    note_held_out(step.data.val)
    warn_about_data((step.data.train, step.data.val), (*step.classes, *step.extended_classes, *step.data.left_out))
    if step.data.left_out:
        console.warn(f"no training image shows {', '.join(step.data.left_out)}; skipped")
    unmeasured = [name for name in step.classes if name not in step.data.val_classes]
    if unmeasured:
        remedy = "" if step.data.val else "; pass `val`, or `hold_out` to hold out some of the training images"
        console.warn(f"no validation image shows {', '.join(unmeasured)}; their AP is not measured{remedy}")
