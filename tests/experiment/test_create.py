"""Making an experiment: complete, verifiable, and all or nothing."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from ciod_core.config.schema import Config, MethodConfig
from ciod_core.data.annotations.protocols import parse_protocol
from ciod_core.data.annotations.split import split_steps
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource, resolve_dataset
from ciod_core.data.hold_out import HeldOut, HoldOut
from ciod_core.data.images.files import check_images_exist
from ciod_core.errors import ConfigError, DataError
from ciod_core.experiment import folder as experiment_folder
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.entries import PlanRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.plan.plan import plan_classes
from ciod_core.experiment.step_data import read_all_labels, read_step, read_validation
from ciod_core.experiment.transaction import recover
from ciod_core.files import sha256_of_file
from ciod_core.runs.spec import plan_run
from ciod_core.runs.train import training_table
from tests.helpers.experiments import check_files, make_run
from tests.helpers.exports import EXPORTS

# Under every protocol it leaves each class of the few images a box.
SEED = 5


def everything_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def test_manifest_and_files_agree(shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    experiment = create_experiment(shapes_dataset, "5+3", "name", tmp_path / "new" / "experiment")

    manifest = experiment.read()
    assert [len(step.classes) for step in manifest.steps] == [5, 3]
    assert list(manifest.classes.names) == sorted(manifest.classes.names)
    for step in manifest.steps:
        check_files(experiment, step.step)
        table = read_coco(experiment.read().train_file(step.step).locate(experiment.folder))
        assert {category.name for category in table.categories} == set(step.classes)
        assert table.num_images == step.statistics.images
        assert table.num_boxes == sum(step.statistics.boxes_per_class.values())
    source = shapes_dataset.train.annotations
    assert manifest.dataset.train.annotations.sha256 == sha256_of_file(source)
    assert (experiment.folder / experiment.read().train_images()).samefile(shapes_dataset.train.image_dir)


def test_file_names_of_another_machine(shapes_copy: Path, tmp_path: Path) -> None:
    """The steps and joint training, which reads the dataset itself, find the images."""
    for half in ("train", "val"):
        path = shapes_copy / "annotations" / f"instances_{half}.json"
        content = json.loads(path.read_text())
        for image in content["images"]:
            image["file_name"] = f"C:\\data\\{half}\\{image['file_name']}"
        path.write_text(json.dumps(content))
    experiment = create_experiment(resolve_dataset(str(shapes_copy)), "5+3", "name", tmp_path / "experiment")
    manifest = experiment.read()
    for table, image_dir in (*read_all_labels(experiment, manifest, 2), read_step(experiment, manifest, 1)):
        check_images_exist(table, image_dir)


def test_nothing_else_stays_in_the_folder(shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    create_experiment(shapes_dataset, "5+3", "name", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experiment.json", "splits"]


def test_same_input_same_files(shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    first, second = (create_experiment(shapes_dataset, "5+3", "id", tmp_path / name) for name in "ab")
    assert first.read().steps == second.read().steps
    assert everything_in(tmp_path / "a" / "splits") == everything_in(tmp_path / "b" / "splits")


@pytest.mark.parametrize(
    ("plan", "order", "protocol"),
    [("5+4", "name", "overlap"), ("5+3", "nmae", "overlap"), ("x", "name", "overlap"), ("5+3", "name", "overlp")],
)
def test_a_mistake_leaves_nothing(
    shapes_dataset: DatasetSource, tmp_path: Path, plan: str, order: str, protocol: str
) -> None:
    with pytest.raises(ConfigError):
        create_experiment(shapes_dataset, plan, order, tmp_path / "a" / "b", protocol=protocol)
    assert not list(tmp_path.iterdir())


class TestPlanRecord:
    def test_overlap_has_no_seed(self, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
        plan = create_experiment(shapes_dataset, "5+3", None, tmp_path, seed=3).read().plan
        assert plan == PlanRecord(text="5+3", order="name", unused_images=0)

    @pytest.mark.parametrize("protocol", ["disjoint", "loco"])
    def test_protocol_seed_and_unused_images(
        self, shapes_dataset: DatasetSource, tmp_path: Path, protocol: str
    ) -> None:
        experiment = create_experiment(shapes_dataset, "4+4", "id", tmp_path, protocol=protocol, seed=SEED)
        plan, steps = experiment.read().plan, experiment.read().steps
        assert (plan.protocol, plan.seed, plan.unlabelled_policy) == (protocol, SEED, "keep-images-drop-boxes")
        ids = [
            read_coco(experiment.read().train_file(step).locate(experiment.folder)).image_ids_I.tolist()
            for step in (1, 2)
        ]
        assert not set(ids[0]) & set(ids[1])
        train = read_coco(shapes_dataset.train.annotations)
        groups = plan_classes("4+4", train.categories, "id").groups
        assert ids == [
            step.train.image_ids_I.tolist()
            for step in split_steps(train, train, groups, parse_protocol(protocol), SEED).steps
        ]
        assert plan.unused_images == 24 - len(ids[0]) - len(ids[1])
        assert [step.statistics.shared_images for step in steps] == [{2: 0}, {1: 0}]

    def test_a_plan_file_and_its_left_out_classes(self, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text("steps: [[star, circle], [square]]\nleave_out: rest")
        manifest = create_experiment(shapes_dataset, str(path), None, tmp_path / "e").read()
        assert (manifest.plan.text, manifest.plan.order, manifest.plan.file) == ("2+1", "listed", "mine.yaml")
        assert manifest.classes.names == ("star", "circle", "square")
        assert len(manifest.plan.left_out) == 5 and not set(manifest.plan.left_out) & set(manifest.classes.names)


def test_left_out_classes_appear_nowhere(shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    experiment = create_experiment(shapes_dataset, "3+2", "name", tmp_path, leave_out="circle, star,square")
    manifest = experiment.read()
    planned = set(manifest.classes.category_ids)
    assert manifest.plan.left_out == ("circle", "square", "star")
    assert len(planned) == 5
    joint = training_table(experiment, plan_run(experiment, Config(method=MethodConfig(name="joint")))).table
    for table in (
        joint,
        *(read_coco(experiment.read().train_file(step).locate(experiment.folder)) for step in (1, 2)),
        *(read_coco(experiment.read().val_file(step).locate(experiment.folder)) for step in (1, 2)),
    ):
        assert set(table.category_ids_N.tolist()) <= planned
    source = read_coco(shapes_dataset.train.annotations)
    assert joint.num_boxes == np.count_nonzero(source.with_category(tuple(planned)))
    for step in manifest.steps:
        images = source.image_ids_I[source.image_of_box_N]
        here = np.isin(images, read_coco(experiment.read().train_file(step.step).locate(experiment.folder)).image_ids_I)
        hidden = np.count_nonzero(here & ~source.with_category(tuple(planned)))
        assert step.statistics.hidden_left_out_boxes == hidden > 0


def test_joint_training_sees_the_images_that_a_protocol_leaves_unused(
    shapes_dataset: DatasetSource, tmp_path: Path
) -> None:
    experiment = create_experiment(shapes_dataset, "4+4", "name", tmp_path, protocol="disjoint", seed=SEED)
    joint = training_table(experiment, plan_run(experiment, Config(method=MethodConfig(name="joint")))).table
    source = read_coco(shapes_dataset.train.annotations)
    assert joint.annotation_ids_N.tolist() == source.annotation_ids_N.tolist()


def test_a_failure_while_writing_leaves_nothing(
    shapes_dataset: DatasetSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(experiment_folder, "atomic_write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        create_experiment(shapes_dataset, "5+3", "name", tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestKilled:
    """A process that is killed can undo nothing; the next command does."""

    def split(self, source: DatasetSource, out: Path, plan: str = "5+3", *, overwrite: bool = False) -> Experiment:
        return create_experiment(source, plan, "name", out, overwrite)

    def kill(self, function: str, source: DatasetSource, out: Path, plan: str = "5+3", *, overwrite: bool) -> None:
        """Split in a process that is killed when it calls the function."""
        child = os.fork()
        if child == 0:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(function, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
                self.split(source, out, plan, overwrite=overwrite)
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        assert list(out.glob(".tmp-*"))

    @pytest.mark.parametrize(
        "function",
        [
            "ciod_core.experiment.create.write_coco",
            "ciod_core.experiment.transaction._move",
            "ciod_core.experiment.transaction.Path.rename",
            "ciod_core.experiment.folder.atomic_write_text",
        ],
    )
    def test_a_split_that_was_not_written_is_undone(
        self, function: str, shapes_dataset: DatasetSource, tmp_path: Path
    ) -> None:
        self.kill(function, shapes_dataset, tmp_path / "killed", overwrite=False)
        killed, whole = (self.split(shapes_dataset, tmp_path / name) for name in ("killed", "whole"))
        assert killed.read().steps == whole.read().steps
        assert not list(killed.folder.glob(".tmp-*"))

    def test_one_that_replaces_another_leaves_that(self, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
        before = self.split(shapes_dataset, tmp_path)
        function = "ciod_core.experiment.folder.atomic_write_text"
        self.kill(function, shapes_dataset, tmp_path, "4+4", overwrite=True)
        recover(before)
        check_files(before, 2)
        assert before.read().plan.text == "5+3" and not list(tmp_path.glob(".tmp-*"))

    def test_one_that_was_written_stays(self, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
        before = self.split(shapes_dataset, tmp_path)
        self.kill("ciod_core.temporaries.shutil.rmtree", shapes_dataset, tmp_path, "4+4", overwrite=True)
        recover(before)
        check_files(before, 2)
        assert before.read().plan.text == "4+4" and not list(tmp_path.glob(".tmp-*"))


class TestWithoutValidationHalf:
    @pytest.mark.parametrize(
        ("export", "remedy"),
        [
            ("Label Studio COCO", "result.json: .* name the validation file as .* or pass it with `val`"),
            ("CVAT YOLO", "obj.data: .* name the folder or list of its images under val in that file"),
            (
                "CVAT Pascal VOC",
                "default.txt: .* list its images in ImageSets/Main/val.txt, and the others in train.txt",
            ),
        ],
    )
    def test_it_is_refused(self, shapes_dataset: DatasetSource, tmp_path: Path, export: str, remedy: str) -> None:
        EXPORTS[export](shapes_dataset.train, tmp_path / "export")
        expected = remedy.replace(".* ", "there is no validation half .*; hold out some .* with `hold_out`, or ", 1)
        with pytest.raises(DataError, match=expected):
            create_experiment(resolve_dataset(str(tmp_path / "export")), "4+4", None, tmp_path / "e")
        assert not (tmp_path / "e").exists()

    def test_a_broken_file_is_told_first(self, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
        EXPORTS["Label Studio COCO"](shapes_dataset.train, tmp_path / "export")
        path = tmp_path / "export" / "result.json"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(DataError, match=r"result\.json: ends in the middle of the JSON"):
            create_experiment(resolve_dataset(str(tmp_path / "export")), "4+4", None, tmp_path / "e")

    @pytest.mark.parametrize("export", ["Label Studio COCO, uploads", "CVAT YOLO"])
    def test_images_are_held_out(self, shapes_dataset: DatasetSource, tmp_path: Path, export: str) -> None:
        EXPORTS[export](shapes_dataset.train, tmp_path / "export")
        source = resolve_dataset(str(tmp_path / "export"))
        seen: list[int] = []
        first, second = (
            create_experiment(source, "4+4", None, tmp_path / name, hold_out=HoldOut(0.25, 1), on_image=seen.append)
            for name in "ab"
        )
        assert sum(seen) == 48
        manifest = first.read()
        assert manifest.steps == second.read().steps
        assert manifest.dataset is not None and manifest.dataset.train.held_out is None
        assert manifest.dataset.val.held_out == HeldOut(amount=0.25, seed=1, images=6, of_images=24)
        (train,), val = read_all_labels(first, manifest, 2), read_validation(first, manifest, 2)
        assert (train.table.num_images, val.table.num_images, train.image_dir) == (18, 6, val.image_dir)
        assert not set(train.table.file_names_I.tolist()) & set(val.table.file_names_I.tolist())
        assert all((val.image_dir / name).is_file() for name in val.table.file_names_I.tolist())
        for step in (1, 2):
            check_files(first, step)
            own = read_step(first, manifest, step).table
            assert set(own.file_names_I.tolist()) <= set(train.table.file_names_I.tolist())


class TestOverwrite:
    def test_refused_without_it(self, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
        create_experiment(shapes_dataset, "5+3", "name", tmp_path)
        before = everything_in(tmp_path)
        with pytest.raises(ConfigError, match="`overwrite`"):
            create_experiment(shapes_dataset, "4+4", "name", tmp_path)
        assert everything_in(tmp_path) == before

    def test_replaces_an_experiment_without_runs(self, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
        create_experiment(shapes_dataset, "2x4", "name", tmp_path)
        experiment = create_experiment(shapes_dataset, "5+3", "name", tmp_path, overwrite=True)
        assert experiment.read().plan.text == "5+3"
        assert len(list((tmp_path / "splits").iterdir())) == 4
        check_files(experiment, 2)

    def test_never_an_experiment_with_runs(self, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
        make_run(create_experiment(shapes_dataset, "5+3", "name", tmp_path), "step1", 1)
        before = everything_in(tmp_path)
        with pytest.raises(ConfigError, match="has runs"):
            create_experiment(shapes_dataset, "4+4", "name", tmp_path, overwrite=True)
        assert everything_in(tmp_path) == before

    def test_a_failure_brings_the_old_one_back(
        self, shapes_dataset: DatasetSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create_experiment(shapes_dataset, "5+3", "name", tmp_path)
        before = everything_in(tmp_path)

        def interrupt(path: Path, text: str) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(experiment_folder, "atomic_write_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            create_experiment(shapes_dataset, "4+4", "name", tmp_path, overwrite=True)
        assert everything_in(tmp_path) == before
        check_files(Experiment.open(tmp_path), 1)

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_an_interruption_after_the_manifest_was_written_takes_no_file_back(
        self, shapes_dataset: DatasetSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
    ) -> None:
        if overwrite:
            create_experiment(shapes_dataset, "5+3", "name", tmp_path)
        write = experiment_folder.atomic_write_text

        def interrupt(path: Path, text: str) -> None:
            write(path, text)
            raise KeyboardInterrupt

        monkeypatch.setattr(experiment_folder, "atomic_write_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            create_experiment(shapes_dataset, "4+4", "name", tmp_path, overwrite=overwrite)
        experiment = Experiment.open(tmp_path)
        assert experiment.read().plan.text == "4+4"
        check_files(experiment, 2)
        assert not list(tmp_path.glob(".tmp-*"))

    def test_a_foreign_splits_folder_is_left_alone(self, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
        (tmp_path / "splits").mkdir()
        (tmp_path / "splits" / "mine.txt").write_text("keep")
        with pytest.raises(ConfigError, match="something else"):
            create_experiment(shapes_dataset, "5+3", "name", tmp_path, overwrite=True)
        assert (tmp_path / "splits" / "mine.txt").read_text() == "keep"


def test_coco_excerpt(real_data: Path, tmp_path: Path) -> None:
    experiment = create_experiment(resolve_dataset(str(real_data / "coco-tiny")), "70+10", "name", tmp_path)
    first, second = experiment.read().steps
    assert first.classes[0] == "airplane"
    assert second.classes[-1] == "zebra"
    document = json.loads(experiment.read().train_file(2).locate(experiment.folder).read_text())
    assert {annotation["category_id"] for annotation in document["annotations"]} <= set(
        experiment.read().classes.of_step(2).category_ids
    )
