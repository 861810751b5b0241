"""`ciod split`: split a dataset into steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciod_cli import console
from ciod_cli.options import (
    JSON,
    LOOKING_AT_IMAGES,
    OVERWRITE,
    DatasetFiles,
    argument,
    note_held_out,
    option,
    warn_about_data,
    with_options,
)
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from ciod_core.data.hold_out import HoldOut
    from ciod_core.experiment.entries import StepRecord
    from ciod_core.experiment.folder import Experiment
    from ciod_core.experiment.manifest import ExperimentManifest

DEMO = "demo"


@with_options()
def split(
    dataset: str = argument(
        "DATASET",
        "A folder (COCO, Roboflow, YOLO or Pascal VOC), a COCO .json, a YOLO .yaml, 'coco', 'voc', or 'demo' "
        "(generated shapes).",
    ),
    *,
    plan: str = option(
        "--plan", "Classes per step: 70+10, 40+10x4, 20x4, last40+first40; or a plan.yaml that lists them.", ...
    ),
    order: str | None = option(
        "--order", "Class order: name (default), id, seed123, file, or class names with commas."
    ),
    leave_out: str | None = option(
        "--leave-out", "Classes that no step learns: names with commas, or 'rest' of the order."
    ),
    protocol: str = option(
        "--protocol",
        "Which images a step trains on: overlap, disjoint or loco.",
        "overlap",
        autocompletion=lambda: ["overlap", "disjoint", "loco"],
    ),
    seed: int | None = option(
        "--seed", "Seed of disjoint, loco and the images of the demo. Default: 0.", min=0, max=2**32 - 1
    ),
    out: Path | None = option("--out", "Experiment folder. Default: ./DATASET-PLAN.", metavar="FOLDER"),
    files: DatasetFiles,
    data: Path | None = option("--data", "demo: folder for the generated images. Default: OUT/data.", metavar="FOLDER"),
    overwrite: bool = OVERWRITE,
    json: bool = JSON,
) -> None:
    """Split a dataset into the steps of a plan and write an experiment folder."""
    from ciod_cli.progress import progress_counter
    from ciod_core.experiment.create import check_replaceable, create_experiment
    from ciod_core.experiment.plan.file import is_plan_file
    from ciod_core.experiment.plan.plan import load_plan

    hold_out = files.to_hold_out()
    _check_flags(dataset, data, protocol, seed, hold_out)
    # Before the demo images are generated, which takes a while.
    load_plan(plan, order, leave_out)
    found = None if dataset == DEMO else files.find(dataset)
    plan_name = Path(plan).stem if is_plan_file(plan) else plan
    folder = out or Path(f"{found.name if found else DEMO}-{plan_name}")
    check_replaceable(folder, overwrite)
    if found is None:
        from ciod_core.demo.shapes import generate_shapes

        images = data or folder / "data"
        console.note(f"Generating the demo images in {images} …")
        found = generate_shapes(images, seed=seed or 0)
    with progress_counter(LOOKING_AT_IMAGES, "images", at_once=False) as on_image:
        experiment = create_experiment(
            found,
            plan,
            order,
            folder,
            overwrite,
            leave_out=leave_out,
            protocol=protocol,
            seed=seed or 0,
            hold_out=hold_out,
            on_image=on_image,
        )
    manifest = experiment.read()
    assert manifest.dataset is not None and manifest.plan is not None
    classes = (*manifest.classes.names, *manifest.plan.left_out)
    note_held_out(manifest.dataset.val)
    warn_about_data((manifest.dataset.train, manifest.dataset.val), classes)
    if json:
        console.show_json(_document(experiment, manifest))
        return
    _show_tables(manifest)
    console.note(f"Experiment written to {folder}. Next: ciod train-step --experiment {folder}")


def _check_flags(dataset: str, data: Path | None, protocol: str, seed: int | None, hold_out: HoldOut | None) -> None:
    from ciod_core.data.annotations.protocols import SEEDED, parse_protocol

    if dataset == DEMO and hold_out is not None:
        raise ConfigError(f"`hold_out`: the dataset '{DEMO}' has a validation half; leave it out")
    if dataset != DEMO and data is not None:
        raise ConfigError(f"`data` belongs to the dataset '{DEMO}', not to '{dataset}'; leave it out")
    if parse_protocol(protocol) not in SEEDED and dataset != DEMO and seed is not None:
        raise ConfigError(
            f"`seed`: nothing is random in the protocol '{protocol}'; leave it out, or choose `protocol` "
            f"{' or '.join(SEEDED)}"
        )


def _document(experiment: Experiment, manifest: ExperimentManifest) -> dict[str, Any]:
    assert manifest.dataset is not None and manifest.plan is not None
    held_out = manifest.dataset.val.held_out
    steps = [
        {
            "step": step.step,
            "classes": list(step.classes),
            "train": str(manifest.train_file(step.step).locate(experiment.folder)),
            "val": str(manifest.val_file(step.step).locate(experiment.folder)),
            **step.statistics.model_dump(mode="json"),
        }
        for step in manifest.steps
    ]
    return {
        "experiment": str(experiment.folder),
        "dataset": manifest.dataset.name,
        "format": manifest.dataset.format,
        "plan": manifest.plan.model_dump(mode="json"),
        "held_out": held_out.model_dump(mode="json") if held_out else None,
        "steps": steps,
    }


def _show_tables(manifest: ExperimentManifest) -> None:
    assert manifest.dataset is not None and manifest.plan is not None
    columns = ["step", "classes", "images", "boxes", "hidden old boxes", "hidden future boxes", "shared images"]
    rows = [_step_row(step) for step in manifest.steps]
    if manifest.plan.left_out:
        columns.insert(-1, "hidden left-out boxes")
        for row, step in zip(rows, manifest.steps, strict=True):
            row.insert(-1, f"{step.statistics.hidden_left_out_boxes:,}")
    console.show(console.table(f"{manifest.dataset.name}, {manifest.plan.summary}: training images", columns, rows))
    if manifest.plan.left_out:
        console.show(f"Left out: {', '.join(manifest.plan.left_out)}")
    if manifest.plan.unused_images:
        console.show(f"Images that no step trains on: {manifest.plan.unused_images:,}")
    boxes = [
        (name, str(step.step), f"{step.statistics.boxes_per_class.get(name, 0):,}")
        for step in manifest.steps
        for name in step.classes
    ]
    console.show(console.table("Boxes per class", ("class", "step", "boxes"), boxes))


def _step_row(step: StepRecord) -> list[str]:
    statistics = step.statistics
    shared = ", ".join(f"{count:,} (step {other})" for other, count in statistics.shared_images.items() if count)
    return [
        str(step.step),
        str(len(step.classes)),
        f"{statistics.images:,}",
        f"{sum(statistics.boxes_per_class.values()):,}",
        f"{statistics.hidden_old_boxes:,}",
        f"{statistics.hidden_future_boxes:,}",
        shared or "–",
    ]
