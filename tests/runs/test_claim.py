"""One process trains a run; whoever comes second changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from ciod_core.errors import CiodError, ConfigError
from ciod_core.experiment.folder import TRAINING_LOCK, Experiment
from ciod_core.runs.claim import PROCESS_FILE, claimed
from ciod_core.runs.spec import RunSpec, plan_run
from tests.helpers.experiments import make_experiment, make_run
from tests.runs.test_train import config


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return make_experiment(tmp_path / "experiment")


@pytest.fixture
def spec(experiment: Experiment) -> RunSpec:
    """Step 1."""
    return plan_run(experiment, config("finetune"))


def claim_it(experiment: Experiment, spec: RunSpec, *, overwrite: bool = False) -> RunSpec:
    with claimed(experiment, spec, resume=False, overwrite=overwrite) as mine:
        return mine


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_is_being_trained_is_refused(overwrite: bool, experiment: Experiment, spec: RunSpec) -> None:
    if overwrite:
        make_run(experiment, "step1", 1, status="running")
    with claimed(experiment, spec, resume=False, overwrite=overwrite):
        before = {path: path.read_bytes() for path in experiment.folder.rglob("*") if path.is_file()}
        with pytest.raises(ConfigError, match=r"^run 'step1' is being trained by process \d+ on .+ since 20"):
            claim_it(experiment, spec, overwrite=overwrite)
        assert {path: path.read_bytes() for path in experiment.folder.rglob("*") if path.is_file()} == before


def test_the_lock_ends_with_the_training(experiment: Experiment, spec: RunSpec) -> None:
    folder = experiment.run_folder("step1")
    with claimed(experiment, spec, resume=False, overwrite=False):
        assert not experiment.was_killed(make_run(experiment, "step1", 1, status="running"))
        assert json.loads((folder / PROCESS_FILE).read_text()).keys() == {"pid", "host", "since"}
        (folder / "config.yaml").write_text("")
    assert experiment.was_killed(experiment.read().run("step1"))
    assert {path.name for path in folder.iterdir()} == {TRAINING_LOCK, "config.yaml"}


def test_a_run_that_fails_at_once_leaves_nothing(experiment: Experiment, spec: RunSpec) -> None:
    with pytest.raises(RuntimeError), claimed(experiment, spec, resume=False, overwrite=False):
        raise RuntimeError
    assert not experiment.run_folder("step1").exists()


def test_what_another_process_finished_meanwhile_is_seen(experiment: Experiment, spec: RunSpec) -> None:
    """It held the lock between the first look and this one."""

    class Meanwhile(FileLock):
        def acquire(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            make_run(experiment, "step1", 1)
            return super().acquire(timeout=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ciod_core.runs.claim.FileLock", Meanwhile)
        with pytest.raises(ConfigError, match=r"run 'step1' exists already \(finished\)"):
            claim_it(experiment, spec)


def test_a_file_system_without_locks(experiment: Experiment, spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise NotImplementedError("no locks")

    monkeypatch.setattr("ciod_core.runs.claim.FileLock.acquire", refuse)
    with pytest.raises(CiodError, match=r"has no locks, which keep two processes .* put the experiment on another one"):
        claim_it(experiment, spec)
