"""A small hand-written COCO file that tests alter."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONTENT: dict[str, Any] = {
    "images": [
        {"id": 30, "file_name": "c.jpg", "width": 100, "height": 80},
        {"id": 7, "file_name": "sub/a.jpg", "width": 64, "height": 64},
        {"id": 12, "file_name": "b.jpg", "width": 50, "height": 50},
    ],
    "annotations": [
        {"id": 5, "image_id": 7, "category_id": 3, "bbox": [1.5, 2, 10, 20], "area": 150.5, "iscrowd": 0},
        {"id": 0, "image_id": 30, "category_id": 18, "bbox": [0, 0, 100, 80], "iscrowd": 1},
        {"id": 9, "image_id": 7, "category_id": 18, "bbox": [4, 4, 8, 8]},
        {"id": 2, "image_id": 30, "category_id": 3, "bbox": [10.25, 5.5, 30.1, 40.7], "segmentation": [[1, 2, 3, 4]]},
    ],
    "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}, {"id": 3, "name": "car"}],
}

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def coco_file(tmp_path: Path) -> Callable[..., Path]:
    """Write the small file, changed by an edit function, and return its path."""

    def write(edit: Edit | None = None, name: str = "instances.json") -> Path:
        content = copy.deepcopy(CONTENT)
        if edit is not None:
            edit(content)
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write
