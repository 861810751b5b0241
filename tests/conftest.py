"""Fixtures that several packages' tests share."""

from __future__ import annotations

import os

# Before torch is imported, here and in the commands that tests start: tensors this small gain nothing from threads,
# and test processes side by side would fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
from pathlib import Path

import pytest

from ciod_core.data.formats.source import DatasetSource
from ciod_core.demo.shapes import generate_shapes


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real test images: $CIOD_TEST_DATA, or shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CIOD_TEST_DATA", beside))
    if not (folder / "bccd" / "annotations").is_dir():
        pytest.skip(f"no real test data at {folder}; set CIOD_TEST_DATA to the folder of bccd, neu-det and coco-tiny")
    return folder


@pytest.fixture(scope="session")
def shapes_dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetSource:
    """A generated dataset of 24 + 12 images of 64 pixels with eight classes; read only."""
    folder = tmp_path_factory.mktemp("generated") / "shapes"
    return generate_shapes(folder, train_images=24, val_images=12, image_size=64, seed=7, workers=1)


@pytest.fixture
def shapes_copy(shapes_dataset: DatasetSource, tmp_path: Path) -> Path:
    """A copy of the generated dataset that a test may change."""
    return Path(shutil.copytree(shapes_dataset.train.annotations.parents[1], tmp_path / "shapes"))
