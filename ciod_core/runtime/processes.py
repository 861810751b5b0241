"""Processes that work beside the one people started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from ciod_core.errors import CiodError
from ciod_core.runtime.interruption import ENDING, hold_back, let_through

T = TypeVar("T")
R = TypeVar("R")

_SECONDS_BETWEEN_LOOKS = 1.0


def in_processes(function: Callable[[T], R], shares: Iterable[T]) -> list[R]:
    """What a function returns for each share of some work, all in processes of their own at the same time.

    They end without a word when this process is interrupted or one of them fails.

    Args:
        function: of a module, or a `partial` of one; it must not need torch, whose threads a fork can break.
        shares: its argument in each process.

    Raises:
        Exception: what the function raises.
        CiodError: a process was killed.
    """
    context: Any = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    started = []
    try:
        for share in shares:
            answers, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(sender, function, share))
            # A process that is not ready yet would answer a signal with a traceback.
            hold_back(*ENDING)
            process.start()
            started.append((process, answers))
            let_through(*ENDING)
            sender.close()
        return [_answer(answers) for _, answers in started]
    finally:
        let_through(*ENDING)
        for process, _ in started:
            process.terminate()
        for process, _ in started:
            process.join()


def _work(sender: Connection, function: Callable[[T], R], share: T) -> None:
    for number in ENDING:
        if callable(signal.getsignal(number)):  # one that is ignored stays so
            signal.signal(number, signal.SIG_DFL)
    let_through(*ENDING)
    end_with_parent()
    answer: R | Exception
    try:
        answer = function(share)
    except Exception as error:
        answer = error
    sender.send(answer)


def _answer(answers: Connection) -> Any:
    try:
        answer = answers.recv()
    except EOFError:
        raise CiodError("a process was killed, as by a system that is out of memory; run the command again") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def end_with_parent() -> None:
    """Let this process end as soon as the one that started it has ended, even if that was killed.

    A killed training can be started again; a process that trains on unseen would get in its way.
    """
    threading.Thread(target=_wait_and_end, args=(os.getppid(),), daemon=True).start()


def _wait_and_end(parent_id: int) -> None:
    # Python acts on a signal in the main thread alone, and one that woke this thread would not wake that.
    hold_back(*ENDING)
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    else:
        # Whoever loses its parent gets another one.
        while os.getppid() == parent_id:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)
