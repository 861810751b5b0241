"""Processes to watch: two that work together, as `--devices 2` starts them, and those that a signal ends."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any, TypeVar

from ciod_core.runtime.group import process_group
from ciod_core.runtime.processes import end_with_parent

R = TypeVar("R")


def in_two_processes(function: Callable[..., R], *arguments: Any) -> R:
    """What a function of a module returns in the main one of two processes, which the other one helps."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=_run, args=(rank, port, answers, function, arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    answer: R
    while True:
        try:
            answer = answers.get(timeout=1)
            break
        except queue.Empty:
            assert not any(process.exitcode for process in processes), "a process failed; see its traceback"
    for process in processes:
        process.join()
    return answer


def start_heeding(number: int, *command: object) -> subprocess.Popen[str]:
    """Start a command in a process group of its own that does not ignore a signal.

    A test run that a shell started in the background ignores Ctrl-C, and so would its children.
    """
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )


def _run(rank: int, port: int, answers: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with process_group() as is_main:
        if is_main:
            answers.put(function(*arguments))
