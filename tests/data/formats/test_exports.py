"""Exports of annotation programs are read by folder and by annotation file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciod_core.data.check import check_dataset
from ciod_core.data.formats.source import DatasetSource, read_dataset, resolve_dataset
from ciod_core.errors import DataError
from tests.helpers.exports import EXPORTS


@pytest.mark.parametrize("export", EXPORTS)
def test_it_holds_what_was_exported(shapes_dataset: DatasetSource, tmp_path: Path, export: str) -> None:
    folder = tmp_path / "export"
    file = EXPORTS[export](shapes_dataset.val, folder)
    _, expected = read_dataset(shapes_dataset)
    # Of the one whose images lie elsewhere, the folder around both is not the dataset.
    for dataset in {file, file.parent if file.parent.name == "export" else folder}:
        source = resolve_dataset(str(dataset))
        assert source.val is None
        health = check_dataset(source)
        assert [finding.message for finding in health.all_findings] == []
        (table,) = read_dataset(source)
        assert [Path(name).name for name in table.file_names_I] == expected.file_names_I.tolist()
        assert abs(table.boxes_N4 - expected.boxes_N4).max() < 1.01
        names, expected_names = (
            [{category.id: category.name for category in read.categories}[number] for number in read.category_ids_N]
            for read in (table, expected)
        )
        assert names == expected_names


def test_several_files_ask_for_one(shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    EXPORTS["FiftyOne"](shapes_dataset.val, tmp_path)
    EXPORTS["Label Studio COCO"](shapes_dataset.val, tmp_path)
    with pytest.raises(DataError, match=r"several files for train \(labels\.json, result\.json\); pass the one"):
        resolve_dataset(str(tmp_path))


def test_names_that_would_become_one_stay_as_they_are(shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    file = EXPORTS["Label Studio COCO, uploads"](shapes_dataset.val, tmp_path)
    text = file.read_text()
    first, second = sorted(path.name for path in (tmp_path / "images").iterdir())[:2]
    file.write_text(text.replace(f"upload/1/{second}", f"upload/2/{first}"))
    with pytest.raises(DataError, match="does not stay inside the image folder"):
        read_dataset(resolve_dataset(str(file)))
