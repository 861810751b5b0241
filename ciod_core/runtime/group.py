"""The processes of one command: the main one runs it, the others help it where there is much to compute.

A helper runs no command. It makes the objects and calls the functions that the main process sends (`Everywhere`). So
the main process alone reads settings, writes files and shows what happens, as if there were no other.
"""

from __future__ import annotations

import io
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Generic, Self, TypeVar

import torch
from torch import distributed

from ciod_core.errors import CiodError
from ciod_core.runtime.distributed import rank, world_size
from ciod_core.runtime.processes import end_with_parent

# Machines import torch at very different speeds.
TIME_TO_START = timedelta(minutes=10)
# Within a job all processes are as fast as each other; who does not answer for so long never will.
TIME_TO_ANSWER = timedelta(minutes=1)
# Helpers wait for what the main process does alone, and it for the slowest of them. Who ends is noticed at once.
TIME_BETWEEN_JOBS = timedelta(days=30)
# What a collective operation says when a process at its other end is gone.
_LOST = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused", "NCCL")
_TIMED_OUT = ("Timed out", "timeout")

T = TypeVar("T")
R = TypeVar("R")


class LostProcessError(CiodError):
    """Another process of the group has ended, so that this one cannot go on."""


class _Group:
    """Connections of this process to the others, beside torch's default group."""

    def __init__(self) -> None:
        # Builds of torch without processes do not have it.
        from torch.distributed.rendezvous import rendezvous

        store, own, size = next(rendezvous("env://", timeout=TIME_TO_START))
        store.set(f"started/{own}", "")
        store.wait([f"started/{each}" for each in range(size)], TIME_TO_START)
        if torch.cuda.is_available():
            # More processes than GPUs is an error as soon as one is needed.
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=own, world_size=size, timeout=TIME_TO_ANSWER)
        self.store = store
        self.jobs: Any = distributed.new_group(backend="gloo", timeout=TIME_BETWEEN_JOBS)


_group: _Group | None = None
_keys = itertools.count()


@contextmanager
def process_group() -> Iterator[bool]:
    """Join the group of processes that the environment describes as torchrun does, and leave it at the end.

    Yields whether this is the main process. Any other one has helped by then, until the main process left.

    Raises:
        LostProcessError: another process has ended, or failed first; that one says why.
        CiodError: another process does not answer.
    """
    global _group
    if distributed.is_torchelastic_launched():
        end_with_parent()
    group = _group = _Group()
    try:
        if rank() != 0:
            _help(group)
        yield rank() == 0
        if rank() == 0:
            _send(group, "cpu", None)
    except LostProcessError:
        raise
    except Exception as error:
        if _is_first_to_fail(group):
            raise
        raise LostProcessError("another process has failed before") from error
    finally:
        _group = None
        # Closes connections, by which the others notice an error at once; on GPUs that may wait for work of others.
        if not torch.cuda.is_available() or sys.exc_info()[0] is None:
            distributed.destroy_process_group()


def _is_first_to_fail(group: _Group) -> bool:
    """Whether this process is the first of the group to fail, which is the one to say why."""
    own = str(rank())
    try:
        return bool(group.store.compare_set("failed", "", own).decode() == own)
    except RuntimeError:  # The process with the store is gone.
        return False


class Everywhere(Generic[T]):
    """The same object in every process, made from the same arguments; a context, at whose end it is dropped.

    Only the main process makes one and calls it. Objects and functions are sent as pickle does it; tensors on a GPU
    arrive on the GPU of each process.

    Attributes:
        mine: the main process's own.
    """

    def __init__(self, device: torch.device, make: Callable[..., T], *arguments: Any) -> None:
        """Make `make(*arguments)` in every process; `device` is where the main process computes."""
        self._device, self._key = device.type, next(_keys)
        self._send(make, arguments)
        self.mine = _run(make, arguments)

    def call(self, function: Callable[..., R], *arguments: Any, **of_main: Any) -> list[R]:
        """What `function(object, *arguments)` returns in every process, by rank.

        Args:
            function: of a module, so that it can be sent.
            arguments: of every process.
            of_main: further arguments in the main process alone.
        """
        self._send(function, arguments)
        found = _run(function, (self.mine, *arguments), of_main)
        return [found] if _group is None else _gather(_group, found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *error: object) -> None:
        if failed is None:
            self._send(None, ())

    def _send(self, function: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
        if _group is not None:
            _send(_group, self._device, (self._key, function, arguments))


def _help(group: _Group) -> None:
    """Do what the main process sends until it sends that it is done."""
    objects: dict[int, Any] = {}
    while (job := _receive(group)) is not None:
        key, function, arguments = job
        if function is None:
            del objects[key]
        elif key in objects:
            _gather(group, _run(function, (objects[key], *arguments)))
        else:
            objects[key] = _run(function, arguments)


def _run(function: Callable[..., R], arguments: tuple[Any, ...], further: dict[str, Any] | None = None) -> R:
    """Call a function; in a group, its errors tell in a note in which process they were raised."""
    with _connection_errors():
        try:
            return function(*arguments, **further or {})
        except Exception as error:
            if _group is not None:
                error.add_note(f"rank {rank()}")
            raise


def _send(group: _Group, device: str, job: object) -> None:
    buffer = io.BytesIO()
    torch.save(job, buffer)
    with _connection_errors():
        distributed.broadcast_object_list([device, buffer.getvalue()], src=0, group=group.jobs)


def _receive(group: _Group) -> Any:
    message: list[Any] = [None, None]
    with _connection_errors():
        distributed.broadcast_object_list(message, src=0, group=group.jobs)
    device, content = message
    # What was sent by the main process of this very command may be any object.
    return torch.load(io.BytesIO(content), map_location=device, weights_only=False)


def _gather(group: _Group, found: R) -> list[R]:
    """The results of all processes in the main one; in others nothing of use."""
    results: list[Any] = [None] * world_size()
    with _connection_errors():
        distributed.gather_object(found, results if rank() == 0 else None, dst=0, group=group.jobs)
    return results


@contextmanager
def _connection_errors() -> Iterator[None]:
    """Tell errors of the connections to other processes from those of the work."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if _group is None:
            raise
        if any(sign in text for sign in _TIMED_OUT):
            raise CiodError(
                f"another process has not answered for {TIME_TO_ANSWER.seconds} s; see whether it hangs or its machine "
                "is out of reach, and run the command again"
            ) from error
        if any(sign in text for sign in _LOST):
            raise LostProcessError("another process has ended; run the command again") from error
        raise
