"""Joint training on datasets that are added for it, when it ends early."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from ciod_core.experiment.add_step import add_step
from ciod_core.experiment.folder import Experiment
from ciod_core.runs.train import train_step
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
