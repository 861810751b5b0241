"""One process trains a run; whoever comes second changes nothing."""

from __future__ import annotations

import errno
import json
import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ciod_core.errors import CiodError, ConfigError
from ciod_core.experiment.folder import TRAINING_LOCK, Experiment
from ciod_core.locks import lock
from ciod_core.runs.claim import PROCESS_FILE, claimed
from ciod_core.runs.spec import RunSpec, plan_run
from tests.helpers.chains import content_of
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

    def meanwhile(path: Path) -> AbstractContextManager[None]:
        make_run(experiment, "step1", 1)
        return lock(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ciod_core.runs.claim.lock", meanwhile)
        with pytest.raises(ConfigError, match=r"run 'step1' exists already \(finished\)"):
            claim_it(experiment, spec)


@pytest.mark.skipif(sys.platform == "win32", reason="has other locks")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(
    number: int, experiment: Experiment, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever changes the experiment is refused, and nothing changes."""

    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    before = content_of(experiment.folder)
    monkeypatch.setattr("fcntl.flock", refuse)
    for change in (lambda: claim_it(experiment, spec), lambda: experiment.update(lambda same: same)):
        with pytest.raises(
            CiodError, match=r"has no locks, which keep two processes .*; put the experiment on another one"
        ):
            change()
    assert content_of(experiment.folder) == before
