"""The same dataset as COCO, YOLO and Pascal VOC gives the same boxes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.formats.source import DatasetSource, SplitFiles, parse_dataset, resolve_dataset
from tests.helpers.writers import as_voc, as_yolo, boxes_of


def require_same_boxes(raw: RawAnnotations, split: SplitFiles, atol: float, prefix: str = "") -> None:
    assert raw.findings == ()
    assert raw.file_names_I == sorted(raw.file_names_I)
    names = dict(raw.categories)
    expected = boxes_of(split.annotations, prefix)
    assert raw.file_names_I == sorted(expected)
    for image_id, file_name in zip(raw.image_ids_I, raw.file_names_I, strict=True):
        rows = np.flatnonzero(raw.image_ids_N == image_id)
        assert [names[category] for category in raw.category_ids_N[rows].tolist()] == [
            name for name, _ in expected[file_name]
        ]
        boxes_R4 = raw.boxes_xywh_N4[rows].copy()
        boxes_R4[:, 2:] += boxes_R4[:, :2]
        np.testing.assert_allclose(boxes_R4, np.reshape([box for _, box in expected[file_name]], (-1, 4)), atol=atol)


def splits(source: DatasetSource) -> Iterable[tuple[str, SplitFiles]]:
    return (("train", source.train), ("val", source.val))


def test_yolo(shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    source = resolve_dataset(str(as_yolo(shapes_dataset, tmp_path / "shapes")))
    assert source.format == "yolo"
    for raw, (_, split) in zip(parse_dataset(source), splits(shapes_dataset), strict=True):
        require_same_boxes(raw, split, atol=1e-3)
        assert (raw.sizes_I2 == 64).all()


def test_voc(shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    source = resolve_dataset(str(as_voc(shapes_dataset, tmp_path / "VOC2007")))
    assert source.format == "voc"
    for raw, (name, split) in zip(parse_dataset(source), splits(shapes_dataset), strict=True):
        require_same_boxes(raw, split, atol=0.5, prefix=f"{name}-")
        assert (raw.sizes_I2 == 64).all()


@pytest.mark.parametrize("name", ["bccd", "neu-det", "coco-tiny"])
def test_real_datasets(real_data: Path, name: str, tmp_path: Path) -> None:
    coco = resolve_dataset(str(real_data / name))
    yolo = parse_dataset(resolve_dataset(str(as_yolo(coco, tmp_path / "yolo"))))
    voc = parse_dataset(resolve_dataset(str(as_voc(coco, tmp_path / "voc"))))
    for (split_name, split), from_yolo, from_voc in zip(splits(coco), yolo, voc, strict=True):
        require_same_boxes(from_yolo, split, atol=1e-3)
        require_same_boxes(from_voc, split, atol=0.5, prefix=f"{split_name}-")
