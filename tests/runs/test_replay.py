"""What a run may remember: honest memory over steps, recorded by hash; no training here."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ciod_core.config.schema import Config, ReplayConfig
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource, resolve_dataset
from ciod_core.errors import CheckpointError, CiodError, DataError
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.entries import ReplayedImage, RunRecord
from ciod_core.experiment.folder import Experiment, Teacher
from ciod_core.files import sha256_of_file
from ciod_core.runs.replay import choose_replayed, replay_table, resumed_replay
from ciod_core.runs.spec import RunSpec
from ciod_core.runs.train import training_data
from tests.helpers.experiments import make_run

ALL_OF_THEM = 1000


@pytest.fixture(scope="module")
def made(shapes_dataset: DatasetSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and an experiment of three steps, 4 + 2 + 2 classes, each image in one step; read only."""
    folder = tmp_path_factory.mktemp("three")
    shutil.copytree(shapes_dataset.train.annotations.parents[1], folder / "shapes")
    create_experiment(resolve_dataset(str(folder / "shapes")), "4+2x2", "name", folder / "loco", protocol="loco")
    create_experiment(resolve_dataset(str(folder / "shapes")), "4+2x2", "name", folder / "overlap")
    return folder


def own(made: Path, tmp_path: Path, protocol: str = "overlap") -> Experiment:
    """An experiment of one's own, with the same images."""
    return Experiment.open(Path(shutil.copytree(made / protocol, tmp_path / protocol)))


def keep(experiment: Experiment, step: int, parent: RunRecord | None, **settings: object) -> tuple[ReplayedImage, ...]:
    """What a run of this step keeps that continues `parent`; None: a teacher from outside."""
    return choose_replayed(
        experiment, replace(plan(experiment, step, parent), config=Config(replay=ReplayConfig(**settings)))
    )


def plan(experiment: Experiment, step: int, parent: RunRecord | None) -> RunSpec:
    teacher = Teacher(Path("teacher.safetensors"), "0" * 64, parent)
    return RunSpec(f"run{step}", step, "step", teacher, experiment.read().classes.up_to(step), Config())


def run_of(experiment: Experiment, step: int, replayed: tuple[ReplayedImage, ...] = ()) -> RunRecord:
    return make_run(experiment, f"step{step}", step).model_copy(update={"replayed": replayed})


def ids_of(experiment: Experiment, step: int) -> set[int]:
    return set(read_coco(experiment.read().train_file(step).locate(experiment.folder)).image_ids_I.tolist())


def boxes_of(table: AnnotationTable, image_id: int) -> set[int]:
    """Annotation ids on an image."""
    index = int(np.flatnonzero(table.image_ids_I == image_id)[0])
    return set(table.annotation_ids_N[table.rows_of(index)].tolist())


def step_boxes(experiment: Experiment, steps: tuple[int, ...], image_id: int) -> set[int]:
    return set().union(
        *(boxes_of(read_coco(experiment.read().train_file(step).locate(experiment.folder)), image_id) for step in steps)
    )


def refusal(error: type[CiodError], call: object, *arguments: object) -> str:
    with pytest.raises(error) as caught:
        call(*arguments)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", ["loco", "overlap"])
def test_an_image_that_was_let_go_never_comes_back(made: Path, tmp_path: Path, protocol: str) -> None:
    experiment = own(made, tmp_path, protocol)
    kept = keep(experiment, 2, run_of(experiment, 1), images=3)
    assert len(kept) == 3 and {image.steps for image in kept} == {(1,)}
    assert {image.image_id for image in kept} <= ids_of(experiment, 1)

    later = {image.image_id: image for image in keep(experiment, 3, run_of(experiment, 2, kept), images=ALL_OF_THEM)}
    let_go = ids_of(experiment, 1) - {image.image_id for image in kept}
    assert later.keys() == ids_of(experiment, 2) | {image.image_id for image in kept}
    for number, image in later.items():
        held = any(number == other.image_id for other in kept)
        assert image.steps == ((1,) if held else ()) + ((2,) if number in ids_of(experiment, 2) else ())
    recurring = let_go & later.keys()
    assert bool(recurring) == (protocol == "overlap")
    table = replay_table(experiment, later.values()).table
    for number, image in later.items():
        assert boxes_of(table, number) == step_boxes(experiment, image.steps, number), "no label of a step let go"


def test_a_kept_image_is_recorded_by_name_and_hash(made: Path, tmp_path: Path) -> None:
    experiment = own(made, tmp_path)
    table = read_coco(experiment.read().train_file(1).locate(experiment.folder))
    names = dict(zip(table.image_ids_I.tolist(), table.file_names_I.tolist(), strict=True))
    for image in keep(experiment, 2, run_of(experiment, 1), images=4):
        assert image.file_name == names[image.image_id]
        assert image.sha256 == sha256_of_file((experiment.folder / experiment.read().train_images()) / image.file_name)


def test_a_teacher_from_outside_leaves_the_images_of_the_step_before(made: Path, tmp_path: Path) -> None:
    experiment = own(made, tmp_path)
    kept = keep(experiment, 3, None, images=ALL_OF_THEM)
    assert {image.image_id for image in kept} == ids_of(experiment, 2)
    assert {image.steps for image in kept} == {(2,)}


def test_without_a_budget_or_a_teacher_nothing_is_kept(made: Path, tmp_path: Path) -> None:
    experiment = own(made, tmp_path)
    assert keep(experiment, 2, run_of(experiment, 1), images=0) == ()
    first = RunSpec("step1", 1, "step", None, experiment.read().classes.up_to(1), Config(replay=ReplayConfig(images=5)))
    assert choose_replayed(experiment, first) == ()
    experiment.read().train_file(1).locate(experiment.folder).unlink()
    assert keep(experiment, 2, run_of(experiment, 1), images=0) == (), "no file of an earlier step is needed"


def test_images_that_the_run_before_could_not_load_are_not_kept(made: Path, tmp_path: Path) -> None:
    experiment = own(made, tmp_path)
    everything = keep(experiment, 2, run_of(experiment, 1), images=ALL_OF_THEM)
    skipped = {"skipped_images": (everything[0].file_name,)}
    assert keep(experiment, 2, run_of(experiment, 1).model_copy(update=skipped), images=ALL_OF_THEM) == everything[1:]


def test_own_images_gain_old_labels_and_others_are_flagged(made: Path, tmp_path: Path) -> None:
    experiment = own(made, tmp_path)
    kept = keep(experiment, 2, run_of(experiment, 1), images=ALL_OF_THEM)
    table, images, missing_IC, _ = training_data(experiment, plan(experiment, 2, None), kept)
    assert images == (experiment.folder / experiment.read().train_images())
    assert missing_IC is not None
    replayed_I = missing_IC.any(axis=1)
    own_ids = ids_of(experiment, 2)
    assert set(table.image_ids_I.tolist()) == own_ids | {image.image_id for image in kept}
    assert {int(number) for number in table.image_ids_I[replayed_I]} == {image.image_id for image in kept} - own_ids
    both = own_ids & {image.image_id for image in kept}
    assert both and replayed_I.any()
    for number in both:
        assert boxes_of(table, number) == step_boxes(experiment, (1, 2), number)
    plain = training_data(experiment, plan(experiment, 2, None), ())
    assert plain.missing_IC is None and plain.table.image_ids_I.tolist() == sorted(own_ids)


class TestChangedFiles:
    @pytest.fixture
    def experiment(self, shapes_dataset: DatasetSource, tmp_path: Path) -> Experiment:
        """An experiment with images of its own that a test may damage."""
        shutil.copytree(shapes_dataset.train.annotations.parents[1], tmp_path / "shapes")
        return create_experiment(resolve_dataset(str(tmp_path / "shapes")), "4+2x2", "name", tmp_path / "experiment")

    def test_an_image_that_the_run_before_replayed(self, experiment: Experiment) -> None:
        kept = keep(experiment, 2, run_of(experiment, 1), images=2)
        second = run_of(experiment, 2, kept)
        path = (experiment.folder / experiment.read().train_images()) / kept[0].file_name
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        for call in (
            lambda: keep(experiment, 3, second, images=ALL_OF_THEM),
            lambda: resumed_replay(experiment, second),
        ):
            message = refusal(CheckpointError, call)
            assert message == f"{path}: the image was changed since run 'step2' replayed it; restore it"
        path.unlink()
        assert "is missing" in refusal(CheckpointError, resumed_replay, experiment, second)
        path.write_bytes(content)
        assert resumed_replay(experiment, second) == kept

    def test_an_image_to_keep_that_is_not_there(self, experiment: Experiment) -> None:
        name = keep(experiment, 2, run_of(experiment, 1), images=1)[0].file_name
        ((experiment.folder / experiment.read().train_images()) / name).unlink()
        assert name in refusal(DataError, lambda: keep(experiment, 2, run_of(experiment, 1), images=1))

    def test_a_step_file_that_was_edited(self, experiment: Experiment) -> None:
        path = experiment.read().train_file(1).locate(experiment.folder)
        path.write_text(path.read_text() + " ")
        message = refusal(CheckpointError, lambda: keep(experiment, 2, run_of(experiment, 1), images=1))
        assert str(path) in message and "changed since the split was made" in message
