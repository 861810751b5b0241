"""What a run is, and every reason to refuse one before anything is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ciod_core.classes import ClassTable, class_table
from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import Config, DataConfig, MethodConfig, ModelConfig, TrainingConfig
from ciod_core.errors import CheckpointError, CiodError, ConfigError
from ciod_core.experiment import step_data
from ciod_core.experiment.entries import FileRecord
from ciod_core.experiment.folder import STATE_FILE, WEIGHTS_KEY, Experiment
from ciod_core.files import sha256_of_file
from ciod_core.model.checkpoint import CheckpointInfo, Source, save_detector
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.runs.claim import claim
from ciod_core.runs.inherited import INHERITED, describe_inherited
from ciod_core.runs.spec import PRETRAINED_LR, RunSpec, find_changes, on_device, plan_run, settle
from ciod_core.runs.train import train_step, training_table
from tests.helpers.experiments import make_experiment, make_run
from tests.helpers.networks import lively_detector

MODEL = ModelConfig(name="yolox-nano", backbone_weights="none")


def config(method: str = "crs-ckd", **sections: Any) -> Config:
    given: dict[str, Any] = {"model": MODEL, "training": TrainingConfig(device="cpu")} | sections
    return Config(method=MethodConfig(name=method), **given)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Two steps, circle and square | star, and no run."""
    return make_experiment(tmp_path / "experiment")


def write_weights(path: Path, classes: ClassTable, run: str = "step1", source: Source | None = None) -> None:
    info = CheckpointInfo(
        model=MODEL,
        classes=classes,
        preprocessing=Preprocessing(image_size=96),
        run=run,
        step=classes.last_step,
        method="base",
        parent_sha256=None,
        source=source,
    )
    save_detector(path, lively_detector(MODEL.name, len(classes)).state_dict(), info)


def add_teacher(experiment: Experiment, name: str = "step1", step: int = 1) -> Path:
    """A finished run with real weights that knows the classes of the steps so far."""
    record = make_run(experiment, name, step)
    path = experiment.weights_path(name)
    write_weights(path, experiment.read().classes.up_to(step), name)
    outputs = {WEIGHTS_KEY: FileRecord.of(path, experiment.folder)}
    experiment.put_run(record.model_copy(update={"outputs": outputs}))
    return path


def content(folder: Path) -> dict[str, str]:
    return {str(path): sha256_of_file(path) for path in folder.rglob("*") if path.is_file()}


def refused(experiment: Experiment, kind: type[CiodError], **arguments: Any) -> str:
    """The one line of the refusal; nothing in the experiment has changed."""
    before = content(experiment.folder)
    asked = arguments.pop("config", config())
    with pytest.raises(kind) as caught:
        train_step(experiment, asked, **arguments)
    after = {path: digest for path, digest in content(experiment.folder).items() if not path.endswith(".lock")}
    assert after == {path: digest for path, digest in before.items() if not path.endswith(".lock")}
    message = str(caught.value)
    assert "\n" not in message and len(message) > 20
    return message


class TestExistingRuns:
    @pytest.mark.parametrize("status", ["finished", "failed", "interrupted", "running"])
    @pytest.mark.parametrize("has_state", [False, True])
    @pytest.mark.parametrize("is_teacher", [False, True])
    def test_a_run_that_exists_is_not_touched(
        self, experiment: Experiment, status: str, has_state: bool, is_teacher: bool
    ) -> None:
        """The message offers what can be done, and nothing else."""
        make_run(experiment, "step1", 1, status=status)
        # A finished run has none, unless it was killed at the very end; that is tidied away.
        if has_state and status != "finished":
            state = experiment.run_folder("step1") / STATE_FILE
            state.parent.mkdir(parents=True)
            state.touch()
        if is_teacher:
            make_run(experiment, "step2", 2, parent="step1")
        message = refused(experiment, ConfigError)
        assert f"'step1' exists already ({status})" in message
        assert ("`resume` to continue it" in message) == (status != "finished")
        assert ("`overwrite` to replace it" in message) == (not is_teacher)
        assert message.endswith("another `name`")

    def test_a_finished_run_is_not_resumed(self, experiment: Experiment) -> None:
        make_run(experiment, "step1", 1)
        message = refused(experiment, ConfigError, resume=True)
        assert "'step1' is finished; pass `overwrite` to replace it or another `name`" in message

    def test_a_precision_that_was_decided_automatically_is_no_change(self, experiment: Experiment) -> None:
        decided, device = on_device(plan_run(experiment, config()))
        assert (decided.config.training.precision, device.type) == ("fp32", "cpu")
        record = make_run(experiment, "step1", 1, status="interrupted")
        key = ("training", "precision")
        for used in ("fp32", "bf16"):
            training = TrainingConfig(precision=used)
            begun = record.model_copy(update={"config": config(training=training).model_dump(mode="json")})
            assert not find_changes(begun, config(), [key])
            assert find_changes(begun, config(training=TrainingConfig(precision="fp16")), [key])

    def test_resume_and_overwrite_exclude_each_other(self, experiment: Experiment) -> None:
        make_run(experiment, "step1", 1, status="interrupted")
        assert "exclude each other" in refused(experiment, ConfigError, resume=True, overwrite=True)

    @pytest.mark.parametrize("child_status", ["finished", "interrupted"])
    def test_a_run_that_taught_others_is_not_overwritten(self, experiment: Experiment, child_status: str) -> None:
        make_run(experiment, "step1", 1)
        make_run(experiment, "step2", 2, parent="step1", status=child_status)
        make_run(experiment, "step2-finetune", 2, parent="step1", method="finetune", status=child_status)
        message = refused(experiment, ConfigError, overwrite=True)
        assert "teacher of step2, step2-finetune" in message

    @pytest.mark.parametrize("name", ["splits", "../up", "a/b", "", ".hidden", "with space"])
    def test_names_that_are_no_names(self, experiment: Experiment, name: str) -> None:
        if name:
            assert "`name`" in refused(experiment, ConfigError, run=name)
        else:
            assert plan_run(experiment, config(), run=name).name == "step1"


class TestTeachers:
    def test_classes_of_another_experiment(self, experiment: Experiment, tmp_path: Path) -> None:
        other = tmp_path / "other.safetensors"
        write_weights(other, class_table([[("cat", 1), ("dog", 2)]]))
        message = refused(experiment, CheckpointError, teacher=other)
        assert "class 1 is 'cat'" in message and "'circle'" in message and str(other) in message

    def test_the_same_classes_in_another_order(self, experiment: Experiment, tmp_path: Path) -> None:
        write_weights(tmp_path / "swapped.safetensors", class_table([[("square", 2), ("circle", 1)]]))
        assert "class 1 is 'square'" in refused(experiment, CheckpointError, teacher=tmp_path / "swapped.safetensors")

    def test_classes_cut_into_other_steps(self, experiment: Experiment, tmp_path: Path) -> None:
        write_weights(tmp_path / "half.safetensors", class_table([[("circle", 1)]]))
        message = refused(experiment, ConfigError, teacher=tmp_path / "half.safetensors")
        assert "knows 1 of the plan's 3 classes" in message

    def test_a_teacher_of_the_last_step_has_nothing_to_teach(self, experiment: Experiment) -> None:
        add_teacher(experiment)
        add_teacher(experiment, "step2", 2)
        assert "knows 3 of the plan's 3 classes" in refused(experiment, ConfigError, teacher="step2")

    @pytest.mark.parametrize("by", ["name", "path"])
    def test_weights_that_changed_on_disk(self, experiment: Experiment, by: str) -> None:
        path = add_teacher(experiment)
        changed = bytearray(path.read_bytes())
        changed[-1] ^= 1
        path.write_bytes(bytes(changed))
        message = refused(experiment, CheckpointError, teacher="step1" if by == "name" else path)
        assert "was changed since run 'step1' wrote it" in message and str(path) in message

    def test_weights_that_went_missing(self, experiment: Experiment) -> None:
        add_teacher(experiment).unlink()
        assert "missing" in refused(experiment, CheckpointError, teacher="step1")

    def test_a_run_without_weights(self, experiment: Experiment) -> None:
        make_run(experiment, "step1", 1, status="interrupted")
        assert "has no weights yet (it is interrupted)" in refused(experiment, CheckpointError, teacher="step1")

    def test_neither_a_run_nor_a_file(self, experiment: Experiment) -> None:
        assert "no such weights file" in refused(experiment, ConfigError, teacher="step7")

    def test_a_file_that_is_no_checkpoint(self, experiment: Experiment, tmp_path: Path) -> None:
        (tmp_path / "weights.safetensors").write_bytes(b"something else entirely")
        refused(experiment, CheckpointError, teacher=tmp_path / "weights.safetensors")

    def test_another_architecture_than_the_teachers(self, experiment: Experiment) -> None:
        add_teacher(experiment)
        asked = config(model=ModelConfig(name="yolox-s"))
        message = refused(experiment, ConfigError, teacher="step1", config=asked)
        assert "`model.name` yolox-s" in message and "yolox-nano" in message

    def test_settings_come_from_the_teacher_where_nothing_else_was_asked(self, experiment: Experiment) -> None:
        add_teacher(experiment)
        plan = plan_run(experiment, config(), teacher="step1")
        settled = settle(replace(plan, config=Config())).config
        assert settled.model == MODEL
        assert settled.data.image_size == 96
        asked = config(model=ModelConfig(name="yolox-nano"), data=DataConfig(image_size=128))
        assert settle(replace(plan, config=asked)).config.model == MODEL
        assert settle(replace(plan, config=asked)).config.data.image_size == 128


class TestSettingsOfTheTeachersRun:
    THEIRS: ClassVar[dict[str, Any]] = {
        "batch_size": 4, "epochs": 24, "optimizer": "sgd", "lr": 0.02, "evaluate_every": 3, "seed": 7,
    }  # fmt: skip

    def settled(self, experiment: Experiment, method: str = "finetune", **training: Any) -> RunSpec:
        plan = plan_run(experiment, config(method, training=TrainingConfig(**training)), teacher="step1")
        return settle(plan)

    def teach(self, experiment: Experiment, source: Source | None = None, **fields: Any) -> None:
        path = add_teacher(experiment)
        write_weights(path, experiment.read().classes.up_to(1), source=source)
        recorded = {"training": self.THEIRS, "data": {"multi_scale": False}, "gone": {"away": 1}}
        outputs = {WEIGHTS_KEY: FileRecord.of(path, experiment.folder)}
        update = {"config": recorded, "outputs": outputs} | fields
        experiment.put_run(experiment.read().run("step1").model_copy(update=update))

    def test_they_are_taken_where_none_is_set(self, experiment: Experiment) -> None:
        self.teach(experiment)
        spec = self.settled(experiment)
        training = spec.config.training
        assert (training.batch_size, training.epochs, training.optimizer, training.lr) == (4, 24, "sgd", 0.02)
        assert not spec.config.data.multi_scale
        assert (training.evaluate_every, training.seed) == (0, 0)
        assert spec.inherited == tuple(INHERITED)
        assert settle(spec) == spec, "settled again when `auto` has chosen"
        assert describe_inherited(spec.config, spec.inherited, "step1") == (
            "batch size 4, 24 epochs, optimizer sgd, lr 0.02, multi-scale False as in step1; change with "
            "`training.batch_size`, `training.epochs`, `training.optimizer`, `training.lr`, `data.multi_scale`"
        )
        assert describe_inherited(Config(), ("training.optimizer",), "step1") is None

    def test_what_is_set_stays(self, experiment: Experiment) -> None:
        self.teach(experiment)
        spec = self.settled(experiment, epochs=12, lr=0.001)
        training = spec.config.training
        assert (training.batch_size, training.epochs, training.optimizer, training.lr) == (4, 12, "sgd", 0.001)
        assert spec.inherited == ("training.batch_size", "training.optimizer", "data.multi_scale")

    @pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.02), ("adamw", TrainingConfig().lr)])
    def test_a_learning_rate_is_that_of_its_optimizer(self, experiment: Experiment, optimizer: str, lr: float) -> None:
        self.teach(experiment)
        assert self.settled(experiment, optimizer=optimizer).config.training.lr == lr

    def test_a_preset_stands_above_them(self, experiment: Experiment) -> None:
        self.teach(experiment)
        preset = resolve_config("published")
        asked = preset.model_copy(update={"model": ModelConfig(), "method": MethodConfig(name="finetune")})
        spec = settle(plan_run(experiment, asked, teacher="step1"))
        assert spec.config.training == preset.training and spec.inherited == ()

    @pytest.mark.parametrize(("method", "lr"), [("crs-ckd", PRETRAINED_LR), ("finetune", TrainingConfig().lr)])
    def test_how_fast_pretrained_weights_learn_depends_on_the_method(
        self, experiment: Experiment, method: str, lr: float
    ) -> None:
        self.teach(experiment, source=Source(file="x.pth", sha256="0" * 64))
        training = self.settled(experiment, method).config.training
        assert (training.epochs, training.optimizer, training.lr) == (24, "adamw", lr)

    @pytest.mark.parametrize("kind", ["imported", "distilled"])
    def test_other_runs_have_none_for_a_step(self, experiment: Experiment, kind: str) -> None:
        self.teach(experiment, kind=kind)
        spec = self.settled(experiment)
        assert spec.inherited == () and spec.config.training == TrainingConfig()

    def test_a_resumed_run_keeps_its_own(self, experiment: Experiment) -> None:
        self.teach(experiment)
        path, method = experiment.weights_path("step1"), MethodConfig(name="finetune")
        began = Config(model=MODEL, method=method, training=TrainingConfig(epochs=5))
        teacher = FileRecord.of(path, experiment.folder)
        update = {"config": began.model_dump(mode="json"), "inputs": {"teacher": teacher}}
        record = make_run(experiment, "step2-finetune", 2, parent="step1", status="interrupted")
        experiment.put_run(record.model_copy(update=update))
        plan = plan_run(experiment, Config(method=method), teacher="step1")
        spec = settle(claim(experiment, plan, resume=True, overwrite=False))
        assert spec.config.training == TrainingConfig(epochs=5) and spec.inherited == ()

    def test_a_value_that_cannot_be(self, experiment: Experiment) -> None:
        self.teach(experiment, config={"training": {"epochs": "many"}})
        assert "training.epochs" in refused(experiment, CheckpointError, teacher="step1")


class TestJoint:
    def test_joint_training_has_no_teacher(self, experiment: Experiment) -> None:
        add_teacher(experiment)
        assert "joint training has no teacher" in refused(
            experiment, ConfigError, teacher="step1", config=config("joint")
        )

    def test_only_joint_training_takes_a_step(self, experiment: Experiment) -> None:
        assert "`step`" in refused(experiment, ConfigError, step=2)

    def test_a_step_that_the_plan_lacks(self, experiment: Experiment) -> None:
        assert "no step 3" in refused(experiment, ConfigError, step=3, config=config("joint"))

    def test_its_annotations_must_be_those_of_the_split(self, experiment: Experiment) -> None:
        """A joint run reads the dataset's own file, which is guarded like the steps' files."""
        (experiment.folder / "instances.json").write_text('{"images": [], "annotations": [], "categories": []}')
        message = refused(experiment, CheckpointError, config=config("joint"))
        assert "instances.json" in message and "changed" in message


@pytest.mark.parametrize("half", ["train", "val"])
def test_a_step_file_that_was_edited(experiment: Experiment, half: str) -> None:
    path = experiment.folder / "splits" / f"step1.{half}.json"
    path.write_text(path.read_text() + " ")
    message = refused(experiment, CheckpointError)
    assert str(path) in message and "changed since the split was made" in message


def test_a_device_that_is_not_there(experiment: Experiment) -> None:
    asked = Config(training=TrainingConfig(device="cuda:99"))
    assert "pass cpu" in refused(experiment, ConfigError, config=asked)


class TestPlans:
    def test_without_a_teacher_it_is_step_1(self, experiment: Experiment) -> None:
        plan = plan_run(experiment, config())
        assert (plan.name, plan.step, plan.kind, plan.teacher) == ("step1", 1, "step", None)
        assert plan.classes.names == ("circle", "square") and plan.num_new == 2

    @pytest.mark.parametrize(
        ("method", "name"), [("auto", "step2"), ("crs-ckd", "step2-crs-ckd"), ("finetune", "step2-finetune")]
    )
    def test_with_a_teacher_it_is_the_step_after(self, experiment: Experiment, method: str, name: str) -> None:
        path = add_teacher(experiment)
        for teacher in ("step1", path):
            plan = plan_run(experiment, config(method), teacher=teacher)
            assert (plan.name, plan.step, plan.kind, plan.num_new) == (name, 2, "step", 1)
            assert plan.classes == experiment.read().classes
            assert plan.teacher is not None and plan.teacher.sha256 == sha256_of_file(path)
            assert plan.teacher.run is not None and plan.teacher.run.name == "step1"

    def test_a_teacher_from_outside_has_no_run(self, experiment: Experiment, tmp_path: Path) -> None:
        outside = tmp_path / "elsewhere.safetensors"
        write_weights(outside, experiment.read().classes.up_to(1))
        plan = plan_run(experiment, config(), teacher=outside)
        assert plan.step == 2 and plan.teacher is not None and plan.teacher.run is None

    @pytest.mark.parametrize(("step", "name", "known"), [(None, "joint2", 3), (1, "joint1", 2), (2, "joint2", 3)])
    def test_joint_runs_cover_the_steps_up_to_theirs(
        self, experiment: Experiment, step: int | None, name: str, known: int
    ) -> None:
        plan = plan_run(experiment, config("joint"), step=step)
        assert (plan.name, plan.kind, plan.teacher, len(plan.classes)) == (name, "joint", None, known)

    def test_a_name_of_ones_own(self, experiment: Experiment) -> None:
        assert plan_run(experiment, config(), run="first-try").name == "first-try"

    def test_a_step_run_sees_its_own_file_alone(self, experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[Path] = []
        monkeypatch.setattr(step_data, "read_coco", read.append)
        add_teacher(experiment)
        training_table(experiment, plan_run(experiment, config(), teacher="step1"))
        assert read == [experiment.read().train_file(2).locate(experiment.folder)]
