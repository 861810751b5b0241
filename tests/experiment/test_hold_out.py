"""Added steps whose validation images are held out of their training images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ciod_core.data.formats.source import DatasetSource
from ciod_core.data.hold_out import HeldOut, HoldOut
from ciod_core.errors import ConfigError
from ciod_core.experiment.add_step import add_step
from ciod_core.experiment.entries import StepRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.step_data import read_step, read_validation
from tests.helpers.chains import begin_run, content_of, data_source, write_data
from tests.helpers.experiments import check_files

NAMES = [f"{number}.png" for number in range(10)]


@pytest.fixture
def circles(tmp_path: Path) -> DatasetSource:
    return data_source(write_data(tmp_path / "data", "circles", {name: ["circle"] for name in NAMES}))


@pytest.fixture
def chain(circles: DatasetSource, tmp_path: Path) -> Experiment:
    """Ten circles, of which three are held out."""
    with add_step(circles, experiment=tmp_path / "chain", hold_out=HoldOut(0.3)) as added:
        begin_run(added.experiment, "step1", 1)
    return added.experiment


def record(experiment: Experiment, step: int = 1) -> StepRecord:
    return experiment.read().steps[step - 1]


def images(experiment: Experiment, step: int) -> tuple[set[str], set[str]]:
    """The training and the validation images of a step."""
    parts = (read(experiment, experiment.read(), step) for read in (read_step, read_validation))
    train, val = (set(part.table.file_names_I.tolist()) for part in parts)
    return train, val


def test_the_step_has_both_halves_and_says_how(chain: Experiment) -> None:
    step = record(chain)
    assert step.data is not None and step.data.val is not None
    assert step.data.val.held_out == HeldOut(amount=0.3, seed=0, images=3, of_images=10)
    assert (step.statistics.images, step.statistics.boxes_per_class) == (7, {"circle": 7})
    train, val = images(chain, 1)
    assert (len(train), len(val), train | val) == (7, 3, set(NAMES))
    check_files(chain, 1)
    assert chain.read().validation_steps(1) == (1,)
    # The dataset's own file lists both halves; the step's are read.
    assert step.data.train.annotations == step.train and step.data.val.annotations == step.val


def test_the_same_command_again_finds_the_step(chain: Experiment, circles: DatasetSource) -> None:
    before = content_of(chain.folder)
    with add_step(circles, experiment=chain.folder, hold_out=HoldOut(0.3)) as added:
        assert added.number == 1
    assert content_of(chain.folder) == before
    for other in (HoldOut(0.3, seed=1), HoldOut(4), None):
        with (
            pytest.raises(ConfigError, match="has a step 1 from other data already"),
            add_step(circles, experiment=chain.folder, hold_out=other),
        ):
            pass


@pytest.mark.parametrize("seed", range(3))
def test_images_of_earlier_steps_stay_in_their_half(chain: Experiment, tmp_path: Path, seed: int) -> None:
    """The next data has the same ten photos, and ten more."""
    new = [f"new{number}.png" for number in range(10)]
    path = write_data(tmp_path / "data", "stars", {name: ["star"] for name in [*NAMES, *new]})
    for name in NAMES:
        shutil.copy(tmp_path / "data" / "circles" / name, tmp_path / "data" / "stars" / name)
    with add_step(data_source(path), experiment=chain.folder, teacher="step1", hold_out=HoldOut(0.3, seed)):
        earlier, later = images(chain, 1), images(chain, 2)
        assert earlier[0] <= later[0] and earlier[1] <= later[1]
        assert len(later[1]) == 6
        data = record(chain, 2).data
        assert data is not None and data.val is not None
        assert data.val.held_out == HeldOut(amount=0.3, seed=seed, images=6, of_images=20)


def test_a_class_on_one_image_is_learned(tmp_path: Path) -> None:
    content = {name: ["circle"] for name in NAMES} | {"rare.png": ["star"]}
    source = data_source(write_data(tmp_path, "data", content))
    for seed in range(5):
        folder = tmp_path / f"chain{seed}"
        with add_step(source, experiment=folder, hold_out=HoldOut(5, seed)) as added:
            step = record(added.experiment)
            assert step.classes == ("circle", "star")
            assert step.data is not None and step.data.val_classes == ("circle",)


def test_older_manifests_are_read(chain: Experiment) -> None:
    """Those that know nothing of images held out."""
    manifest = json.loads(chain.manifest_path.read_text())
    for half in ("train", "val"):
        del manifest["steps"][0]["data"][half]["held_out"]
    chain.manifest_path.write_text(json.dumps(manifest | {"checksum": None}))
    data = record(chain).data
    assert data is not None and data.val is not None and data.val.held_out is None
