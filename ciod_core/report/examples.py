"""Example images of a report: ground truth, teacher and students side by side, where they differ most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.images.decode import decode_image
from ciod_core.data.images.files import image_path
from ciod_core.drawing.detections import draw_detections
from ciod_core.errors import CiodError, ConfigError
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import WEIGHTS_KEY
from ciod_core.experiment.step_data import read_validation
from ciod_core.inference.load import load
from ciod_core.inference.predictions import ImagePredictions
from ciod_core.model.common.boxes import pairwise_iou
from ciod_core.report.document import Block, Figure, Figures, Section, Text
from ciod_core.report.material import Material

# Images that are looked at, students that are shown beside their teacher, and pixels of a picture's longer side.
CANDIDATES, STUDENTS, SIDE = 32, 3, 480
_SAME_IOU = 0.5
_QUALITY = 82
# Height of letters that everybody can read, and width of a wide page, in pixels of the screen.
LEGIBLE, PAGE = 11.0, 1150.0


class _Example(NamedTuple):
    data: LocatedTable
    row: int

    @property
    def file_name(self) -> str:
        return str(self.data.table.file_names_I[self.row])

    @property
    def path(self) -> Path:
        return image_path(self.data.image_dir, self.file_name, self.data.table.path)


def examples_section(
    material: Material, count: int, *, device: str = "auto", on_images: Callable[[int], None] = lambda _: None
) -> Section | None:
    """Pictures of up to `count` validation images; a sentence where weights or images are missing, None for 0."""
    if count < 1:
        return None
    try:
        blocks = _blocks(material, count, device, on_images)
    except (CiodError, OSError) as error:
        blocks = [Text(f"No example images: {error}")]
    return Section("examples", "Examples", blocks)


def _blocks(material: Material, count: int, device: str, on_images: Callable[[int], None]) -> list[Block]:
    runs = _shown_runs(material)
    examples = _candidates(material, runs[-1].step)
    paths = [example.path for example in examples]
    found: dict[str, list[ImagePredictions]] = {}
    for run in runs:
        detector = load(material.experiment.resolve_teacher(run.name).path, device)
        found[run.name] = detector.predict(paths)
        on_images(len(paths))
    teacher, *students = runs
    known = len(material.manifest.classes.up_to(teacher.step))

    def difference(place: int) -> int:
        before = found[teacher.name][place]
        return sum(_unlike(before, found[student.name][place], known) for student in students)

    chosen = sorted(range(len(examples)), key=difference, reverse=True)[:count]
    rows: list[Block] = []
    for number, place in enumerate(chosen, start=1):
        name = PurePosixPath(examples[place].file_name).name
        image = decode_image(paths[place])
        text_size = _text_size(1 + len(runs))
        figures = [_truth(material, examples[place], image, f"example{number}-truth", name, text_size)]
        for run in runs:
            title = f"{run.name}, the teacher" if run is teacher and students else run.name
            predictions = found[run.name][place]
            figures.append(
                _picture(
                    image,
                    predictions.boxes,
                    predictions.class_ids,
                    predictions.names,
                    predictions.scores,
                    f"example{number}-{run.name}",
                    title,
                    name,
                    text_size,
                )
            )
        rows.append(Figures(figures, name, small=True))
    few = f" of {len(examples)} that were looked at"
    how = f"The images{few} where teacher and students differ most on old classes" if students else f"Some images{few}"
    return [Text(f"{how}. Detections of score 0.3 or more; colors as in the list of classes."), *rows]


def _shown_runs(material: Material) -> list[RunRecord]:
    """A teacher and the best of its students, one of each method; a single run where no teacher has weights."""
    ends = [end for end in material.ends if WEIGHTS_KEY in end.outputs]
    if not ends:
        raise ConfigError("no run has weights yet")
    last = max(ends, key=lambda end: end.step)
    parent = material.manifest.find_run(last.parent) if last.parent else None
    if parent is None or WEIGHTS_KEY not in parent.outputs:
        return [last]
    students = [end for end in ends if end.parent == parent.name]
    return [parent, *sorted(students, key=lambda run: run.metrics.get("all") or 0.0, reverse=True)[:STUDENTS]]


def _candidates(material: Material, step: int) -> list[_Example]:
    """Images at equal distances over all validation files of a step's run."""
    steps = material.manifest.validation_steps(step)
    parts = [read_validation(material.experiment, material.manifest, number) for number in steps]
    every = [_Example(part, index) for part in parts for index in range(part.table.num_images)]
    if not every:
        raise ConfigError("there are no validation images")
    places = np.unique(np.linspace(0, len(every) - 1, min(len(every), CANDIDATES)).round().astype(int))
    return [every[place] for place in places.tolist()]


def _unlike(before: ImagePredictions, after: ImagePredictions, known: int) -> int:
    """The number of detections of the teacher's classes that the other one does not have."""
    old = after.class_ids < known
    boxes, ids = after.boxes[old], after.class_ids[old]
    same = pairwise_iou(torch.from_numpy(before.boxes), torch.from_numpy(boxes)).numpy() >= _SAME_IOU
    same &= before.class_ids[:, None] == ids
    return int((~same.any(axis=1)).sum() + (~same.any(axis=0)).sum())


def _text_size(columns: int) -> float:
    """Height of text in a picture that is legible where so many lie side by side on a wide page."""
    return LEGIBLE * SIDE / min(SIDE, PAGE / columns)


def _truth(material: Material, example: _Example, image: Image.Image, name: str, file: str, text_size: float) -> Figure:
    table = example.data.table
    rows = table.rows_of(example.row)
    counted_N = ~table.crowd_N[rows]
    labels_N = material.manifest.classes.labels_of(table.category_ids_N[rows][counted_N])
    boxes_N4 = table.boxes_N4[rows][counted_N][labels_N >= 0]
    labels_N = labels_N[labels_N >= 0]
    names = [material.manifest.classes.names[label] for label in labels_N.tolist()]
    return _picture(image, boxes_N4, labels_N, names, None, name, "ground truth", file, text_size)


def _picture(
    image: Image.Image,
    boxes_D4: np.ndarray,
    labels_D: np.ndarray,
    names: Sequence[str],
    scores_D: np.ndarray | None,
    name: str,
    title: str,
    file: str,
    text_size: float,
) -> Figure:
    factor = SIDE / max(image.size)
    size = (max(1, round(factor * image.width)), max(1, round(factor * image.height)))
    small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    content = BytesIO()
    drawn = draw_detections(small, factor * boxes_D4, labels_D, names, scores_D, text_size=text_size)
    drawn.save(content, "JPEG", quality=_QUALITY)
    objects = ", ".join(f"{count} {shown}" for shown, count in Counter(names).most_common()) or "nothing"
    return Figure(name, f"{title}: {objects}", content.getvalue(), f"{file}, {title}: {objects}")
