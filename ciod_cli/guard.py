"""Every exception of a command becomes one line on stderr and an exit code."""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import typer

from ciod_cli.console import fail, printable, stderr
from ciod_core.errors import CiodError
from ciod_core.runtime import failures
from ciod_core.runtime.interruption import ENDING, Interruption, interruptible, interruption_before, uninterrupted

P = ParamSpec("P")
R = TypeVar("R")

TRACEBACK_VARIABLE = "CIOD_TRACEBACK"
# Exit codes of shells: that of a command which a signal ended is the signal's number more than this.
SIGNALED = 128

# What a process finds in its environment that torchrun or `--devices` started.
_LAUNCHED = "TORCHELASTIC_RUN_ID"

# Typer has a click of its own or imports it, by version; only this class of it is public.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command so that no exception but Typer's own leaves it."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with interruptible():
                result = command(*args, **kwargs)
                sys.stdout.flush()
            return result
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt as error:
            raise _exit_by(error) from None
        except BrokenPipeError:
            # The reader (`ciod status | head`) has closed the pipe.
            _give_up_broken_streams()
            raise typer.Exit(1) from None
        except Exception as error:
            _give_up_broken_streams()
            if os.environ.get(TRACEBACK_VARIABLE) == "1":
                traceback.print_exc()
            interruption = interruption_before(error)
            if interruption is not None and not failures.is_foreseen(error):
                # Whatever broke because it was interrupted.
                raise _exit_by(interruption) from None
            _say(message_of(error))
            raise typer.Exit(error.exit_code if isinstance(error, CiodError) else 1) from None

    return run


def _exit_by(interruption: KeyboardInterrupt) -> typer.Exit:
    """Say what the process was asked, and return the exit that it asks for."""
    with uninterrupted():
        number = interruption.number if isinstance(interruption, Interruption) else signal.SIGINT
        # A launcher ends its processes by SIGTERM where one has failed or it was asked to end itself, and says so.
        if not (number == signal.SIGTERM and _LAUNCHED in os.environ):
            _say(ENDING[number])
    return typer.Exit(SIGNALED + number)


@contextmanager
def usage_errors_in_one_line() -> Iterator[None]:
    """Say in one line what is wrong with the arguments of a command; on a terminal Typer shows it, with the usage."""
    try:
        yield
    except _USAGE_ERROR as error:
        usage: Any = error
        usage.message = printable(str(usage.message))
        # Without any argument the help is shown, which Typer does by an error of this name.
        if stderr().is_terminal or type(error).__name__ == "NoArgsIsHelpError":
            raise
        message = " ".join(usage.format_message().split()).rstrip(".")
        helps = usage.ctx is None or message.endswith("?")
        fail(message if helps else f"{message}; see '{usage.ctx.command_path} --help'")
        raise typer.Exit(usage.exit_code) from None
    except OSError as error:  # of a help that cannot be printed
        _give_up_broken_streams()
        _say(message_of(error))
        raise typer.Exit(1) from None


def _say(message: str) -> None:
    """Print why the command ends, where there is still somebody to read it."""
    try:
        fail(message)
    except (OSError, SystemExit):  # rich ends the program when its reader is gone
        _give_up_broken_streams()


def _give_up_broken_streams() -> None:
    """Point stdout and stderr elsewhere where they cannot be written, or Python complains once more at its exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def message_of(error: Exception) -> str:
    """What a user reads about an exception: what, where and what to do."""
    text = failures.message_of(error)
    return text if failures.is_foreseen(error) else f"{text}; set {TRACEBACK_VARIABLE}=1 to see where it came from"
