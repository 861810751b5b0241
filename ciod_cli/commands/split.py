"""`ciod split`: cut a dataset into steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ciod_cli import console
from ciod_cli.options import JsonOption, OverwriteOption
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from ciod_core.data.source import DatasetSource
    from ciod_core.experiment import Experiment
    from ciod_core.manifest import ExperimentManifest

DEMO = "demo"


def split(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="A folder in COCO layout, 'coco', or 'demo' (generated shapes).")
    ],
    plan: Annotated[str, typer.Option("--plan", help="Classes per step: 70+10, 40+10x4, 20x4, last40+first40.")],
    order: Annotated[
        str, typer.Option("--order", help="Class order: name, id, seed123, file, or class names with commas.")
    ] = "name",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Experiment folder. Default: ./DATASET-PLAN.")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", metavar="FOLDER", help="Where 'coco' lies. Default: $CIOD_DATA_ROOT."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FOLDER", help="demo: where to generate. Default: OUT/data.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="demo: seed of the images. Default: 0.")] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Cut a dataset into the steps of a plan and write an experiment folder."""
    from ciod_core.experiment_files import check_replaceable, create_experiment
    from ciod_core.plan import parse_plan

    if dataset != DEMO and (data is not None or seed is not None):
        raise ConfigError(f"--data and --seed belong to the dataset '{DEMO}', not to '{dataset}'; leave them out")
    parse_plan(plan)
    folder = out or Path(f"{Path(dataset).expanduser().resolve().name}-{plan}")
    check_replaceable(folder, overwrite)
    source = _generate(data or folder / "data", seed or 0) if dataset == DEMO else _resolve(dataset, data_root)
    experiment = create_experiment(source, plan, order, folder, overwrite)
    manifest = experiment.manifest
    _warn_about_boxes(manifest)
    if json:
        console.show_json(_document(experiment, manifest))
        return
    _show_tables(manifest)
    console.note(f"Experiment written to {folder}. Next: ciod train-step --experiment {folder}")


def _generate(folder: Path, seed: int) -> DatasetSource:
    from ciod_core.data.shapes import generate_shapes

    console.note(f"Generating the demo images in {folder} …")
    return generate_shapes(folder, seed=seed)


def _resolve(dataset: str, data_root: Path | None) -> DatasetSource:
    from ciod_core.data.source import resolve_dataset

    return resolve_dataset(dataset, data_root=data_root)


def _warn_about_boxes(manifest: ExperimentManifest) -> None:
    for half in (manifest.dataset.train, manifest.dataset.val):
        if half.clipped_boxes:
            console.warn(f"{half.annotations.path}: {half.clipped_boxes} boxes stuck out of their image and were cut")
        if half.dropped_boxes:
            console.warn(f"{half.annotations.path}: {half.dropped_boxes} boxes without extent were left out")


def _document(experiment: Experiment, manifest: ExperimentManifest) -> dict[str, Any]:
    steps = [
        {
            "step": step.step,
            "classes": list(step.classes),
            "train": str(experiment.folder / step.train.path),
            "val": str(experiment.folder / step.val.path),
            **step.statistics.model_dump(mode="json"),
        }
        for step in manifest.steps
    ]
    return {
        "experiment": str(experiment.folder),
        "dataset": manifest.dataset.name,
        "plan": manifest.plan.model_dump(mode="json"),
        "steps": steps,
    }


def _show_tables(manifest: ExperimentManifest) -> None:
    rows = []
    for step in manifest.steps:
        statistics = step.statistics
        shared = ", ".join(f"{count} (step {other})" for other, count in statistics.shared_images.items())
        rows.append(
            (
                str(step.step),
                str(len(step.classes)),
                f"{statistics.images:,}",
                f"{sum(statistics.boxes_per_class.values()):,}",
                f"{statistics.hidden_old_boxes:,}",
                f"{statistics.hidden_future_boxes:,}",
                shared or "–",
            )
        )
    columns = ("step", "classes", "images", "boxes", "hidden old boxes", "hidden future boxes", "shared images")
    title = f"{manifest.dataset.name}, plan {manifest.plan.text}, order {manifest.plan.order}: training images"
    console.show(console.table(title, columns, rows))
    boxes = [
        (name, str(step.step), f"{step.statistics.boxes_per_class.get(name, 0):,}")
        for step in manifest.steps
        for name in step.classes
    ]
    console.show(console.table("Boxes per class", ("class", "step", "boxes"), boxes))
