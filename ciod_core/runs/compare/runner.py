"""Training the runs of a comparison that are missing, one after the other or several at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from ciod_core.config.schema import Config, config_sections
from ciod_core.errors import CiodError, ConfigError, listed
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.locks import HeldError, lock
from ciod_core.methods.registry import reads
from ciod_core.runs.claim import tidy
from ciod_core.runs.compare.plan import JOINT, Epochs, SuiteRun, config_of
from ciod_core.runs.compare.pools import Pool, process_pool, ray_pool
from ciod_core.runs.spec import as_decided, find_changes, has_same_start, plan_run, settle
from ciod_core.runs.train import train_step
from ciod_core.runtime.failures import message_of
from ciod_core.runtime.interruption import interruption_before
from ciod_core.training.metrics_log import METRICS_FILE, last_epoch
from ciod_core.training.progress import TrainingListener

_LOCK_NAME = ".suite.lock"
_SECONDS_BETWEEN_LOOKS = 1.0

Job = tuple[SuiteRun, Config]
Outcome = tuple[SuiteRun, RunRecord | CiodError]


class Cluster(NamedTuple):
    """A Ray cluster to train on.

    Attributes:
        gpus: of each run; None: one where the cluster has any.
    """

    gpus: float | None = None


class RunProgress(NamedTuple):
    """How far a run is that trains in a process of its own.

    Attributes:
        name: of the run.
        epoch: the one it is in; 0 before its first record.
        epochs: planned.
    """

    name: str
    epoch: int
    epochs: int


class SuiteListener(Protocol):
    """Follows a comparison; every call comes from the main process."""

    def begin(self, total: int, missing: int) -> None:
        """It is known how many runs there are and how many have to be trained."""

    def finished(self, run: SuiteRun, record: RunRecord) -> None:
        """A run was trained and evaluated."""

    def failed(self, run: SuiteRun, message: str) -> None:
        """A run ended in an error; the runs that build on it are left out."""

    def running(self, runs: Sequence[RunProgress]) -> None:
        """About once a second: the runs that train side by side."""

    def training(self) -> TrainingListener:
        """Who follows a run that trains in the main process."""


def run_suite(
    experiment: Experiment,
    runs: Sequence[SuiteRun],
    config: Config,
    epochs: Epochs,
    listener: SuiteListener,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Train what is missing. A run that was interrupted goes on where it stopped.

    Args:
        experiment: where the runs belong.
        runs: every run after its teacher.
        config: settings of all runs; method, seed and epochs are set per run.
        epochs: how long runs train.
        listener: told what happens.
        jobs: runs at a time; with more than one, each trains in a process of its own. None: one, or as many as the
            cluster has room for.
        threads: of each of these processes; None shares the cores among them.
        cluster: train there, not on this machine.

    Raises:
        ConfigError: a finished run was trained with other settings, or another comparison runs in this experiment; the
            cluster cannot be used.
        CiodError: runs failed; the others were trained all the same.
    """
    try:
        with lock(experiment.folder / _LOCK_NAME):
            # Here, too: where nothing is missing, no run is claimed.
            tidy(experiment)
            queue = [(run, config_of(run, config, epochs)) for run in runs]
            queue = [(run, settings) for run, settings in queue if not is_done(experiment, run, settings)]
            listener.begin(len(runs), len(queue))
            pool: AbstractContextManager[Pool] | None = None
            if cluster is not None:
                pool = ray_pool(experiment.folder, cpus=1 + config.data.workers, gpus=cluster.gpus)
            elif jobs is not None and jobs > 1:
                pool = process_pool(jobs, threads)
            if pool is None or not queue:
                outcomes = _one_by_one(experiment.folder, queue, listener.training())
            else:
                outcomes = _side_by_side(experiment, queue, pool, jobs or len(queue), listener)
            errors = _report(outcomes, listener)
    except HeldError:
        raise ConfigError(f"{experiment.folder}: another 'ciod run' is at work there; wait for it or end it") from None
    if errors:
        name, error = next(iter(errors.items()))
        raise CiodError(f"{len(errors)} of {len(queue)} runs failed, first '{name}': {error}")


def _report(outcomes: Iterator[Outcome], listener: SuiteListener) -> dict[str, CiodError]:
    """Pass the outcomes on; return the errors by run."""
    errors: dict[str, CiodError] = {}
    for run, outcome in outcomes:
        if isinstance(outcome, CiodError):
            errors[run.name] = outcome
            listener.failed(run, str(outcome))
        else:
            listener.finished(run, outcome)
    return errors


def is_done(experiment: Experiment, run: SuiteRun, config: Config) -> bool:
    """Whether a run is finished and is what these settings would give.

    Raises:
        ConfigError: it is finished, but was trained with other settings that its method reads, or by another teacher.
    """
    record = experiment.read().find_run(run.name)
    if record is None or record.status != "finished":
        return False
    config = as_decided(config, record)
    spec = settle(plan_run(experiment, config, teacher=run.teacher, step=run.step if run.method == JOINT else None))
    # Settings that a method does not read may change: tuning one method keeps the runs of the others.
    method = config.method.name if spec.teacher else None
    keys = [
        (name, field)
        for name, kind in config_sections().items()
        for field in kind.model_fields
        if reads(method, name, field)
    ]
    changes = find_changes(record, spec.config, keys)
    if changes:
        named = listed([f"{change.key} = {change.before}, now it is {change.now}" for change in changes])
        raise ConfigError(
            f"run '{run.name}' is finished with {named}; pass what it was, or split the dataset into another experiment"
        )
    if not has_same_start(record, spec):
        start = run.teacher if spec.teacher else spec.init
        raise ConfigError(
            f"run '{run.name}' was trained with other weights than '{start}' has now; train it again with `overwrite`"
        )
    return True


def train_missing(folder: Path, run: SuiteRun, config: Config, listener: TrainingListener) -> RunRecord:
    """Train one run, from its last complete epoch where there is one."""
    experiment = Experiment.open(folder)
    begun = experiment.read().find_run(run.name)
    resume = begun is not None and experiment.has_state(run.name)
    return train_step(
        experiment,
        config,
        teacher=run.teacher,
        step=run.step if run.method == JOINT else None,
        run=run.name,
        resume=resume,
        overwrite=begun is not None and not resume,
        listener=listener,
    )


def _one_by_one(folder: Path, queue: Sequence[Job], listener: TrainingListener) -> Iterator[Outcome]:
    failed: set[str] = set()
    for run, config in queue:
        if run.teacher not in failed:
            outcome = _attempt(folder, run, config, listener)
            yield run, outcome
        if run.teacher in failed or isinstance(outcome, CiodError):
            failed.add(run.name)


def _side_by_side(
    experiment: Experiment,
    queue: Sequence[Job],
    place: AbstractContextManager[Pool],
    jobs: int,
    listener: SuiteListener,
) -> Iterator[Outcome]:
    """Start runs as soon as their teachers are there, never more than `jobs` at a time."""
    waiting, failed = list(queue), set[str]()
    running: dict[Future[RunRecord | CiodError], _Started] = {}
    # A cluster's machines may have another working directory.
    folder = experiment.folder.resolve()
    with place as pool:
        while waiting or running:
            unfinished = {run.name for run, _ in waiting} | {started.run.name for started in running.values()}
            ready = [job for job in waiting if job[0].teacher not in unfinished][: jobs - len(running)]
            for run, config in ready:
                waiting.remove((run, config))
                future = pool.submit(_attempt, folder, run, config)
                running[future] = _Started(run, config.training.epochs, time.time())
            listener.running([_progress(experiment, started) for started in running.values()])
            for future in wait(running, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED).done:
                run, outcome = running.pop(future).run, _result(future)
                yield run, outcome
                if isinstance(outcome, CiodError):
                    failed.add(run.name)
            for job in list(waiting):
                if job[0].teacher in failed:
                    failed.add(job[0].name)
                    waiting.remove(job)


def _result(future: Future[RunRecord | CiodError]) -> RunRecord | CiodError:
    """What a run came to; a process or machine that was lost for good is an error of the run."""
    try:
        return future.result()
    except Exception as error:
        if interruption_before(error) is not None:  # the lock of a future may break
            raise
        return _as_error(error)


class _Started(NamedTuple):
    run: SuiteRun
    epochs: int
    at: float


def _progress(experiment: Experiment, started: _Started) -> RunProgress:
    # Its log shows where the run is, so that the processes need no connection.
    log = experiment.run_folder(started.run.name) / METRICS_FILE
    return RunProgress(started.run.name, last_epoch(log, started.at), started.epochs)


def _attempt(
    folder: Path, run: SuiteRun, config: Config, listener: TrainingListener | None = None
) -> RunRecord | CiodError:
    """Train one run; an error becomes a value, so that one bad run does not end all others."""
    try:
        return train_missing(folder, run, config, listener or TrainingListener())
    except CiodError as error:
        return error
    except Exception as error:  # any error of torch, from a lack of memory to a broken driver
        return _as_error(error)


def _as_error(error: Exception) -> CiodError:
    return CiodError(message_of(error))
