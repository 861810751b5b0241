"""`ciod evaluate`: how good a run is, by class group, and how far from the upper bound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ciod_cli import console
from ciod_cli.options import (
    ConfigOption,
    DeviceOption,
    ExperimentOption,
    JsonOption,
    SetOption,
    WorkersOption,
)
from ciod_cli.settings import setting, settings

if TYPE_CHECKING:
    from ciod_core.evaluation.evaluate_run import RunEvaluation


def evaluate(
    ctx: typer.Context,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Run or weights file. Default: the only leaf run.")
    ] = None,
    experiment: ExperimentOption = None,
    per_class_group: Annotated[
        bool, typer.Option("--per-class-group", help="Also show old classes, new classes, and those of each step.")
    ] = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also show per-class AP.")] = False,
    upper_bound: Annotated[
        str | None,
        typer.Option(
            "--upper-bound",
            metavar="RUN|AP",
            help="A joint run, or its AP in percent. Default: joint1, joint2, … as far as they are trained.",
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            help="hotcoco (fast) or pycocotools (reference).",
            autocompletion=lambda: ["hotcoco", "pycocotools"],
        ),
    ] = "hotcoco",
    batch_size: Annotated[int | None, setting("evaluation.batch_size", "--batch-size", "Images at a time.")] = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Evaluate a run on the validation images of its classes and record the result in the experiment."""
    resolved = settings(ctx)

    from ciod_cli.progress import progress_counter
    from ciod_core.evaluation.evaluate_run import evaluate_run, evaluation_target
    from ciod_core.experiment.folder import Experiment

    found = Experiment.find(experiment, Path(run) if run else None)
    target = evaluation_target(found, run)
    with progress_counter(f"Evaluating {target.path.name}", "images", at_once=False) as on_batch:
        result = evaluate_run(found, target, resolved, upper_bound=upper_bound, backend=backend, on_batch=on_batch)
    if target.run is None:
        console.warn(f"{target.path} was not trained in {found.folder}; its result is shown but not recorded")
    if json:
        console.show_json({"experiment": str(found.folder), **result.to_dict()})
    else:
        _show(result, per_class_group=per_class_group, per_class=per_class)


def _show(result: RunEvaluation, *, per_class_group: bool, per_class: bool) -> None:
    from ciod_cli import evaluation_tables as tables

    report = result.report
    console.show(tables.groups_table(report, every_group=per_class_group))
    if per_class:
        console.show(tables.classes_table(report))
    for line in tables.comparison_table(report, result.chain, result.published):
        console.show(line)
    without = report.groups["all"].classes_without_objects
    if without:
        console.warn(f"no validation image shows {', '.join(without)}; these classes do not count in any mean")
    if report.labels_differ and per_class_group:
        console.note("step1, step2, …: each class on the validation images of the first step that labels it")
