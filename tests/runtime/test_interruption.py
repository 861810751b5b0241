"""A process that is asked to end does so, once, whatever the libraries in between make of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial

import pytest

from ciod_core.runtime.interruption import Interruption, interruptible

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process there")


def ask_to_end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_an_error_that_a_library_raises_in_its_place_is_an_interruption() -> None:
    with pytest.raises(Interruption) as caught, interruptible():
        with suppress(Interruption):  # as code in C does that takes any exception for one of its own
            ask_to_end()
        raise ValueError("could not determine the shape")
    assert caught.value.number == signal.SIGTERM and isinstance(caught.value.__cause__, ValueError)


def test_an_interruption_that_a_destructor_loses_comes_again() -> None:
    class Ends:
        def __del__(self) -> None:
            ask_to_end()

    others = sys.unraisablehook
    with pytest.raises(Interruption) as caught, interruptible():
        lost = Ends()
        del lost
        time.sleep(10)
    assert caught.value.number == signal.SIGTERM
    assert sys.unraisablehook is others


def test_what_a_destructor_says_in_the_course_of_it_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks:
        def __del__(self) -> None:
            raise ValueError("a worker is gone")

    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: reported.append(lost.exc_type))
    with pytest.raises(Interruption), interruptible():
        Breaks()
        try:
            ask_to_end()
        finally:
            Breaks()
    assert reported == [ValueError]


def test_a_lock_is_taken_and_given_back_first() -> None:
    class Asking:
        __enter__ = partial(signal.raise_signal, signal.SIGTERM)
        acquire = release = __exit__ = print

    entered = False
    with pytest.raises(Interruption), interruptible(), threading.Condition(Asking()):  # type: ignore[arg-type]
        entered = True
        time.sleep(10)
    assert entered


def test_an_error_while_the_process_ends_stays_what_it_is() -> None:
    with pytest.raises(OSError, match="disk full"), interruptible():
        try:
            ask_to_end()
        finally:
            raise OSError("disk full")


def test_an_error_without_an_interruption_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="a"), interruptible():
        raise ValueError("a")


def test_requests_that_come_together_are_one() -> None:
    with pytest.raises(Interruption), interruptible():
        try:
            ask_to_end()
        except Interruption:
            ask_to_end()
            raise
