"""Where the runs of a comparison train side by side: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import torch

from ciod_core.errors import CiodError, ConfigError
from ciod_core.runtime.interruption import Interruption, hold_back, interruptible, let_through
from ciod_core.runtime.processes import end_with_parent
from ciod_core.temporaries import temporary_file

P = ParamSpec("P")
R = TypeVar("R")

# How often Ray starts a run again whose process or machine was lost; it goes on where its last state was written.
RETRIES = 3
# For runs on a cluster to record that they were interrupted.
_SECONDS_TO_END = 30.0


class Pool(Protocol):
    """Calls functions elsewhere; a function and its arguments are pickled."""

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call a function as soon as there is room."""


@contextmanager
def process_pool(jobs: int, threads: int | None) -> Iterator[Pool]:
    """Processes of this machine; they are interrupted with this one.

    Args:
        jobs: how many work at the same time; no more are submitted.
        threads: of each; None shares the cores among them.
    """
    if hasattr(signal, "pthread_sigmask"):
        # Else it starts with the first process, and lets Ctrl-C through to that.
        resource_tracker.ensure_running()
    pool = _ProcessPool(threads or max(1, (os.cpu_count() or 1) // jobs))
    try:
        yield pool
    finally:
        pool.end()


class _ProcessPool:
    """A new process for each call: what becomes of one is nothing to the others, and its memory is free afterwards.

    The main thread waits for the processes themselves at the end, not for the threads that wait for their answers: an
    exception from a signal may have left a lock taken that those need.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._processes: set[SpawnProcess] = set()
        self._ended = False
        self._changes = threading.Lock()

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future: Future[R] = Future()
        threading.Thread(target=self._fulfill, args=(future, function, args, kwargs), daemon=True).start()
        return future

    def end(self) -> None:
        """Interrupt the calls that go on, begin no more, and wait until all have ended."""
        with self._changes:
            self._ended = True
            left = set(self._processes)
        for process in left:
            process.terminate()
        for process in left:
            process.join()

    def _fulfill(
        self, future: Future[R], function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        # While a process starts, Ctrl-C would make it print a traceback; other signals end it without a word.
        hold_back(signal.SIGINT)
        try:
            future.set_result(self._call(function, args, kwargs))
        except Exception as error:
            future.set_exception(error)

    def _call(self, function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        """Call a function in a process of its own, and wait for it."""
        # Spawned, not forked: a fork of a process whose torch has started threads can hang.
        context = multiprocessing.get_context("spawn")
        answers, sender = context.Pipe(duplex=False)
        process = context.Process(target=_answer, args=(sender, self._threads, function, args, kwargs))
        with answers:
            with sender, self._changes:
                if self._ended:
                    raise CiodError("interrupted before it began")
                process.start()
                self._processes.add(process)
            try:
                answer: R = answers.recv()
            except EOFError:
                process.join()
                raise _lost(process) from None
            finally:
                process.join()
                with self._changes:
                    self._processes.remove(process)
        return answer


def _answer(
    answers: Connection, threads: int, function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    end_with_parent()
    answer: R | CiodError
    try:
        with interruptible():
            let_through(signal.SIGINT)
            torch.set_num_threads(threads)
            answer = function(*args, **kwargs)
    except Interruption as interruption:
        answer = CiodError(f"its process was {interruption}")
    answers.send(answer)


def _lost(process: SpawnProcess) -> CiodError:
    code = process.exitcode or 0
    killed = f"was killed by signal {-code}, as by a system that is out of memory"
    how = killed if code < 0 else "ended without an answer"
    return CiodError(f"its process {how}; run the same command again to go on where it was")


@contextmanager
def ray_pool(folder: Path, *, cpus: int, gpus: float | None) -> Iterator[Pool]:
    """The Ray cluster of `RAY_ADDRESS`, or else that of this machine, which is started where there is none.

    Args:
        folder: that all machines of the cluster must share, under the same path.
        cpus: of each call; no more than a machine has.
        gpus: of each call; None: one where the cluster has any.

    Raises:
        ConfigError: Ray is not installed, cannot be reached, or has too few GPUs.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("`on` ray: it is not installed; run: pip install 'ciod[cluster]'") from None

    mine = not ray.is_initialized()
    try:
        if mine:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"`on` ray: no cluster can be reached ({reason}); check RAY_ADDRESS") from error
    most_cpus, most_gpus = (max(machine.get(kind, 0.0) for machine in machines) for kind in ("CPU", "GPU"))
    gpus = float(most_gpus > 0) if gpus is None else gpus
    try:
        if gpus > most_gpus:
            raise ConfigError(f"`gpus` {gpus:g}: no machine of the cluster has more than {most_gpus:g}; pass less")
        task: Any = ray.remote(num_cpus=min(cpus, most_cpus), num_gpus=gpus, max_retries=RETRIES)(_in_folder)
        with temporary_file(folder / "shared") as token:
            pool = _RayPool(ray, task, token.resolve())
            try:
                yield pool
            except KeyboardInterrupt:
                pool.interrupt()
                raise
    finally:
        if mine:
            ray.shutdown()


class _RayPool:
    def __init__(self, ray: Any, task: Any, token: Path) -> None:
        self._ray, self._task, self._token = ray, task, token
        self._references: list[Any] = []

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        reference = self._task.remote(self._token, function, args, kwargs)
        self._references.append(reference)
        future: Future[R] = reference.future()
        return future

    def interrupt(self) -> None:
        """Interrupt the calls that go on, and wait until they have ended."""
        for reference in self._references:
            self._ray.cancel(reference)
        self._ray.wait(self._references, num_returns=len(self._references), timeout=_SECONDS_TO_END)


def _in_folder(token: Path, function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R | CiodError:
    """Call a function on a machine that shares the folder of a token."""
    if not token.is_file():
        host = os.uname().nodename if hasattr(os, "uname") else "this machine"
        return CiodError(
            f"{token.parent}: not there on {host} of the cluster; put the experiment on storage that all its machines "
            "have under this path"
        )
    with interruptible():
        return function(*args, **kwargs)
