"""`ciod reproduce`: a row of a published table in one command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ciod_cli import console
from ciod_cli.estimates import ESTIMATE_COLUMNS, estimate_cells
from ciod_cli.options import JSON, TRAINING_KEYS, argument, option, with_options
from ciod_cli.settings import settings
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ciod_core.config.schema import Config
    from ciod_core.data.formats.source import DatasetSource
    from ciod_core.runs.compare.plan import SuiteRun
    from ciod_core.runs.compare.published import Figure, PublishedRow

    # Settings that differ from a recipe: key → the recipe's value and the one given.
    Changes = Mapping[str, tuple[object, object]]


@with_options(*TRAINING_KEYS)
def reproduce(
    row: str | None = argument("ROW", "The result, for example ilyolox-70+10; --list shows all.", None),
    *,
    list_: bool = option("--list", "List the published results and exit.", False),
    dataset: str = option("--dataset", "'coco', or another dataset with its classes.", "coco", metavar="DATASET"),
    data_root: Path | None = option(
        "--data-root", "Root folder of the dataset 'coco'. Default: $CIOD_DATA_ROOT.", metavar="FOLDER"
    ),
    out: Path | None = option("--out", "Experiment folder. Default: ./ROW.", metavar="FOLDER"),
    seeds: int = option("--seeds", "Number of seeds to train with.", 1, min=1),
    upper_bounds: bool = option("--upper-bounds/--no-upper-bounds", "Also train the joint runs.", True),
    dry_run: bool = option("--dry-run", "Only print the commands that it stands for, and what they would take.", False),
    json: bool = JSON,
) -> None:
    """Train as a published result on COCO was trained, and print what that gives beside what was published."""
    from ciod_cli.comparison import train_missing
    from ciod_core.config.catalog import preset_file
    from ciod_core.data.formats.source import resolve_dataset
    from ciod_core.runs.compare.plan import Epochs
    from ciod_core.runs.compare.published import changed_settings, compare_with, doubts, find_row, split_for

    if list_:
        _show_list(json)
        return
    if row is None:
        raise ConfigError("`row`: name a published result; `list` shows them")
    published = find_row(row)
    config = settings({"method.name": ("ROW", published.method)}, preset=preset_file(published.preset))
    changed = changed_settings(published, config)
    source = resolve_dataset(dataset, data_root=data_root)
    runs = published.runs(range(seeds), upper_bounds=upper_bounds)
    folder = out or Path(published.name)
    if dry_run:
        split = ["split", dataset, *(["--data-root", str(data_root)] if data_root else [])]
        _show_plan(published, source, runs, config, _commands(published, split, folder, runs, changed), json)
        return
    experiment = split_for(published, source, folder)
    epochs = config.training.epochs
    figures = compare_with(published, train_missing(experiment, runs, config, Epochs(epochs, epochs, epochs)))
    warnings = doubts(published, experiment, config)
    if json:
        measured = [{**figure.model_dump(mode="json"), "difference": figure.difference} for figure in figures]
        document = {"row": published.name, "experiment": str(folder), "figures": measured, "warnings": warnings}
        console.show_json(document)
        return
    seeds_in_words = f"mean of {seeds} seeds" if seeds > 1 else "one seed"
    title = f"{published.name}, in percent, {seeds_in_words}"
    cells = [_cells(figure) for figure in figures]
    console.show(console.table(title, ("figure", "published", "measured", "difference"), cells))
    for warning in warnings:
        console.warn(warning)


def _show_list(json: bool) -> None:
    from ciod_core.runs.compare.published import published_rows

    rows = published_rows().values()
    if json:
        console.show_json({"rows": [row.to_document() for row in rows]})
        return
    cells = [
        (
            row.name,
            row.recipe().model.name,
            f"{row.method}, --config {row.preset}",
            console.percent(row.ap[row.last_step]),
            console.percent(row.upper_bound),
            console.percent(row.omega),
        )
        for row in rows
    ]
    title = "Published results on COCO 2017, in percent"
    columns = ("row", "detector", "method", "AP", "upper bound", "Ω")
    console.show(console.table(title, columns, cells, text_columns=3))


def _show_plan(
    row: PublishedRow,
    source: DatasetSource,
    runs: Sequence[SuiteRun],
    config: Config,
    commands: Sequence[str],
    json: bool,
) -> None:
    from tempfile import TemporaryDirectory

    from ciod_cli.progress import status_line
    from ciod_core.runs.compare.published import estimate_row, split_for

    with TemporaryDirectory() as folder, status_line("Measuring the first iterations of every run …"):
        estimates = list(estimate_row(split_for(row, source, Path(folder) / "experiment"), runs, config))
    if json:
        found = [{**each._asdict(), "seconds": each.seconds} for each in estimates]
        console.show_json({"commands": list(commands), "runs": found})
        return
    for command in commands:
        console.show(command)
    console.show(console.table(row.name, ESTIMATE_COLUMNS, [estimate_cells(each) for each in estimates]))
    total = sum(each.seconds for each in estimates)
    console.note(f"All runs together: about {console.duration(total)} of training")


def _commands(
    row: PublishedRow, split: Sequence[str], folder: Path, runs: Sequence[SuiteRun], changed: Changes
) -> list[str]:
    """The commands that the row stands for."""
    import yaml

    def train(run: SuiteRun, *options: str) -> list[str]:
        seed = ["--seed", str(run.seed)] if run.seed else []
        return ["train-step", "--experiment", str(folder), *recipe, *options, "--name", run.name, *seed]

    recipe = ["--config", row.preset]
    for key, (_, now) in changed.items():
        recipe += ["--set", f"{key}={yaml.safe_dump(now, default_flow_style=True).splitlines()[0]}"]
    commands = [[*split, "--plan", row.plan, "--order", row.order, "--out", str(folder)]]
    for run in runs:
        if run.teacher is not None:
            commands.append(train(run, "--method", row.method, "--teacher", run.teacher))
        elif run.step > 1:
            commands.append(train(run, "--method", "joint", "--step", str(run.step)))
        else:
            commands.append(train(run))
    last = next(run for run in reversed(runs) if run.teacher is not None)
    commands.append(["evaluate", last.name, "--experiment", str(folder), "--per-class-group"])
    return [shlex.join(["ciod", *command]) for command in commands]


def _cells(figure: Figure) -> tuple[str, ...]:
    # AP was published with two decimals.
    published, measured, sd, difference = (
        console.percent(value, digits=2) for value in (figure.published, figure.measured, figure.sd, figure.difference)
    )
    return (figure.name, published, measured if figure.sd is None else f"{measured} ±{sd}", difference)
