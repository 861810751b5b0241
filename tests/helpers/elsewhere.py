"""Three images of 64 pixels for tests of teachers that ciod did not train, and entries of a results file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ciod_core.classes import class_table
from ciod_core.config.schema import ResamplerConfig
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.teachers.boxes import OldClassImages
from tests.helpers.chains import write_data

OLD = class_table([[("cat", 7), ("dog", 3)]])
RESAMPLER = ResamplerConfig(rule="crs", min_score=0.2, nms_iou=0.5)


def three_images(folder: Path, resampler: ResamplerConfig = RESAMPLER) -> OldClassImages:
    """The images 1 to 3 of step 2, on which cats and dogs are old."""
    path = write_data(folder, "may", {"1.png": ["owl"], "2.png": ["owl"], "3.png": ["owl"]})
    return OldClassImages(2, OLD, LocatedTable(read_coco(path), path.with_suffix("")), resampler)


def result(image_id: int, category_id: int, bbox: list[float], score: float, **more: Any) -> dict[str, Any]:
    """An entry of a results file."""
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score, **more}


def write_json(path: Path, content: Any) -> Path:
    """Write a file; returns it."""
    path.write_text(json.dumps(content))
    return path
