"""Processes that work beside the one people started."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

from ciod_core.runtime.interruption import ENDING, hold_back

_SECONDS_BETWEEN_LOOKS = 1.0


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
