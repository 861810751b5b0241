"""Small datasets that come one after the other, for tests of chains without a plan."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ciod_core.classes import ClassTable
from ciod_core.config.schema import Config, MethodConfig, ModelConfig
from ciod_core.data.formats.source import DatasetSource, resolve_dataset
from ciod_core.errors import CiodError
from ciod_core.experiment.entries import FileRecord, RunRecord
from ciod_core.experiment.folder import WEIGHTS_KEY, Experiment
from ciod_core.files import sha256_of_file
from ciod_core.model.checkpoint import CheckpointInfo, save_detector
from ciod_core.model.preprocessing import Preprocessing
from tests.helpers.experiments import make_run
from tests.helpers.networks import lively_detector

JOINT = Config(method=MethodConfig(name="joint"))
MODEL = ModelConfig(name="yolox-micro", backbone_weights="none")


def write_data(
    folder: Path, name: str, images: Mapping[str, Sequence[str]], listed: Sequence[str] | None = None
) -> Path:
    """A COCO file `folder/name.json` and the images it lists, in `folder/name/`; returns the file.

    Args:
        folder: where to write.
        name: of the file and its image folder.
        images: the classes of the objects on each image, by its name.
        listed: the classes as the file lists them, with ids from 0; None lists those that are shown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).mkdir()
    listed = listed or list(dict.fromkeys(shown for classes in images.values() for shown in classes))
    entries = []
    for number, (file_name, classes) in enumerate(images.items(), start=1):
        seed = list(f"{name}/{file_name}".encode())  # no two images are alike
        noise = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name / file_name)
        entries += [
            {"image_id": number, "category_id": listed.index(shown), "bbox": [10 * place, 10, 18, 20]}
            for place, shown in enumerate(classes)
        ]
    content = {
        "images": [
            {"id": number, "file_name": file_name, "width": 64, "height": 64}
            for number, file_name in enumerate(images, start=1)
        ],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(entries, start=1)],
        "categories": [{"id": number, "name": shown} for number, shown in enumerate(listed)],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def data_source(train: Path, val: Path | None = None) -> DatasetSource:
    """What `write_data` wrote, as a dataset."""
    return resolve_dataset(str(train), val=val, images=train.with_suffix(""))


def write_teacher(path: Path, classes: ClassTable, step: int | None = None) -> Path:
    """Weights that know these classes; returns the file."""
    info = CheckpointInfo(
        model=MODEL,
        classes=classes,
        preprocessing=Preprocessing(image_size=64),
        run=path.stem,
        step=step or classes.last_step,
        method="base",
        parent_sha256=None,
    )
    save_detector(path, lively_detector(MODEL.name, len(classes)).state_dict(), info)
    return path


def content_of(folder: Path) -> dict[str, str]:
    """The hashes of all files below a folder, locks apart."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(folder)): sha256_of_file(path) for path in files}


def begin_run(experiment: Experiment, name: str, step: int, parent: str | None = None) -> RunRecord:
    """A finished run with real weights that says it trained on the step as it is."""
    record = make_run(experiment, name, step, parent)
    path = write_teacher(experiment.weights_path(name), experiment.read().classes.up_to(step), step)
    record = record.model_copy(
        update={
            "inputs": {"train": experiment.read().train_file(step)},
            "outputs": {WEIGHTS_KEY: FileRecord.of(path, experiment.folder)},
        }
    )
    experiment.put_run(record)
    return record


def second_data(folder: Path, name: str = "new") -> DatasetSource:
    """Stars, and one more square; the names and ids of its images are those of step 1's."""
    train = write_data(folder, name, {"a.png": ["star"], "b.png": ["square", "star"]})
    return data_source(train, write_data(folder, f"{name}val", {"a.png": ["star"]}))


@contextmanager
def refused(experiment: Experiment, kind: type[CiodError], *expected: str) -> Iterator[None]:
    """The block ends in one line that says this; nothing in the experiment has changed."""
    before = content_of(experiment.folder)
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert part in message
    assert content_of(experiment.folder) == before
