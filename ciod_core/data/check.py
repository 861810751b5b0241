"""The health of a dataset: its counts, its faults and remarks that matter before training.

Legend: I images, N boxes of all images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ciod_core.classes import quoted
from ciod_core.data.annotations.findings import Finding, Findings, Severity
from ciod_core.data.annotations.inspection import inspect
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.source import DatasetSource, parse_dataset
from ciod_core.data.hold_out import HoldOut, cut, held_out_images
from ciod_core.data.images.scan import ScannedImage, image_findings, leakage, scan_images

# Upper limits of COCO's area ranges, in square pixels of the original image.
SMALL_AREA, MEDIUM_AREA = 32**2, 96**2
SIDE_PERCENTILES = (0, 5, 50, 95, 100)


@dataclass(frozen=True)
class SplitHealth:
    """One split of a dataset, as far as its annotations are sound.

    Attributes:
        annotations: the file that lists it.
        images: number of images.
        image_sizes: smallest and largest (width, height), by area, in pixels.
        boxes: number of boxes, crowd boxes included.
        crowd_boxes: boxes that cover a crowd, or difficult objects.
        images_without_boxes: images without any box.
        boxes_per_class: boxes of every class, crowd boxes apart.
        images_per_class: images with at least one such box.
        box_areas: boxes below 32², up to 96² and above 96² square pixels (COCO's small, medium, large).
        box_sides: percentiles of √(width · height) in pixels; empty without boxes.
        findings: what is wrong or worth knowing.
    """

    annotations: str
    images: int
    image_sizes: tuple[tuple[int, int], ...]
    boxes: int
    crowd_boxes: int
    images_without_boxes: int
    boxes_per_class: dict[str, int]
    images_per_class: dict[str, int]
    box_areas: dict[str, int]
    box_sides: dict[str, float]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class DatasetHealth:
    """The training split, the validation split where there is one, and the findings on the dataset as a whole."""

    name: str
    format: str
    train: SplitHealth
    val: SplitHealth | None
    findings: tuple[Finding, ...] = field(default=())

    @property
    def splits(self) -> dict[str, SplitHealth]:
        """The splits that there are, by name."""
        return {"train": self.train} if self.val is None else {"train": self.train, "val": self.val}

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """Everything found, errors first."""
        found = (*(finding for split in self.splits.values() for finding in split.findings), *self.findings)
        return tuple(sorted(found, key=lambda finding: list(Severity).index(finding.severity)))

    def count(self, severity: Severity) -> int:
        """Number of kinds of faults of this severity."""
        return sum(finding.severity is severity for finding in self.all_findings)


def check_dataset(
    source: DatasetSource,
    *,
    look_at_images: bool = True,
    hold_out: HoldOut | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> DatasetHealth:
    """Survey a dataset.

    Args:
        source: the dataset.
        look_at_images: decode and hash every image.
        hold_out: show the dataset with a validation split made out of its training images, of which it looks at all.
        progress: called with the number of further images that are done.

    Raises:
        ConfigError: images are to be held out of a dataset that has a validation split, or too many of them.
        DataError: the annotations cannot be read at all.
    """
    if hold_out is not None:
        hold_out.check_use(source)
    splits: list[SplitHealth] = []
    scans: list[list[ScannedImage]] = []
    raws = parse_dataset(source)
    all_read = True
    for raw, split in zip(raws, source.splits, strict=True):
        table, found = inspect(raw)
        # YOLO labels are relative to an image of any size.
        stated = source.format != "yolo"
        scanned = scan_images(table, split.image_dir, sizes_stated=stated, progress=progress) if look_at_images else []
        halves = (table,) if hold_out is None else cut(table, held_out_images(table, scanned, hold_out))
        # Those of a file whose images are divided are shown with the first half.
        own = (*found, *image_findings(scanned))
        splits += [survey(raw, half, own if half is halves[0] else ()) for half in halves]
        scans.append(scanned)
        all_read &= not any(finding.severity is Severity.ERROR for finding in found)
    train, *vals = splits
    # A class without boxes may be one whose boxes could not be read.
    untrained = [name for name, count in train.boxes_per_class.items() if count == 0] if all_read else []
    findings = (*_class_findings(raws, untrained), *(leakage(*scans) if len(scans) > 1 else ()))
    return DatasetHealth(source.name, source.format, train, next(iter(vals), None), findings)


def survey(raw: RawAnnotations, table: AnnotationTable, findings: tuple[Finding, ...]) -> SplitHealth:
    """One split: its counts, and its findings together with remarks on what no reader refuses.

    Args:
        raw: the annotations as they are.
        table: their sound part.
        findings: those of the reader, the inspection and the images.
    """
    objects_N = ~table.crowd_N
    extents_N2 = (table.boxes_N4[:, 2:] - table.boxes_N4[:, :2])[objects_N].astype(np.float64)
    sides_N = np.sqrt(extents_N2.prod(axis=1))
    areas_N = table.areas_N[objects_N]
    names = {category.id: category.name for category in table.categories}
    ids_N, image_N = table.category_ids_N[objects_N], table.image_of_box_N[objects_N]
    boxes_of = Counter(ids_N.tolist())
    images_of = Counter(np.unique(np.stack([ids_N, image_N]), axis=1)[0].tolist())
    by_area = np.argsort(table.widths_I.astype(np.int64) * table.heights_I, kind="stable")
    return SplitHealth(
        annotations=str(raw.path),
        images=table.num_images,
        image_sizes=tuple((int(table.widths_I[i]), int(table.heights_I[i])) for i in by_area[[0, -1][: len(by_area)]]),
        boxes=table.num_boxes,
        crowd_boxes=int(table.crowd_N.sum()),
        images_without_boxes=int(np.count_nonzero(np.diff(table.offsets) == 0)),
        boxes_per_class={name: boxes_of[identifier] for identifier, name in names.items()},
        images_per_class={name: images_of[identifier] for identifier, name in names.items()},
        box_areas={
            "small": int((areas_N < SMALL_AREA).sum()),
            "medium": int(((areas_N >= SMALL_AREA) & (areas_N <= MEDIUM_AREA)).sum()),
            "large": int((areas_N > MEDIUM_AREA).sum()),
        },
        box_sides={f"{share}%": round(float(np.percentile(sides_N, share)), 1) for share in SIDE_PERCENTILES}
        if len(sides_N)
        else {},
        findings=(*findings, *_remarks(raw, table)),
    )


def _remarks(raw: RawAnnotations, table: AnnotationTable) -> Findings:
    """Findings on what no reader refuses but the user should know."""
    found = Findings()
    names, repeats = np.unique(table.file_names_I, return_counts=True)
    if (repeats > 1).any():
        name = str(names[np.argmax(repeats > 1)])
        message = f"{raw.path}: file_name '{name}' is listed more than once; list every image once"
        found.add("file-name-repeated", message, int((repeats[repeats > 1] - 1).sum()), Severity.WARNING)
    duplicates_N = _duplicate_boxes(table)
    if duplicates_N.any():
        row = int(np.flatnonzero(duplicates_N)[0])
        image = str(table.file_names_I[table.image_of_box_N[row]])
        box = ", ".join(f"{value:g}" for value in table.boxes_N4[row])
        message = (
            f"{raw.path}: annotation {int(table.annotation_ids_N[row])} repeats class and box ({box}) of another one "
            f"on '{image}'; remove one of them"
        )
        found.add("box-repeated", message, int(duplicates_N.sum()), Severity.WARNING)
    empty = int(np.count_nonzero(np.diff(table.offsets) == 0))
    if empty:
        message = (
            f"{raw.path}: has images without any box: no step trains on them, in evaluation they count false alarms"
        )
        found.add("image-without-box", message, empty, Severity.NOTE)
    return found


def _duplicate_boxes(table: AnnotationTable) -> np.ndarray:
    """A mask over boxes: True where an earlier one has the same image, class and coordinates."""
    keys = np.column_stack([table.image_of_box_N, table.category_ids_N, table.boxes_N4.astype(np.float64)])
    order = np.lexsort(keys.T)
    same = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    duplicates_N = np.zeros(len(keys), dtype=np.bool_)
    duplicates_N[order[1:][same]] = True
    return duplicates_N


def _class_findings(raws: Sequence[RawAnnotations], untrained: Sequence[str]) -> Findings:
    found = Findings()
    train = raws[0]
    for val in raws[1:]:
        differing = sorted(set(train.categories) ^ set(val.categories))
        if differing and train.categories and val.categories:
            message = (
                f"{val.path}: class {quoted(differing[0].name)} with id {differing[0].id} is not in both splits; "
                "training and validation files must list the same ids and names"
            )
            found.add("classes-differ", message, len(differing))
    if untrained:
        message = f"{train.path}: class '{untrained[0]}' has no training box; add boxes or name it in `leave_out`"
        found.add("class-without-box", message, len(untrained))
    ids = sorted(category.id for category in train.categories)
    missing = sorted(set(range(ids[0], ids[-1] + 1)) - set(ids)) if ids and ids[-1] - ids[0] < 10**6 else []
    if missing:
        gaps = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        message = f"{train.path}: category ids leave gaps ({gaps}); ciod keeps them in every file it writes"
        found.add("category-id-gaps", message, len(missing), Severity.NOTE)
    return found
