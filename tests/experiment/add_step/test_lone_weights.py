"""A chain that begins with weights from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciod_core.classes import class_table
from ciod_core.config.schema import Config, ReplayConfig
from ciod_core.data.formats.coco import read_coco
from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.experiment.add_step import add_step
from ciod_core.experiment.folder import WEIGHTS_KEY, Experiment
from ciod_core.files import sha256_of_file
from ciod_core.runs.claim import claim
from ciod_core.runs.replay import choose_replayed
from ciod_core.runs.spec import plan_run
from ciod_core.runs.train import training_table
from tests.helpers.chains import JOINT, begin_run, content_of, refused, second_data, write_teacher

CLASSES = class_table([[("circle", 4), ("square", 2)], [("star", 0)]])


def test_an_experiment_around_them(tmp_path: Path) -> None:
    weights = write_teacher(tmp_path / "mine.safetensors", CLASSES)
    source = second_data(tmp_path / "data")
    with add_step(source, experiment=tmp_path / "chain", teacher=weights) as added:
        chain, manifest = added.experiment, added.experiment.read()
        assert added.number == 3
        assert manifest.classes == CLASSES, "the data has nothing new"
        assert [step.classes for step in manifest.steps] == [("circle", "square"), ("star",), ()]
        imported = chain.read().run("mine")
        assert (imported.kind, imported.step, imported.status, imported.seed) == ("imported", 2, "finished", None)
        assert imported.outputs[WEIGHTS_KEY].sha256 == sha256_of_file(weights)
        assert imported.config["model"]["name"] == "yolox-micro"
        for teacher in ("mine", weights):
            plan = plan_run(chain, Config(), teacher=teacher)
            assert plan.step == 3 and plan.teacher is not None and plan.teacher.run == imported
        assert [run.name for run in chain.read().leaf_runs()] == ["mine"]
        # Ids of the data come after those that the weights know.
        assert read_coco(chain.read().train_file(3).locate(chain.folder)).category_ids_N.tolist() == [0, 2, 0]
        with refused(chain, ConfigError, "step 1 was trained before this experiment began"):
            plan_run(chain, Config())
        with refused(chain, ConfigError, "step 1 was trained before"):
            training_table(chain, plan_run(chain, JOINT))
        with refused(chain, ConfigError, "step 2 was trained before"):
            budget = Config(replay=ReplayConfig(images=3))
            choose_replayed(chain, plan_run(chain, budget, teacher="mine"))
        with refused(chain, ConfigError, "'mine' is what this experiment began with"):
            claim(chain, plan_run(chain, budget, teacher="mine", run="mine"), resume=False, overwrite=True)
        begin_run(chain, "step3", 3, "mine")
    assert [run.name for run in chain.read().path_to("step3")] == ["mine", "step3"]
    # The teacher itself can be measured on the first data that labels its classes.
    assert chain.read().validation_steps(2) == (3,) == chain.read().validation_steps(3)


def test_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_teacher(tmp_path / "step2.safetensors", CLASSES)
    with add_step(second_data(tmp_path / "data"), teacher=Path("step2.safetensors")) as added:
        assert added.experiment.read().run("step2").outputs[WEIGHTS_KEY].path == "step2.safetensors"
        assert plan_run(added.experiment, Config(), teacher="step2").name == "step3"


def test_a_failure_leaves_the_weights_alone(tmp_path: Path) -> None:
    weights = write_teacher(tmp_path / "chain" / "step2.safetensors", CLASSES)
    source = second_data(tmp_path / "data")
    before = content_of(tmp_path)
    with pytest.raises(KeyboardInterrupt), add_step(source, experiment=tmp_path / "chain", teacher=weights):
        raise KeyboardInterrupt
    assert content_of(tmp_path) == before


def test_weights_that_are_none(tmp_path: Path) -> None:
    source = second_data(tmp_path / "data")
    (tmp_path / "broken.safetensors").write_text("no weights")
    for teacher, kind, expected in (
        ("step7", ConfigError, "`teacher` step7: no such file"),
        (tmp_path / "broken.safetensors", CheckpointError, "not a readable safetensors file"),
    ):
        with pytest.raises(kind, match=expected), add_step(source, experiment=tmp_path / "c", teacher=teacher):
            pass
    assert not (tmp_path / "c").exists()


def test_the_teacher_of_another_chain(chain: Experiment, tmp_path: Path) -> None:
    weights = write_teacher(tmp_path / "mine.safetensors", CLASSES)
    with (
        refused(chain, CheckpointError, "its class 3 is 'star', the experiment expects no class there"),
        add_step(second_data(tmp_path / "later"), experiment=chain.folder, teacher=weights),
    ):
        pass
