"""Joint training on datasets that are added for it: when it ends early, and where they have photos in common."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from ciod_core.data.loading.dataset import DetectionDataset
from ciod_core.data.loading.loader import make_loader
from ciod_core.data.loading.transforms import EvalTransform
from ciod_core.errors import DataError
from ciod_core.experiment.add_step import add_step
from ciod_core.experiment.folder import Experiment
from ciod_core.runs.spec import plan_run
from ciod_core.runs.train import train_step, training_data, training_table
from ciod_core.training.progress import TrainingListener
from tests.helpers.chains import data_source, write_data
from tests.helpers.listeners import StopInEpoch2
from tests.training.conftest import tiny_config


def train_jointly(folder: Path, *, listener: TrainingListener | None = None, resume: bool = False) -> None:
    """Add circles, then stars, and train on both, as `ciod train-step --method joint --data … --data …` does."""
    data = folder.parent / "data"
    if not data.exists():
        write_data(data, "first", {"a.png": ["circle"], "b.png": ["circle"]})
        write_data(data, "second", {"a.png": ["star"], "b.png": ["star"]})
    with ExitStack() as undone_on_failure:
        for finished, name in enumerate(("first", "second")):
            source = data_source(data / f"{name}.json")
            undone_on_failure.enter_context(add_step(source, experiment=folder, finished=finished))
        config = tiny_config("joint", epochs=2, log_interval=1)
        train_step(Experiment.open(folder), config, listener=listener, resume=resume)


def test_a_run_that_had_begun_keeps_its_steps_and_can_be_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    with pytest.raises(KeyboardInterrupt):
        train_jointly(folder, listener=StopInEpoch2())
    manifest = Experiment.open(folder).read()
    assert [step.classes for step in manifest.steps] == [("circle",), ("star",)]
    assert [(run.name, run.status) for run in manifest.runs] == [("joint2", "interrupted")]
    train_jointly(folder, resume=True)
    assert Experiment.open(folder).read().run("joint2").status == "finished"


def test_what_was_added_goes_again_when_no_run_begins(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ciod_core.runs.train.training_data", fail)
        train_jointly(folder)
    assert not folder.exists()


@pytest.fixture
def sharing(tmp_path: Path) -> Experiment:
    """Two datasets of circles and squares, and of stars and squares, that have three photos in common.

    Photo 1 shows objects of all classes, photo 2 nothing of the first dataset, photo 3 no object at all.
    """
    first = {"1.png": ["circle", "square"], "2.png": [], "3.png": [], "own.png": ["circle"]}
    second = {"one.png": ["star", "square", "square"], "two.png": ["star"], "three.png": [], "own.png": ["star"]}
    for name, content in (("first", first), ("second", second)):
        write_data(tmp_path, name, content)
    for old, new in zip(first, list(second)[:3], strict=False):
        shutil.copy(tmp_path / "first" / old, tmp_path / "second" / new)
    for finished, name in enumerate(("first", "second")):
        add_step(data_source(tmp_path / f"{name}.json"), experiment=tmp_path / "experiment", finished=finished)
    return Experiment.open(tmp_path / "experiment")


def test_a_photo_in_several_datasets_is_one_image_with_all_labels(sharing: Experiment) -> None:
    spec = plan_run(sharing, tiny_config("joint"))
    data = training_data(sharing, spec, ())
    assert data.table.file_names_I.tolist() == ["first/1.png", "first/2.png", "first/own.png", "second/own.png"]
    labels = spec.classes.labels_of(data.table.category_ids_N)
    of_image = [labels[data.table.rows_of(image)].tolist() for image in range(4)]
    # Of the squares on photo 1, those of the first dataset count: the second one means the same.
    assert spec.classes.names == ("circle", "square", "star")
    assert of_image == [[0, 1, 2], [2], [0], [2]]
    assert data.missing_IC is not None
    # Photo 2 is known to show neither circle nor square.
    complete, circles, stars = [False] * 3, [False, False, True], [True, False, False]
    assert data.missing_IC.tolist() == [complete, complete, circles, stars]
    assert training_table(sharing, spec).table.num_boxes == data.table.num_boxes == 6


def test_the_loss_mask_covers_what_no_dataset_labels(sharing: Experiment) -> None:
    spec = plan_run(sharing, tiny_config("joint"))
    table, images, missing_IC, _ = training_data(sharing, spec, ())
    dataset = DetectionDataset(table, images, spec.classes, EvalTransform(64), missing_IC=missing_IC)
    (batch,) = make_loader(dataset, 4, shuffle=False, seed=0, epoch=0, workers=0)
    assert batch.missing_BC is not None and missing_IC is not None
    missing = dict(zip(batch.image_ids_B.tolist(), batch.missing_BC.tolist(), strict=True))
    assert [missing[number] for number in table.image_ids_I.tolist()] == missing_IC.tolist()
    assert [any(row) for row in missing.values()] == [False, False, True, True]


def test_an_image_that_cannot_be_read_is_no_other(sharing: Experiment, tmp_path: Path) -> None:
    (tmp_path / "second" / "one.png").unlink()
    with pytest.raises(DataError, match=r"one\.png: the image cannot be read"):
        training_data(sharing, plan_run(sharing, tiny_config("joint")), ())
    config = tiny_config("joint")
    config = config.model_copy(update={"data": config.data.model_copy(update={"corrupt_images": "skip"})})
    assert training_data(sharing, plan_run(sharing, config), ()).table.num_images == 5
