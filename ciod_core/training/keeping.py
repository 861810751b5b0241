"""When states of a run are written: as often as costs little, and whenever training ends."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ciod_core.errors import CiodError
from ciod_core.runtime.interruption import uninterrupted
from ciod_core.training.resume import StateOwner, TrainingState, save_state

# Of the time of training, for writing states: they are four times as large as the weights, and epochs can be short.
LARGEST_SHARE = 0.02


class StateKeeper:
    """Keeps the states of a run; as a context manager, it writes the newest one when its block fails.

    A process that is killed thus loses the epochs since the last written state: fifty times the seconds that writing it
    took. One that is interrupted or fails loses no completed epoch.
    """

    def __init__(self, folder: Path, owner: StateOwner) -> None:
        """Nothing is written yet.

        Args:
            folder: of the run.
            owner: the run.
        """
        self._folder = folder
        self._identity = _identity(folder)
        self._owner = owner
        self._unwritten: TrainingState | None = None
        self._next_write = 0.0

    def __enter__(self) -> StateKeeper:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            self.require_folder()
        # The failure is what counts; it may well be the reason why nothing can be written.
        if kind is not None and self._unwritten is not None:
            with uninterrupted(), suppress(OSError, CiodError):
                self.require_folder()
                self._write(self._unwritten)

    def keep(self, state: TrainingState, *, write: bool) -> None:
        """Keep the state after an epoch.

        Args:
            state: may go on to change.
            write: write it, however long that takes.
        """
        self.require_folder()
        if write or time.monotonic() >= self._next_write:
            self._write(state)
        else:
            self._unwritten = state.copied()

    def require_folder(self) -> None:
        """Make sure that the folder is still the one that training began in: nothing is written into another one.

        Raises:
            CiodError: it was moved, removed or unmounted.
        """
        if _identity(self._folder) != self._identity:
            raise CiodError(
                f"{self._folder}: the run's folder was moved, removed or unmounted while it was trained; put it back, "
                "or pass its new place, and go on with `resume`"
            )

    def _write(self, state: TrainingState) -> None:
        started = time.monotonic()
        save_state(self._folder, replace(state, owner=self._owner))
        self._unwritten = None
        ended = time.monotonic()
        self._next_write = ended + (ended - started) / LARGEST_SHARE


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
