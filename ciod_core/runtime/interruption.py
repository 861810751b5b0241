"""Signals that end a process: each is an exception, so that what was begun is recorded."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# A terminal that closes and a system that shuts down send several at once.
SECONDS_TOGETHER = 2.0
# After which an interruption that was lost comes again: long enough for whatever lost it to be over.
SECONDS_TO_REPEAT = 0.05
# By number, what a process that got it says.
ENDING = {
    int(getattr(signal, name)): text
    for name, text in (("SIGINT", "interrupted"), ("SIGTERM", "terminated"), ("SIGHUP", "hung up"))
    if hasattr(signal, name)
}


class Interruption(KeyboardInterrupt):
    """The process was asked to end.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(ENDING[number])
        self.number = number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise an `Interruption` in the block when the process is asked to end, and one alone for several requests.

    A signal that is ignored, as by `nohup`, stays ignored. Libraries in C may turn the exception into one of their own;
    then it is raised anew. Where an exception is lost, as in destructors and some callbacks, or would leave a lock
    taken, the request is repeated.
    """
    raised_at, raised = -SECONDS_TOGETHER, 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal raised_at, raised
        if time.monotonic() - raised_at < SECONDS_TOGETHER:
            return
        if _is_locking(frame):
            _thread.start_new_thread(_repeat, (number,))
            return
        raised_at, raised = time.monotonic(), number
        raise Interruption(number)

    def repeat_lost(lost: Any) -> None:
        nonlocal raised_at
        if not isinstance(lost.exc_value, Interruption):
            if not raised:  # what breaks after it is a consequence, as where a loader's workers have ended already
                others(lost)
            return
        raised_at = -SECONDS_TOGETHER
        _thread.start_new_thread(_repeat, (lost.exc_value.number,))

    handled = [number for number in ENDING if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    others, sys.unraisablehook = sys.unraisablehook, repeat_lost
    try:
        with _handled_by(interrupt, handled):
            yield
    except Exception as error:
        if raised and interruption_before(error) is None:
            raise Interruption(raised) from error
        raise
    finally:
        sys.unraisablehook = others


def interruption_before(error: BaseException | None) -> Interruption | None:
    """The interruption that was handled when an error occurred, if one was."""
    while error is not None and not isinstance(error, Interruption):
        error = error.__context__
    return error


def _repeat(number: int) -> None:
    """The same request once more; in a thread of the lower kind, because starting the other one takes locks."""
    time.sleep(SECONDS_TO_REPEAT)
    os.kill(os.getpid(), number)


def _is_locking(frame: FrameType | None) -> bool:
    """Whether Python's own code takes or gives back a lock; by an exception there, it would stay taken for good."""
    if frame is None or frame.f_globals.get("__name__") != threading.__name__:
        return False
    return frame.f_code.co_name in ("__enter__", "__exit__", "_acquire_restore")


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let nothing but a kill end the process in the block; it is ending already."""
    with _handled_by(lambda number, frame: None, list(ENDING)):
        yield


def hold_back(*numbers: int) -> None:
    """Let these signals reach neither this thread nor a process that it starts, until that lets them through."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def let_through(*numbers: int) -> None:
    """Let these signals reach this thread, those held back at once."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


@contextmanager
def _handled_by(handler: object, numbers: list[int]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread, and lets it alone choose how.
        return
    before = {number: signal.signal(number, handler) for number in numbers}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, old in before.items():
            if old is not None:  # a handler that is not Python's cannot be put back by it
                signal.signal(number, old)
