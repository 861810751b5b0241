"""Steps that are added without a plan: what the manifest keeps, and that a mistake leaves nothing. No training here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ciod_core.classes import class_table
from ciod_core.config.schema import Config, EvaluationConfig, MethodConfig, ReplayConfig
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource, resolve_dataset
from ciod_core.errors import CheckpointError, CiodError, ConfigError, DataError
from ciod_core.evaluation.evaluate import evaluate_weights
from ciod_core.experiment.add_step import add_step
from ciod_core.experiment.folder import Experiment
from ciod_core.files import sha256_of_file
from ciod_core.runs.claim import claim
from ciod_core.runs.replay import choose_replayed, resumed_replay
from ciod_core.runs.spec import plan_run
from ciod_core.runs.train import training_data, training_table
from tests.helpers.chains import JOINT, begin_run, content_of, data_source, refused, second_data, write_data
from tests.helpers.experiments import check_files
from tests.helpers.exports import EXPORTS
from tests.helpers.writers import as_voc, as_yolo


class TestFirstStep:
    def test_it_begins_an_experiment(self, chain: Experiment, tmp_path: Path) -> None:
        manifest = chain.read()
        assert (manifest.dataset, manifest.plan) == (None, None)
        assert manifest.classes == class_table([[("circle", 0), ("square", 1)]])
        step = manifest.steps[0]
        assert (step.step, step.classes, step.planned) == (1, ("circle", "square"), False)
        assert (step.statistics.images, step.statistics.boxes_per_class) == (3, {"circle": 2, "square": 1})
        assert step.data is not None and step.data.val_classes == ("square", "circle")
        assert step.data.train.annotations.sha256 == sha256_of_file(tmp_path / "data" / "first.json")
        assert (chain.folder / chain.read().train_images()) == tmp_path / "data" / "first"
        assert (chain.folder / chain.read().val_images()) == tmp_path / "data" / "firstval"
        check_files(chain, 1)
        assert read_coco(chain.read().train_file(1).locate(chain.folder)).num_images == 3
        assert sorted(path.name for path in (chain.folder / "splits").iterdir()) == [
            "step1.train.json",
            "step1.val.json",
        ]

    @pytest.mark.parametrize("export", ["Label Studio COCO, uploads", "CVAT YOLO", "Label Studio Pascal VOC"])
    def test_from_an_export_without_validation(
        self, shapes_dataset: DatasetSource, tmp_path: Path, export: str
    ) -> None:
        EXPORTS[export](shapes_dataset.val, tmp_path / "export")
        source = resolve_dataset(str(tmp_path / "export"))
        with add_step(source, experiment=tmp_path / "chain") as added:
            (step,) = added.experiment.read().steps
            assert (step.statistics.images, step.val) == (12, None)

    def test_the_current_folder_is_the_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with add_step(second_data(tmp_path / "data")) as added:
            assert added.number == 1 and (tmp_path / "experiment.json").is_file()

    def test_it_is_planned_like_any_other(self, chain: Experiment) -> None:
        plan = plan_run(chain, Config())
        assert (plan.step, plan.classes.names, plan.teacher) == (1, ("circle", "square"), None)
        assert training_data(chain, plan, ()).table.num_boxes == 3

    @pytest.mark.parametrize("kind", ["data", "images", "block", "folder"])
    def test_a_failure_leaves_nothing(self, tmp_path: Path, kind: str) -> None:
        source = second_data(tmp_path / "data")
        out = tmp_path / "a" / "chain"
        if kind == "data":
            source.train.annotations.write_text("{}")
        elif kind == "images":
            (source.train.image_dir / "a.png").unlink()
        elif kind == "folder":
            (out / "splits").mkdir(parents=True)
        before = content_of(tmp_path)
        with pytest.raises((CiodError, KeyboardInterrupt)), add_step(source, experiment=out):
            raise KeyboardInterrupt
        assert content_of(tmp_path) == before
        assert out.exists() == (kind == "folder")

    def test_a_file_of_the_users_stays(self, tmp_path: Path) -> None:
        (tmp_path / "chain").mkdir()
        (tmp_path / "chain" / "notes.txt").write_text("mine")
        with pytest.raises(KeyboardInterrupt), add_step(second_data(tmp_path), experiment=tmp_path / "chain"):
            raise KeyboardInterrupt
        assert [path.name for path in (tmp_path / "chain").iterdir()] == ["notes.txt"]

    def test_weights_that_lie_there_are_not_overwritten(self, chain: Experiment) -> None:
        chain.weights_path("other").write_text("precious")
        with refused(chain, ConfigError, "other.safetensors: exists and was not written by", "`teacher`"):
            claim(chain, plan_run(chain, Config(), run="other"), resume=False, overwrite=False)
        claim(chain, plan_run(chain, Config(), run="other"), resume=False, overwrite=True)


class TestNextStep:
    @pytest.fixture
    def longer(self, chain: Experiment, tmp_path: Path) -> Experiment:
        """Step 2 adds stars and another square."""
        with add_step(second_data(tmp_path / "later"), experiment=chain.folder, teacher="step1") as added:
            assert added.number == 2
            begin_run(chain, "step2", 2, "step1")
        return chain

    def test_classes_and_ids(self, longer: Experiment) -> None:
        step = longer.read().steps[1]
        assert (step.classes, step.extended_classes) == (("star",), ("square",))
        # The data's own id 0 is taken by the circle, whose place in the data has another id.
        assert longer.read().classes.category_ids == (0, 1, 2)
        first, second = (read_coco(longer.read().train_file(number).locate(longer.folder)) for number in (1, 2))
        assert second.category_ids_N.tolist() == [2, 1, 2]
        assert not set(first.image_ids_I.tolist()) & set(second.image_ids_I.tolist())
        assert not set(first.annotation_ids_N.tolist()) & set(second.annotation_ids_N.tolist())

    def test_the_earlier_validation_stays(self, longer: Experiment) -> None:
        assert longer.read().validation_steps(1) == (1,)
        assert longer.read().validation_steps(2) == (1, 2)
        check_files(longer, 2)
        path = longer.read().val_file(1).locate(longer.folder)
        path.write_text(path.read_text() + " ")
        with pytest.raises(CheckpointError, match=r"step1\.val\.json: the file was changed"):
            check_files(longer, 2)

    def test_joint_training_takes_all_data(self, longer: Experiment, tmp_path: Path) -> None:
        plan = plan_run(longer, JOINT)
        table, images = training_table(longer, plan)
        assert (plan.step, plan.name, images) == (2, "joint2", tmp_path.resolve())
        assert table.num_boxes == 6
        # As for any joint run, images without an object stay out.
        assert table.file_names_I.tolist() == [
            "data/first/a.png",
            "data/first/b.png",
            "later/new/a.png",
            "later/new/b.png",
        ]
        for name in table.file_names_I.tolist():
            assert (images / name).is_file()
        assert training_table(longer, plan_run(longer, JOINT, step=1)).table.num_boxes == 3

    def test_joint_training_knows_which_labels_are_missing(self, longer: Experiment) -> None:
        """The first data labels circles and squares, the second squares and stars."""
        data = training_data(longer, plan_run(longer, JOINT), ())
        assert data.missing_IC is not None
        first, second = [False, False, True], [True, False, False]
        assert data.missing_IC.tolist() == [first, first, second, second]
        assert training_data(longer, plan_run(longer, JOINT, step=1), ()).missing_IC is None

    def test_replay_reaches_across_folders(self, longer: Experiment, tmp_path: Path) -> None:
        budget = Config(replay=ReplayConfig(images=100))
        plan = plan_run(longer, budget, teacher="step1")
        kept = choose_replayed(longer, plan)
        assert [(image.file_name, image.steps) for image in kept] == [("a.png", (1,)), ("b.png", (1,))]
        data = training_data(longer, plan, kept)
        assert data.missing_IC is not None
        assert data.missing_IC.any(axis=1).tolist() == [False, False, True, True]
        new = len(plan.classes) - plan.num_new
        assert data.missing_IC[2:, new:].all() and not data.missing_IC[:, :new].any()
        assert data.images == tmp_path.resolve()
        assert data.table.file_names_I.tolist()[0] == "later/new/a.png"

        second = (
            longer.read().run("step2").model_copy(update={"replayed": kept, "skipped_images": ("data/first/b.png",)})
        )
        longer.put_run(second)
        with add_step(second_data(tmp_path / "third"), experiment=longer.folder, teacher="step2"):
            third = choose_replayed(longer, plan_run(longer, budget, teacher="step2"))
        names = [(image.file_name, image.steps) for image in third]
        assert names == [("a.png", (2,)), ("b.png", (2,)), ("a.png", (1,))], "what was not loaded was not kept"
        assert resumed_replay(longer, second) == kept
        (tmp_path / "data" / "first" / "a.png").write_bytes(b"other")
        with pytest.raises(CheckpointError, match=r"a\.png: the image was changed since run 'step2' replayed it"):
            resumed_replay(longer, second)

    def test_the_same_data_adds_nothing(self, longer: Experiment, tmp_path: Path) -> None:
        again = data_source(tmp_path / "later" / "new.json", tmp_path / "later" / "newval.json")
        before = content_of(longer.folder)
        with add_step(again, experiment=longer.folder, teacher="step1") as added:
            assert added.number == 2
        with pytest.raises(KeyboardInterrupt), add_step(again, experiment=longer.folder, teacher="step1"):
            raise KeyboardInterrupt
        assert content_of(longer.folder) == before

    def test_other_data_for_a_step_that_is_trained(self, longer: Experiment, tmp_path: Path) -> None:
        other = data_source(write_data(tmp_path / "other", "new", {"a.png": ["moon"]}))
        expected = (
            "has a step 2 from other data already (runs: step2)",
            "a new folder as `experiment`",
            "ends of the chain: step2",
        )
        with refused(longer, ConfigError, *expected), add_step(other, experiment=longer.folder, teacher="step1"):
            pass

    def test_another_spelling(self, longer: Experiment, tmp_path: Path) -> None:
        other = data_source(write_data(tmp_path / "other", "new", {"a.png": ["Star"]}))
        expected = "new.json: class 'Star' differs from the known class 'star'"
        with refused(longer, DataError, expected), add_step(other, experiment=longer.folder, teacher="step2"):
            pass

    def test_more_data_without_a_new_class(self, longer: Experiment, tmp_path: Path) -> None:
        more = data_source(write_data(tmp_path / "more", "more", {"a.png": ["circle"]}))
        with add_step(more, experiment=longer.folder, teacher="step2"):
            begin_run(longer, "step3", 3, "step2")
        step = longer.read().steps[2]
        assert (step.classes, step.extended_classes, step.val) == ((), ("circle",), None)
        assert longer.read().validation_steps(3) == (1, 2)
        with add_step(second_data(tmp_path / "last"), experiment=longer.folder, teacher="step3"):
            plan = plan_run(longer, Config(), teacher="step3")
            assert (plan.step, plan.num_new, len(plan.classes)) == (4, 0, 3)
            frozen = Config(method=MethodConfig(name="frozen-branch"))
            with pytest.raises(ConfigError, match="frozen-branch: step 4 has no new class"):
                plan_run(longer, frozen, teacher="step3")

    def test_two_commands_at_once(self, longer: Experiment, tmp_path: Path) -> None:
        first, second = second_data(tmp_path / "x"), second_data(tmp_path / "y", "other")
        with add_step(first, experiment=longer.folder, teacher="step2"):
            begin_run(longer, "step3", 3, "step2")
            with (
                refused(longer, ConfigError, "has a step 3 from other data already"),
                add_step(second, experiment=longer.folder, teacher="step2"),
            ):
                pass


def test_validation_images_of_several_steps_are_evaluated_once(chain: Experiment, tmp_path: Path) -> None:
    """The second month labels the images of the first once more, with stars and squares, and one of its own."""
    val = write_data(tmp_path / "data", "starval", {"x.png": ["star", "square"], "own.png": ["star"]})
    shutil.copy(tmp_path / "data" / "firstval" / "a.png", tmp_path / "data" / "starval" / "x.png")
    source = data_source(write_data(tmp_path / "data", "new", {"a.png": ["star"]}), val)
    with add_step(source, experiment=chain.folder, teacher="step1"):
        begin_run(chain, "step2", 2, "step1")
    saved = tmp_path / "found.json"
    config = EvaluationConfig()
    report = evaluate_weights(chain, chain.weights_path("step2"), config, device="cpu", save_detections=saved)
    truth = read_coco(tmp_path / "found.ground-truth.json")
    assert (truth.num_images, truth.num_boxes) == (report.images, report.boxes) == (2, 4)
    assert {entry["image_id"] for entry in json.loads(saved.read_text())} <= set(truth.image_ids_I.tolist())
    measured = {entry.name: (entry.images, entry.boxes) for entry in report.per_class}
    assert measured == {"circle": (1, 1), "square": (2, 1), "star": (2, 2)}
    before = evaluate_weights(chain, chain.weights_path("step1"), EvaluationConfig(), device="cpu")
    assert (before.images, before.boxes) == (1, 2)
    assert report.groups["step1"].boxes == before.groups["step1"].boxes


@pytest.mark.parametrize("write", [as_yolo, as_voc])
def test_other_formats_become_coco_files(shapes_dataset: DatasetSource, tmp_path: Path, write: object) -> None:
    folder = write(shapes_dataset, tmp_path / "data")  # type: ignore[operator]
    with add_step(resolve_dataset(str(folder)), experiment=tmp_path / "chain") as added:
        step = added.experiment.read().steps[0]
        assert step.data is not None and step.data.val is not None
        assert step.data.train.annotations == step.train and step.data.val.annotations == step.val
        assert step.data.train.converted_from is not None and step.data.train.converted_sha256 is not None
        check_files(added.experiment, 1)
        assert read_coco(added.experiment.read().train_file(1).locate(added.experiment.folder)).num_images == 24
    assert set(step.classes) == {category.name for category in read_coco(shapes_dataset.train.annotations).categories}
