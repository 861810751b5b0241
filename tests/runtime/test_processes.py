"""Worker processes do not outlive the process that people see and stop."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ciod_core.errors import CiodError
from ciod_core.runtime.processes import in_processes
from tests.helpers.processes import start_heeding

# A parent whose worker would sleep for a minute; it prints the worker's process id.
PARENT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from ciod_core.runtime.processes import end_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("{start}"), end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the state of processes from /proc")
@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_a_worker_ends_when_its_parent_is_killed(start: str, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(start=start), encoding="utf-8")
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert _alive(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(worker)


def _alive(process: int) -> bool:
    """Whether a process runs; one that has ended and was not collected yet counts as ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# Says when its processes work, which would take long.
WORK = """
import os, sys, time
from ciod_core.runtime.interruption import Interruption, interruptible
from ciod_core.runtime.processes import in_processes

def work(share):
    # At once: print may write the number and the end of its line one after the other.
    os.write(1, f"{share}\\n".encode())
    time.sleep(60)

if __name__ == "__main__":
    try:
        with interruptible():
            in_processes(work, range(2))
    except Interruption as interruption:
        sys.exit(interruption.number)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("to", ["all", "parent"])
def test_work_ends_with_an_interruption(name: str, to: str, tmp_path: Path) -> None:
    script, number = tmp_path / "work.py", getattr(signal, name)
    script.write_text(WORK, encoding="utf-8")
    process = start_heeding(number, sys.executable, script)
    assert process.stdout is not None
    assert {process.stdout.readline() for _ in range(2)} == {"0\n", "1\n"}
    (os.killpg if to == "all" else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (number, "")


def _double(number: int) -> int:
    return 2 * number


def _fail(number: int) -> None:
    if number == 1:
        raise OSError(errno.ENOSPC, "No space left on device")
    time.sleep(60)


def _end(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_work_in_shares() -> None:
    assert in_processes(_double, range(3)) == [0, 2, 4]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
def test_work_that_fails() -> None:
    with pytest.raises(OSError, match="No space left"):
        in_processes(_fail, [1, 2])
    with pytest.raises(CiodError, match="a process was killed"):
        in_processes(_end, [1])
