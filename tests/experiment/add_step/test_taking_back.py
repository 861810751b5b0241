"""A step that is added is taken back where no run began on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciod_core.errors import ConfigError
from ciod_core.experiment.add_step import add_step
from ciod_core.experiment.folder import Experiment
from tests.helpers.chains import begin_run, content_of, data_source, refused, second_data, write_data
from tests.helpers.experiments import check_files


def test_a_step_goes_when_no_run_began(chain: Experiment, tmp_path: Path) -> None:
    before = content_of(chain.folder)
    source = second_data(tmp_path / "later")
    with pytest.raises(ConfigError), add_step(source, experiment=chain.folder, teacher="step1"):
        assert len(chain.read().steps) == 2
        raise ConfigError("a wrong flag")
    assert content_of(chain.folder) == before


def test_it_stays_when_a_run_began(chain: Experiment, tmp_path: Path) -> None:
    source = second_data(tmp_path / "later")
    with pytest.raises(KeyboardInterrupt), add_step(source, experiment=chain.folder, teacher="step1"):
        begin_run(chain, "step2", 2, "step1")
        raise KeyboardInterrupt
    assert chain.read().classes.names == ("circle", "square", "star")
    check_files(chain, 2)


def test_other_data_in_place_of_a_step_that_no_run_trained_on(chain: Experiment, tmp_path: Path) -> None:
    with add_step(second_data(tmp_path / "wrong"), experiment=chain.folder, teacher="step1"):
        pass
    right = data_source(write_data(tmp_path / "right", "new", {"a.png": ["moon"]}))
    with add_step(right, experiment=chain.folder, teacher="step1"):
        pass
    assert chain.read().classes.names == ("circle", "square", "moon")
    check_files(chain, 2)
    assert len(list((chain.folder / "splits").iterdir())) == 3, "no file of the step before stays"


def test_overwriting_the_only_run_of_a_step(chain: Experiment, tmp_path: Path) -> None:
    with add_step(second_data(tmp_path / "wrong"), experiment=chain.folder, teacher="step1"):
        begin_run(chain, "step2", 2, "step1")
    right = data_source(write_data(tmp_path / "right", "new", {"a.png": ["moon"]}))
    before = content_of(chain.folder)
    with (
        pytest.raises(KeyboardInterrupt),
        add_step(right, experiment=chain.folder, teacher="step1", overwrites=lambda step: f"step{step}"),
    ):
        assert chain.read().classes.names[-1] == "moon"
        raise KeyboardInterrupt
    assert content_of(chain.folder) == before, "the run that was to be overwritten has its data again"
    with add_step(right, experiment=chain.folder, teacher="step1", overwrites=lambda step: f"step{step}"):
        begin_run(chain, "step2", 2, "step1")
    assert chain.read().classes.names[-1] == "moon"
    check_files(chain, 2)
    assert len(list((chain.folder / "splits").iterdir())) == 3
    with (
        refused(chain, ConfigError, "from other data already (runs: step2)"),
        add_step(
            second_data(tmp_path / "third"),
            experiment=chain.folder,
            teacher="step1",
            overwrites=lambda step: "mine",
        ),
    ):
        pass


def test_a_manifest_that_cannot_be_written(chain: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    before = content_of(chain.folder)
    source = second_data(tmp_path / "later")
    monkeypatch.setattr("ciod_core.experiment.folder.atomic_write_text", full_disk)
    with (
        pytest.raises(OSError, match="No space left"),
        add_step(source, experiment=chain.folder, teacher="step1"),
    ):
        pass
    assert content_of(chain.folder) == before
