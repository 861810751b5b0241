"""Who may train a run: what exists is neither replaced nor continued unasked, and one process trains it at a time."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ciod_core.config.schema import recorded_config
from ciod_core.errors import ConfigError, listed
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import TRAINING_LOCK, Experiment
from ciod_core.experiment.transaction import recover
from ciod_core.files import atomic_write_text
from ciod_core.locks import HeldError, lock
from ciod_core.runs.spec import RunSpec, as_decided, find_changes, has_same_start
from ciod_core.runs.weights import BEST_KEY, LAST_KEY
from ciod_core.training.resume import remove_states

# Who holds the lock of a run; the lock itself says whether that process is still there.
PROCESS_FILE = "process.json"


@contextmanager
def claimed(experiment: Experiment, spec: RunSpec, *, resume: bool, overwrite: bool) -> Iterator[RunSpec]:
    """The run, as `claim` returns it, for this process alone.

    Raises:
        ConfigError: as `claim`; another process trains the run.
        CiodError: the file system has no locks.
    """
    tidy(experiment)
    claim(experiment, spec, resume=resume, overwrite=overwrite)
    with _alone(experiment, spec.name):
        # Again: before the lock, another process may have begun it, or even finished.
        yield claim(experiment, spec, resume=resume, overwrite=overwrite)


def tidy(experiment: Experiment) -> None:
    """Remove what killed processes left: temporary files, and copies of what finished runs have handed on."""
    recover(experiment)
    for run in experiment.read().runs:
        if run.status == "finished":
            folder = experiment.run_folder(run.name)
            remove_states(folder)
            for key in (LAST_KEY, BEST_KEY):
                if key not in run.outputs:
                    (folder / f"{key}.safetensors").unlink(missing_ok=True)


@contextmanager
def _alone(experiment: Experiment, name: str) -> Iterator[None]:
    folder = experiment.run_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    process = folder / PROCESS_FILE
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(folder / TRAINING_LOCK))
        except HeldError:
            raise ConfigError(
                f"run '{name}' is being trained{_by_whom(process)}; wait until it ends, or pass another `name`"
            ) from None
        try:
            since = datetime.now(UTC).isoformat(timespec="seconds")
            atomic_write_text(process, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
            yield
        finally:
            with suppress(OSError):  # the folder may have gone
                process.unlink(missing_ok=True)
            _remove_if_unused(folder)


def _by_whom(process: Path) -> str:
    try:
        found = json.loads(process.read_text())
        return f" by process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _remove_if_unused(folder: Path) -> None:
    """Remove the folder of a run that was refused before it left anything there."""
    with suppress(OSError):
        if [path.name for path in folder.iterdir()] == [TRAINING_LOCK]:
            (folder / TRAINING_LOCK).unlink()
            folder.rmdir()


def claim(experiment: Experiment, spec: RunSpec, *, resume: bool, overwrite: bool) -> RunSpec:
    """Make sure that the run may be trained now; a resumed run gets the settings that it began with.

    A run to be resumed need not have begun: when it was interrupted, perhaps it had not.

    Raises:
        ConfigError: it exists and is to be neither resumed nor replaced, others build on it, or it cannot be resumed,
            for example because a setting or the teacher differs from what it began with; it is to be evaluated during
            training, and there is nothing to evaluate on.
    """
    manifest, name = experiment.read(), spec.name
    record = manifest.find_run(name)
    if resume and overwrite:
        raise ConfigError("`resume` and `overwrite` exclude each other; pass one of them")
    if resume and record is not None and record.status == "finished":
        raise ConfigError(f"`resume`: run '{name}' is finished; {_remedies(experiment, record)}")
    if record is not None and record.kind == "imported" and overwrite:
        raise ConfigError(f"`overwrite`: '{name}' is what this experiment began with; pass another `name`")
    if record is None and not overwrite and experiment.weights_path(name).exists():
        raise ConfigError(
            f"{experiment.weights_path(name)}: exists and was not written by this experiment; pass "
            "another `name`, or `overwrite` (to continue from these weights, pass them as `teacher`)"
        )
    if record is not None and not (resume or overwrite):
        raise ConfigError(f"run '{name}' exists already ({record.status}); {_remedies(experiment, record)}")
    children = manifest.children_of(name)
    if overwrite and children:
        raise ConfigError(f"`overwrite`: run '{name}' is the teacher of {listed(children)}; pass another `name`")
    spec = _resumed(spec, record) if resume and record else spec
    every = spec.config.training.evaluate_every
    if every and not manifest.validation_steps(spec.step):
        raise ConfigError(
            f"`training.evaluate_every` {every}: no validation image labels a class of this run; leave it out, or add "
            "a step whose data has validation images (`val`)"
        )
    return spec


def _remedies(experiment: Experiment, record: RunRecord) -> str:
    """What can be done about a run that exists, in words."""
    remedies = ["another `name`"]
    if record.kind != "imported" and not experiment.read().children_of(record.name):
        remedies.insert(0, "`overwrite` to replace it")
    if record.status != "finished":
        ended = " if it has ended" if record.status == "running" else ""
        remedies.insert(0, f"`resume` to continue it{ended}")
    *others, last = remedies
    return f"pass {', '.join(others)}{' or ' if others else ''}{last}"


def _resumed(spec: RunSpec, record: RunRecord) -> RunSpec:
    if not has_same_start(record, spec):
        start = f"`model.init` than {spec.init}" if spec.teacher is None else f"teacher than {spec.teacher.path}"
        raise ConfigError(f"`resume`: run '{record.name}' began with another {start}; pass that one")
    given, began = as_decided(spec.config, record), recorded_config(record.config)
    keys = [(name, field) for name in given.model_fields_set for field in getattr(given, name).model_fields_set]
    changes = find_changes(record, given, keys)
    if changes:
        named = ", ".join(f"{change.key} is {change.now}, the run began with {change.before}" for change in changes)
        raise ConfigError(f"`resume`: {named}; leave {'it' if len(changes) == 1 else 'them'} out")
    data: dict[str, object] = {"workers": given.data.workers}
    if "corrupt_images" in given.data.model_fields_set:
        data["corrupt_images"] = given.data.corrupt_images
    config = began.model_copy(
        update={
            "training": began.training.model_copy(update={"device": given.training.device}),
            "data": began.data.model_copy(update=data),
        }
    )
    return replace(spec, config=config, begun=record, choice=record.choice, inherited=record.inherited)
