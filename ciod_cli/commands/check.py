"""`ciod check`: what a dataset contains and which errors it has."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from ciod_cli import console
from ciod_cli.options import JSON, DatasetFiles, argument, option, with_options
from ciod_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.table import Table

    from ciod_core.data.check import DatasetHealth, SplitHealth


@with_options()
def check(
    dataset: str = argument("DATASET", "As for split: a folder, a COCO or YOLO file, 'coco' or 'voc'."),
    *,
    files: DatasetFiles,
    skip_images: bool = option("--skip-images", "Check only the annotations, not the image files.", False),
    strict: bool = option("--strict", "Exit with code 3 on warnings too.", False),
    json: bool = JSON,
) -> None:
    """Check a dataset: counts, box sizes, invalid annotations, unreadable images, leakage. Errors exit with code 3."""
    from ciod_cli.progress import progress_counter
    from ciod_core.data.annotations.findings import Severity
    from ciod_core.data.check import check_dataset

    hold_out = files.to_hold_out()
    if hold_out is not None and skip_images:
        raise ConfigError("`hold_out`: which images are alike is seen only in them; leave `skip_images` out")
    source = files.find(dataset)
    with progress_counter(f"Checking {source.name} …", "images") as progress:
        health = check_dataset(source, look_at_images=not skip_images, hold_out=hold_out, progress=progress)
    if json:
        console.show_json({**asdict(health), "errors": health.count(Severity.ERROR)})
    else:
        _show(health)
    bad = [Severity.ERROR, *([Severity.WARNING] if strict else [])]
    total = sum(health.count(severity) for severity in bad)
    if total:
        what = "errors or warnings" if strict else "errors"
        raise DataError(f"{source.name}: {total} kind{'s'[: total != 1]} of {what} found; correct what is listed above")


def _show(health: DatasetHealth) -> None:
    halves = tuple(health.splits.values())
    rows = [
        ("images", *(f"{half.images:,}" for half in halves)),
        ("image sizes", *(_sizes(half) for half in halves)),
        ("images without boxes", *(f"{half.images_without_boxes:,}" for half in halves)),
        ("boxes", *(f"{half.boxes:,}" for half in halves)),
        ("crowd or difficult", *(f"{half.crowd_boxes:,}" for half in halves)),
        *((f"{name} boxes", *(f"{half.box_areas[name]:,}" for half in halves)) for name in health.train.box_areas),
        ("box sides, px", *(_sides(half) for half in halves)),
    ]
    console.show(console.table(f"{health.name} ({health.format})", ("", *health.splits), rows))
    for name, half in health.splits.items():
        console.show(f"{f'{name}:':6} {half.annotations}")
    console.show(_class_table(health))
    if not health.all_findings:
        console.show("No problems found.")
        return
    for found in health.all_findings:
        console.show(f"{found.severity}: {found.code} ({found.count:,}): {found.message}")


def _class_table(health: DatasetHealth) -> Table:
    train, *vals = health.splits.values()
    largest = max(train.boxes_per_class.values(), default=0)
    rows = [
        (
            name,
            "█" * math.ceil(20 * count / largest) if largest else "",
            f"{count:,}",
            f"{train.images_per_class[name]:,}",
            *(f"{val.boxes_per_class.get(name, 0):,}" for val in vals),
        )
        for name, count in train.boxes_per_class.items()
    ]
    columns = ("class", "", "train boxes", "train images", *("val boxes" for _ in vals))
    return console.table("Boxes per class, without crowd boxes", columns, rows, text_columns=2)


def _sizes(half: SplitHealth) -> str:
    return " to ".join(dict.fromkeys(f"{width}x{height}" for width, height in half.image_sizes)) or "–"


def _sides(half: SplitHealth) -> str:
    return ", ".join(f"{value:g} ({share})" for share, value in half.box_sides.items()) or "–"
