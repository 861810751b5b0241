"""`--devices`: a command in several processes, which it starts itself or which torchrun started."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from ciod_cli import console
from ciod_cli.guard import SIGNALED, message_of
from ciod_cli.options import option
from ciod_cli.settings import SETTINGS_PANEL, settings
from ciod_core.errors import CiodError, ConfigError
from ciod_core.runtime.interruption import ENDING, Interruption

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

DEVICES = option(
    "--devices",
    "Processes to share the work, one per GPU: how many (2), which GPUs (0,1), or all; on a CPU how many.",
    metavar="NUMBER|GPUS|all",
    panel=SETTINGS_PANEL,
)
# What every process of a launcher finds in its environment, as torchrun sets it.
_NUMBER_OF_PROCESSES = "WORLD_SIZE"
# The exit code of a process that failed because another one did.
LOST_ANOTHER = 75
# For the process that failed first to end, which takes a moment; the launcher then ends the others.
SECONDS_FOR_THE_FIRST = 10.0


def number_of_processes() -> int:
    """Of this command; more than one where a launcher started it."""
    return int(os.environ.get(_NUMBER_OF_PROCESSES, "1"))


def on_devices(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option --devices. In several processes, the main one runs it and the others help."""
    signature = inspect.signature(command, eval_str=True)
    devices = inspect.Parameter("devices", inspect.Parameter.KEYWORD_ONLY, default=DEVICES, annotation=str | None)

    @functools.wraps(command)
    def run(*, devices: str | None, **given: Any) -> None:
        if number_of_processes() > 1:
            _run_as_one_of_several(functools.partial(command, **given))
            return
        chosen = None if devices is None else _choose(devices)
        if chosen is None or chosen.count == 1:
            command(**given)
        else:
            _start(chosen, "resume" in given)

    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), devices])  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in run.__signature__.parameters.items()}  # type: ignore[attr-defined]
    return run


def _run_as_one_of_several(command: Callable[[], None]) -> None:
    """Run the command, or help the process that does. Of several that fail, the first one says why."""
    from torch import distributed

    from ciod_core.runtime.group import LostProcessError, process_group

    is_helper, ended = os.environ.get("RANK") != "0", None
    try:
        with process_group() as is_main:
            if is_main:
                try:
                    command()
                except typer.Exit as early:
                    ended = early  # No failure, of which the helpers would learn.
    except KeyboardInterrupt as error:
        if is_helper:
            number = error.number if isinstance(error, Interruption) else signal.SIGINT
            raise typer.Exit(SIGNALED + number) from None
        raise
    except LostProcessError:
        if is_helper:
            # A launcher that sees this process end first would take it for the one that failed, and end the other.
            for number in ENDING:
                signal.signal(number, signal.SIG_DFL)  # the launcher's end it without a word
            time.sleep(SECONDS_FOR_THE_FIRST)
        # Whoever started the processes knows which one it was.
        if is_helper or distributed.is_torchelastic_launched():
            raise typer.Exit(LOST_ANOTHER) from None
        raise
    except Exception as error:
        where = [note for note in getattr(error, "__notes__", ()) if note.startswith("rank ")]
        if not where:
            raise
        named = CiodError(f"{where[0]}: {message_of(error)}")
        named.exit_code = getattr(error, "exit_code", 1)
        raise named from error
    if ended is not None:
        raise ended


@dataclass(frozen=True)
class _Chosen:
    """How many processes, and which GPUs: their numbers, or None for the first ones or none."""

    count: int
    gpus: tuple[int, ...] | None = None


def _choose(devices: str) -> _Chosen:
    """What --devices means here.

    Raises:
        ConfigError: neither a number nor a list of GPUs that are there, or a device that processes cannot share.
    """
    numbers = [part.strip() for part in devices.split(",")]
    if devices != "all" and not (all(part.isdecimal() for part in numbers) and devices != "0"):
        raise ConfigError(f"`devices` {devices}: pass how many (2), the numbers of GPUs (0,1), or all")
    if devices == "1":
        return _Chosen(1)
    import torch

    device = settings().training.device.lower()
    there = torch.cuda.device_count() if device in ("auto", "cuda", "gpu") else 0
    if device not in ("auto", "cuda", "gpu", "cpu"):
        raise ConfigError(f"`training.device` {device}: processes cannot share it; leave it out, `devices` says where")
    if devices == "all":
        if not there:
            raise ConfigError("`devices` all: there is no GPU; pass the number of processes")
        return _Chosen(there)
    gpus = tuple(int(part) for part in numbers) if len(numbers) > 1 else None
    count = int(devices) if gpus is None else len(gpus)
    if gpus is not None and (len(set(gpus)) < count or max(gpus) >= there):
        raise ConfigError(f"`devices` {devices}: here are {there} GPUs, counted from 0; pass different ones of them")
    if (there or device in ("cuda", "gpu")) and count > there:
        raise ConfigError(
            f"`devices` {devices}: here {'is 1 GPU' if there == 1 else f'are {there} GPUs'}; pass no more"
        )
    return _Chosen(count, gpus)


def _start(chosen: _Chosen, can_resume: bool) -> None:
    """Run this very command line in several processes, and end as they end."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The processes say themselves what is wrong.
    logging.disable()
    os.environ |= _environment(chosen, os.environ)
    # A module's folder of the same name in the working directory must not come before what is installed.
    main_is_module = getattr(sys.modules["__main__"], "__spec__", None) is not None
    python = (sys.executable, *(() if main_is_module else ("-P",)), "-m", "ciod_cli")
    with tempfile.TemporaryDirectory() as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=chosen.count,
            run_id="ciod",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        try:
            elastic_launch(config, python[0])(*python[1:], *sys.argv[1:])
        except ChildFailedError as error:
            raise typer.Exit(_reported(error.failures, can_resume)) from None
        except SignalException as error:
            if error.sigval == signal.SIGTERM:  # of other signals the processes tell
                console.fail(ENDING[error.sigval])
            raise typer.Exit(128 + error.sigval) from None


def _environment(chosen: _Chosen, now: Mapping[str, str]) -> dict[str, str]:
    """What the processes find in their environment beside what the launcher sets."""
    added = {} if "OMP_NUM_THREADS" in now else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // chosen.count))}
    if chosen.gpus is not None:
        visible = now.get("CUDA_VISIBLE_DEVICES", "").split(",")
        known = [name.strip() for name in visible if name.strip()]
        added["CUDA_VISIBLE_DEVICES"] = ",".join(known[gpu] if known else str(gpu) for gpu in chosen.gpus)
    return added


def _reported(failures: Mapping[int, ProcessFailure], can_resume: bool) -> int:
    """The exit code of the command; says which process was killed, for that one could not say it."""
    codes = {rank: failure.exitcode for rank, failure in failures.items() if failure.exitcode != LOST_ANOTHER}
    # The launcher ends by SIGTERM those that are left.
    killed = {rank: -code for rank, code in codes.items() if code < 0 and code != -signal.SIGTERM}
    said = [code for code in codes.values() if code > 0 and code != SIGNALED + signal.SIGTERM]
    if said and not killed:
        return said[0]
    rank, number = next(iter((killed or dict.fromkeys(codes, signal.SIGTERM) or {0: signal.SIGTERM}).items()))
    how = "run the command again" + (" with `resume`" if can_resume else "")
    console.fail(
        f"rank {rank}: killed by {signal.Signals(number).name}, as happens where memory is short; the other processes "
        f"were ended, too; {how}"
    )
    return 1
