"""Every exception of a command becomes one line on stderr and an exit code."""

from __future__ import annotations

import errno
import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import typer

from ciod_cli.console import fail, stderr
from ciod_core.errors import CiodError

P = ParamSpec("P")
R = TypeVar("R")

TRACEBACK_VARIABLE = "CIOD_TRACEBACK"
INTERRUPTED = 130

# Typer has a click of its own or imports it, by version; only this class of it is public.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

_OS_REMEDIES = {
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "free some space and run the command again",
    errno.EACCES: "check the permissions of the file and its folder",
    errno.EPERM: "check the permissions of the file and its folder",
    errno.EROFS: "choose a folder that can be written",
}


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command so that no exception but Typer's own leaves it."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = command(*args, **kwargs)
            sys.stdout.flush()
            return result
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            fail("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader (`ciod status | head`) has closed the pipe.
            _give_up_broken_stdout()
            raise typer.Exit(1) from None
        except Exception as error:
            _give_up_broken_stdout()
            if os.environ.get(TRACEBACK_VARIABLE) == "1":
                traceback.print_exc()
            fail(message_of(error))
            raise typer.Exit(error.exit_code if isinstance(error, CiodError) else 1) from None

    return run


@contextmanager
def usage_errors_in_one_line() -> Iterator[None]:
    """Say in one line what is wrong with the arguments of a command; on a terminal Typer shows it, with the usage."""
    try:
        yield
    except _USAGE_ERROR as error:
        usage: Any = error
        # Without any argument the help is shown, which Typer does by an error of this name.
        if stderr().is_terminal or type(error).__name__ == "NoArgsIsHelpError":
            raise
        message = " ".join(usage.format_message().split()).rstrip(".")
        helps = usage.ctx is None or message.endswith("?")
        fail(message if helps else f"{message}; see '{usage.ctx.command_path} --help'")
        raise typer.Exit(usage.exit_code) from None


def _give_up_broken_stdout() -> None:
    """Point stdout elsewhere when it cannot be written, so that Python does not complain once more at its exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def message_of(error: Exception) -> str:
    """What a user reads about an exception: what, where and what to do."""
    if isinstance(error, CiodError):
        return _last_line(str(error))
    if isinstance(error, OSError) and error.strerror:
        remedy = _OS_REMEDIES.get(error.errno or 0)
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return f"{where}{error.strerror}" + (f"; {remedy}" if remedy else "")
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        return "out of memory; lower `training.batch_size` or `data.image_size`"
    return f"unexpected {name}: {_last_line(str(error))}; set {TRACEBACK_VARIABLE}=1 to see where it came from"


def _last_line(text: str) -> str:
    # A loader's worker process hands its exception on with a traceback before the message.
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or not any(line.startswith(("Traceback", "Original Traceback")) for line in lines):
        return " ".join(line.strip() for line in lines)
    return re.sub(r"^[\w.]+: ", "", lines[-1])
