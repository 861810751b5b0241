"""The experiment's folder: finding it, changing it safely, and trusting only files that did not change."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from ciod_core.classes import class_table
from ciod_core.errors import CheckpointError, CiodError, ConfigError
from ciod_core.experiment import folder as experiment_module
from ciod_core.experiment.folder import Experiment, check_run_name, run_name
from ciod_core.files import sha256_of_file
from tests.helpers.experiments import check_files, make_experiment, make_run


class TestFind:
    def test_explicit_wins_over_the_folder_one_stands_in(self, tmp_path: Path) -> None:
        make_experiment(tmp_path / "here")
        make_experiment(tmp_path / "there")
        assert Experiment.find(tmp_path / "there", cwd=tmp_path / "here").folder == tmp_path / "there"

    def test_the_manifest_itself_may_be_passed(self, tmp_path: Path) -> None:
        experiment = make_experiment(tmp_path / "here")
        assert Experiment.find(experiment.manifest_path).folder == tmp_path / "here"

    def test_nearest_folder_upwards_comes_before_the_teacher(self, tmp_path: Path) -> None:
        make_experiment(tmp_path / "here")
        make_experiment(tmp_path / "there")
        below = tmp_path / "here" / "a" / "b"
        below.mkdir(parents=True)
        found = Experiment.find(teacher=tmp_path / "there" / "step1.safetensors", cwd=below)
        assert found.folder.resolve() == (tmp_path / "here").resolve()

    def test_teachers_folder_is_the_last_resort(self, tmp_path: Path) -> None:
        make_experiment(tmp_path / "there")
        (tmp_path / "nowhere").mkdir()
        found = Experiment.find(teacher=tmp_path / "there" / "step1.safetensors", cwd=tmp_path / "nowhere")
        assert found.folder == tmp_path / "there"

    def test_never_a_folder_below(self, tmp_path: Path) -> None:
        make_experiment(tmp_path / "below")
        with pytest.raises(ConfigError, match="`experiment`"):
            Experiment.find(cwd=tmp_path)

    def test_explicit_folder_without_manifest(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"experiment\.json is missing"):
            Experiment.find(tmp_path, cwd=tmp_path)


class TestUpdate:
    def test_concurrent_updates_all_arrive(self, tmp_path: Path) -> None:
        experiment = make_experiment(tmp_path)
        template = make_run(experiment, "template", 1, status="running")

        def add(worker: int) -> None:
            for number in range(5):
                Experiment(tmp_path).put_run(template.model_copy(update={"name": f"run-{worker}-{number}"}))

        threads = [threading.Thread(target=add, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(experiment.read().runs) == 21

    def test_a_failing_change_leaves_the_manifest(self, tmp_path: Path) -> None:
        experiment = make_experiment(tmp_path)
        before = experiment.manifest_path.read_bytes()
        with pytest.raises(ZeroDivisionError):
            experiment.update(lambda manifest: manifest.model_copy(update={"created": str(1 // 0)}))
        assert experiment.manifest_path.read_bytes() == before

    def test_a_held_lock_ends_in_a_message(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        experiment = make_experiment(tmp_path)
        monkeypatch.setattr(experiment_module, "_LOCK_SECONDS", 0.05)
        with (
            FileLock(tmp_path / experiment_module.LOCK_NAME),
            pytest.raises(CiodError, match="another ciod process"),
        ):
            experiment.update(lambda manifest: manifest)


class TestRuns:
    def test_unknown_run_lists_the_known(self, tmp_path: Path) -> None:
        experiment = make_experiment(tmp_path)
        make_run(experiment, "step1", 1)
        with pytest.raises(ConfigError, match="no run 'step3'; runs: step1"):
            experiment.read().run("step3")

    def test_leaves_are_the_ends_of_the_tree(self, tmp_path: Path) -> None:
        experiment = make_experiment(tmp_path)
        make_run(experiment, "step1", 1)
        make_run(experiment, "joint2", 2, method="joint")
        assert [run.name for run in experiment.read().leaf_runs()] == ["step1"]
        make_run(experiment, "step2", 2, parent="step1")
        make_run(experiment, "step2-finetune", 2, parent="step1", method="finetune")
        make_run(experiment, "step2-broken", 2, parent="step1", status="failed")
        assert [run.name for run in experiment.read().leaf_runs()] == ["step2", "step2-finetune"]

    def test_an_unfinished_child_does_not_hide_its_parent(self, tmp_path: Path) -> None:
        experiment = make_experiment(tmp_path)
        make_run(experiment, "step1", 1)
        make_run(experiment, "step2", 2, parent="step1", status="interrupted")
        assert [run.name for run in experiment.read().leaf_runs()] == ["step1"]

    def test_path_to_starts_at_the_root(self, tmp_path: Path) -> None:
        experiment = make_experiment(tmp_path)
        make_run(experiment, "step1", 1)
        make_run(experiment, "step2", 2, parent="step1")
        assert [run.name for run in experiment.read().path_to("step2")] == ["step1", "step2"]

    def test_a_circle_of_parents_is_refused(self, tmp_path: Path) -> None:
        experiment = make_experiment(tmp_path)
        make_run(experiment, "a", 1, parent="b")
        make_run(experiment, "b", 2, parent="a")
        with pytest.raises(CheckpointError, match="parent"):
            experiment.read().path_to("a")

    def test_no_such_step(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="steps 1 to 2"):
            make_experiment(tmp_path).read().step(3)


class TestTeacher:
    def test_by_name_and_by_path(self, tmp_path: Path) -> None:
        experiment = make_experiment(tmp_path)
        make_run(experiment, "step1", 1)
        weights = tmp_path / "step1.safetensors"
        by_name, by_path = experiment.resolve_teacher("step1"), experiment.resolve_teacher(weights)
        assert by_name == by_path
        assert by_name.path.samefile(weights)
        assert by_name.sha256 == sha256_of_file(weights)
        assert by_name.run is not None
        assert by_name.run.name == "step1"

    def test_changed_weights_are_refused(self, tmp_path: Path) -> None:
        experiment = make_experiment(tmp_path)
        make_run(experiment, "step1", 1)
        # The same length: only the hash can tell.
        (tmp_path / "step1.safetensors").write_text("step9")
        with pytest.raises(CheckpointError, match="was changed since run 'step1' wrote it"):
            experiment.resolve_teacher(tmp_path / "step1.safetensors")

    def test_missing_weights_of_a_finished_run(self, tmp_path: Path) -> None:
        experiment = make_experiment(tmp_path)
        make_run(experiment, "step1", 1)
        (tmp_path / "step1.safetensors").unlink()
        with pytest.raises(CheckpointError, match="missing"):
            experiment.resolve_teacher("step1")

    def test_an_unfinished_run_teaches_nobody(self, tmp_path: Path) -> None:
        experiment = make_experiment(tmp_path)
        make_run(experiment, "step1", 1, status="interrupted")
        with pytest.raises(CheckpointError, match="interrupted"):
            experiment.resolve_teacher("step1")

    def test_a_foreign_file_has_no_run(self, tmp_path: Path) -> None:
        experiment = make_experiment(tmp_path / "experiment")
        foreign = tmp_path / "other.safetensors"
        foreign.write_text("weights")
        teacher = experiment.resolve_teacher(foreign)
        assert teacher.run is None
        assert teacher.sha256 == sha256_of_file(foreign)

    def test_neither_file_nor_run(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no such weights file, and no run"):
            make_experiment(tmp_path).resolve_teacher("stepp1")

    def test_classes_must_be_the_first_of_the_experiment(self, tmp_path: Path) -> None:
        classes = make_experiment(tmp_path).read().classes
        class_table([[("circle", 1), ("square", 2)]]).require_prefix_of(classes, where="step1")
        with pytest.raises(CheckpointError, match="its class 1 is 'square'"):
            class_table([[("square", 2), ("circle", 1)]]).require_prefix_of(classes, where="step1")


class TestStepFiles:
    def test_untouched_files_pass(self, tmp_path: Path) -> None:
        check_files(make_experiment(tmp_path), 2)

    @pytest.mark.parametrize("half", ["train", "val"])
    def test_an_edited_file_is_refused(self, tmp_path: Path, half: str) -> None:
        experiment = make_experiment(tmp_path)
        path = tmp_path / "splits" / f"step2.{half}.json"
        path.write_text(path.read_text().replace("2", "3", 1))
        with pytest.raises(CheckpointError, match=rf"step2\.{half}\.json: the file was changed since the split"):
            check_files(experiment, 2)
        check_files(experiment, 1)

    def test_a_moved_experiment_still_works(self, tmp_path: Path) -> None:
        make_experiment(tmp_path / "before")
        (tmp_path / "before").rename(tmp_path / "after")
        moved = Experiment.open(tmp_path / "after")
        check_files(moved, 1)
        assert json.loads(moved.read().train_file(1).locate(moved.folder).read_text()) == {"step": 1, "half": "train"}


def test_default_run_names() -> None:
    assert run_name(1) == "step1"
    assert run_name(1, "finetune") == "step1"
    assert run_name(2) == "step2"
    assert run_name(2, "pseudo-label") == "step2-pseudo-label"
    assert run_name(2, "joint") == "joint2"
    assert run_name(2, replay=True) == "step2-replay"
    assert run_name(2, "erd", replay=True) == "step2-erd-replay"
    assert run_name(1, "erd", replay=True) == "step1"
    assert run_name(2, "joint", replay=True) == "joint2"
    assert run_name(2, kind="joint") == "joint2"


@pytest.mark.parametrize("name", ["splits", "data", "../x", "", "a/b", "-x"])
def test_bad_run_names(name: str) -> None:
    with pytest.raises(ConfigError, match="`name`"):
        check_run_name(name)


def test_good_run_name() -> None:
    assert check_run_name("step2-seed1.b") == "step2-seed1.b"
